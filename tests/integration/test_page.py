"""The page in a real browser: it opens from a file, offline, in silence, and nothing on it overlaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.report.page import MAX_PAGE_BYTES, write_report
from tests.integration.browser import Json, Tab, browser
from tests.unit.report import sample

KINDS = ("valid", "violated", "broken", "empty")
WRITERS = {
    "valid": sample.valid_run,
    "violated": sample.violated_run,
    "broken": sample.broken_run,
    "empty": sample.empty_run,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    root = tmp_path_factory.mktemp("pages")
    runs = {kind: WRITERS[kind](root / kind) for kind in KINDS}
    return {kind: write_report(run.folder, None, run.judgement) for kind, run in runs.items()}


@pytest.fixture(scope="module")
def shared_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser") / "home") as opened:
        yield opened


@pytest.fixture
def tab(shared_tab: Tab) -> Tab:
    """A browser's page that has not complained yet."""
    shared_tab.complaints.clear()
    shared_tab.requests.clear()
    return shared_tab


def listed(value: Json) -> Sequence[Json]:
    assert isinstance(value, Sequence)
    return value


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_opens_offline_and_in_silence(pages: dict[str, Path], tab: Tab, kind: str, scheme: str) -> None:
    assert pages[kind].stat().st_size < MAX_PAGE_BYTES
    tab.open(pages[kind], scheme=scheme)
    word = {"valid": "VALID", "violated": "VIOLATED", "broken": "BROKEN", "empty": "UNKNOWN"}[kind]
    assert str(tab.evaluate("document.querySelector('h1').innerText")).strip().startswith(word)
    assert tab.evaluate("document.documentElement.classList.contains('js')") is True
    assert tab.complaints == []
    assert tab.requests == [pages[kind].as_uri()]


def test_a_page_that_complains_or_asks_the_network_would_be_noticed(
    pages: dict[str, Path], tab: Tab, tmp_path: Path
) -> None:
    planted = pages["valid"].read_text().replace("</main>", '<img src="http://127.0.0.1:9/x.png" alt=""></main>')
    page = tmp_path / "planted.html"
    page.write_text(planted)
    tab.open(page)
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)
    page.write_text("<script>console.error('planted')</script><img src='http://127.0.0.1:9/x.png'>")
    tab.complaints.clear()
    tab.open(page)
    assert any("planted" in complaint for complaint in tab.complaints)
    assert "http://127.0.0.1:9/x.png" in tab.requests


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_fits_its_window_and_no_labels_overlap(pages: dict[str, Path], tab: Tab, kind: str, width: int) -> None:
    tab.open(pages[kind], width=width)
    assert tab.evaluate("document.scrollingElement.scrollWidth - innerWidth") == 0
    overlaps = tab.evaluate("""(() => {
      for (const d of document.querySelectorAll("details")) d.open = true;
      const found = [];
      for (const group of ["#plots .ticks", "#plots svg[role=img]", "#plots .gutter", "svg.network", "nav", ".meta"]) {
        for (const box of document.querySelectorAll(group)) {
          const labels = [...box.querySelectorAll("text, span.tick, a, div")]
            .map((e) => [e.textContent, e.getBoundingClientRect()]).filter(([, r]) => r.width > 0);
          labels.forEach(([a, r], i) => labels.slice(i + 1).forEach(([b, s]) => {
            const inside = r.left < s.right - 1 && s.left < r.right - 1 && r.top < s.bottom - 1 && s.top < r.bottom - 1;
            if (inside && !a.includes(b) && !b.includes(a)) found.push(group + ": " + a + " / " + b);
          }));
        }
      }
      return found;
    })()""")
    assert overlaps == []


#: Every element that holds text of its own, with its contrast against the first background behind it.
CONTRASTS = """(() => {
  for (const d of document.querySelectorAll("details")) d.open = true;
  const parse = (c) => { const p = c.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
  const behind = (e) => { for (let n = e; n; n = n.parentElement) {
    const c = parse(getComputedStyle(n).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
  const poor = [];
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest(".hidden, .skip, script, style, title, desc") || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), isSvg = e instanceof SVGElement;
    const rect = isSvg && e.previousElementSibling?.localName === "rect" ? e.previousElementSibling : null;
    const fill = rect ? getComputedStyle(rect).fill : "";
    if (fill.includes("url")) continue;
    const a = light(parse(isSvg ? style.fill : style.color)), b = light(fill ? parse(fill) : behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) poor.push([e.className.baseVal ?? e.className, e.textContent, ratio.toFixed(2)]);
  }
  return poor;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_is_legible(pages: dict[str, Path], tab: Tab, kind: str, scheme: str) -> None:
    tab.open(pages[kind], scheme=scheme)
    assert tab.evaluate(CONTRASTS) == []


def ticks(tab: Tab) -> list[str]:
    script = "[...document.querySelector('#plots .ticks').querySelectorAll('text')].map((t) => t.textContent)"
    return [str(label).replace("\u202f", " ") for label in listed(tab.evaluate(script))]


def plot_area(tab: Tab) -> tuple[float, float, float]:
    """Left edge, width and a line within the charts, pixels of the window."""
    box = listed(
        tab.evaluate("""(() => {
          document.querySelector("#plots").scrollIntoView({behavior: "instant"});
          const r = document.querySelector("#plots .bands").getBoundingClientRect();
          return [r.left, r.width, r.top + 150];
        })()""")
    )
    left, width, y = (float(str(v)) for v in box)
    return left, width, y


def test_the_crosshair_tells_the_values(pages: dict[str, Path], tab: Tab) -> None:
    tab.open(pages["valid"])
    left, width, y = plot_area(tab)
    tab.mouse("mouseMoved", left + width * 4.0 / 18.6, y)
    assert tab.evaluate("document.querySelector('#cursor').hidden") is False
    assert str(tab.evaluate("document.querySelector('#cursor-time').textContent")).startswith("4.0")
    # Between 3.0 s and 5.1 s no write returns.
    assert tab.evaluate("document.querySelector('output[data-series=writes]').textContent") == "0/s"
    assert tab.evaluate("document.querySelector('#readout').textContent") == "zk1 looking, zk2 looking, zk3 looking"
    tab.mouse("mouseMoved", 2, 2)
    assert tab.evaluate("document.querySelector('#cursor').hidden") is True
    assert tab.complaints == []


def test_dragging_enlarges_all_charts_and_a_double_click_shows_all(pages: dict[str, Path], tab: Tab) -> None:
    tab.open(pages["valid"])
    before = ticks(tab)
    left, width, y = plot_area(tab)
    tab.mouse("mouseMoved", left + width * 0.2, y)
    tab.mouse("mousePressed", left + width * 0.2, y, clicks=1)
    tab.mouse("mouseMoved", left + width * 0.3, y, clicks=1)
    tab.mouse("mouseReleased", left + width * 0.3, y, clicks=1)
    assert ticks(tab) == ["3.8 s", "4.0 s", "4.2 s", "4.4 s", "4.6 s", "4.8 s", "5.0 s", "5.2 s", "5.4 s"]
    widths = "[...document.querySelectorAll('#plots .stage')].map((s) => parseFloat(s.getAttribute('width')))"
    assert {round(float(str(w))) for w in listed(tab.evaluate(widths))} == {1000}
    for clicks in (1, 2):
        tab.mouse("mousePressed", left + width / 2, y, clicks=clicks)
        tab.mouse("mouseReleased", left + width / 2, y, clicks=clicks)
    assert ticks(tab) == before
    assert tab.complaints == []


def test_the_charts_can_be_read_with_the_keyboard(pages: dict[str, Path], tab: Tab) -> None:
    tab.open(pages["valid"])
    tab.evaluate("document.querySelector('#plots').focus()")
    for key in ("ArrowRight", "ArrowRight", "+", "ArrowLeft"):
        tab.key(key)
    assert "zk2 leader" in str(tab.evaluate("document.querySelector('#readout').textContent"))
    assert len(ticks(tab)) > 2
    tab.key("0")
    tab.key("Escape")
    assert tab.evaluate("document.querySelector('#cursor').hidden") is True


def test_the_command_is_copied(pages: dict[str, Path], tab: Tab) -> None:
    tab.open(pages["valid"])
    script = "(() => { const r = %s.getBoundingClientRect(); return [r.x + 5, r.y + 5]; })()"
    x, y = listed(tab.evaluate(script % "document.querySelector('#copy')"))
    for kind in ("mousePressed", "mouseReleased"):
        tab.mouse(kind, float(str(x)), float(str(y)), clicks=1)
    label = "new Promise((r) => setTimeout(() => r(document.querySelector('#copy').textContent), 100))"
    assert tab.evaluate(label) == "Copied"


def test_a_page_is_whole_without_scripts(pages: dict[str, Path], tab: Tab) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(pages["violated"])
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    text = str(tab.evaluate("document.body.innerText"))
    for words in ("VIOLATED", "c1.4#812", "Throughput", "bites", "ConnectionLoss", "Raw files"):
        assert words in text
    assert tab.evaluate("document.querySelector('#copy').hidden") is True
    assert tab.complaints == []

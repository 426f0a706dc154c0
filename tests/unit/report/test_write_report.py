"""Whole pages, from folders of all kinds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.check.evidence import load_evidence
from harness.check.judge import judge
from harness.check.verdict import Finding, Judgement, Overall, Verdict, Witness
from harness.errors import StorageFull
from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent, Measurement, Note, Phase, ProbeEvent
from harness.history.scenario import Service
from harness.report.page import MAX_PAGE_BYTES, write_report
from tests.unit.report import sample

HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}</style></title>"

VOID = {"meta", "link", "input", "br", "img"}


class Reader(HTMLParser):
    """Collects what a browser would see; refuses elements that are not closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u202f", " "))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def report(run: sample.Run) -> Reader:
    path = write_report(run.folder, None, run.judgement)
    assert path.stat().st_size < MAX_PAGE_BYTES
    return read(path)


def test_a_valid_run_is_told_in_one_sentence(tmp_path: Path) -> None:
    page = report(sample.valid_run(tmp_path / "run"))
    assert "VALID Switch net1 died at 3.0 s for 8.0 s; writes stopped for 2.1 s" in page.text
    assert "all 8 clients were back after" in page.text
    assert "nothing acknowledged was lost." in page.text
    assert "zkchaos run switch-failure --topology dual-net --seed 7" in page.text


def test_a_violation_comes_first_with_its_witness(tmp_path: Path) -> None:
    page = report(sample.violated_run(tmp_path / "run"))
    assert page.text.index("VIOLATED") < page.text.index("no acknowledged write is lost") < page.text.index("Repeat it")
    assert "c1.4#812 set /r/3 = v812" in page.text
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in page.of("a") if (a.get("href") or "").startswith("#")}
    assert "#witness-durability-1" in targets
    assert {t.removeprefix("#") for t in targets if t} <= set(ids)


def test_a_broken_run_says_so_and_why(tmp_path: Path) -> None:
    page = report(sample.broken_run(tmp_path / "run"))
    assert "BROKEN : switch-down net1 could not be healed" in page.text
    assert "The run was aborted at 11.1 s; switch net1 died at 3.0 s and was never healed" in page.text
    assert "healed never" in page.text


def test_what_a_plan_expects_stands_beside_what_came(tmp_path: Path) -> None:
    run = sample.valid_run(tmp_path / "run")
    run.folder.write_json(run.folder.scenario_file, sample.scenario(expected={0: Service.STOPS}))
    stopped = Verdict("expectation", "It stops", Finding.VALID, "The service stopped under switch-down net1.")
    page = report(sample.Run(run.folder, sample.with_verdicts(stopped)))
    assert "Expected the service stops" in page.text
    assert "expected the service stops writes stopped for" in page.text
    assert "The service stopped under switch-down net1." in page.text


def test_a_run_that_ended_before_it_began_has_a_page(tmp_path: Path) -> None:
    page = report(sample.empty_run(tmp_path / "run"))
    assert "UNKNOWN" in page.text
    assert "No operation was recorded" in page.text
    assert "environment.json is missing" in page.text


def test_a_folder_without_a_scenario_has_a_page(tmp_path: Path) -> None:
    page = report(sample.Run(RunFolder(tmp_path), Judgement(Overall.BROKEN, (), ("the disk was full",))))
    assert "the disk was full" in page.text
    assert "scenario.json is missing" in page.text


Damage = Callable[[RunFolder], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f.environment_file.unlink(),
        lambda f: f.environment_file.write_text("{"),
        lambda f: f.scenario_file.write_text("[]"),
        lambda f: f.events_file.unlink(),
        lambda f: f.events_file.write_text('{"t": "what"}\n'),
        lambda f: f.events_file.write_text(""),
        lambda f: (f.clients_folder / "c1.jsonl").write_bytes(b"\xff\xfe\n"),
        lambda f: [p.unlink() for p in f.clients_folder.iterdir()],
        lambda f: (f.server(1).logs / "server.log").write_bytes(b"\x00\xff" * 1000),
        lambda f: (f.server(2).logs / "server.log").rename(f.server(2).root / "elsewhere"),
    ],
)
def test_a_damaged_folder_has_a_page(tmp_path: Path, damage: Damage) -> None:
    run = sample.valid_run(tmp_path / "run")
    damage(run.folder)
    assert "VALID" in report(run).text


def test_the_evidence_that_was_judged_is_told_without_being_read_again(tmp_path: Path) -> None:
    run = sample.valid_run(tmp_path / "run")
    evidence = load_evidence(run.folder)
    told = write_report(run.folder, evidence, run.judgement).read_text()
    assert told == write_report(run.folder, None, run.judgement).read_text()
    for path in run.folder.clients_folder.iterdir():
        path.unlink()
    assert "writes stopped for" in write_report(run.folder, evidence, run.judgement).read_text()


def test_what_the_real_judges_say_is_told(tmp_path: Path) -> None:
    run = sample.valid_run(tmp_path / "run")
    judgement = judge(load_evidence(run.folder))
    page = report(replace(run, judgement=judgement))
    for verdict in judgement.verdicts:
        assert verdict.promise in page.text
        assert verdict.finding.value in page.text


def test_the_outage_of_the_control_experiment_is_told_as_predicted(tmp_path: Path) -> None:
    note = (
        "This is the outage that the topology predicts under switch-down net1, the control experiment of NR-11: "
        "all servers hang on one network, so no two servers can talk."
    )
    verdict = Verdict(
        "recovery",
        "After each fault the clients' writes are answered again within the plan's budget.",
        Finding.VIOLATED,
        "As the topology predicts, the budget is exceeded.",
        (Witness("no write was answered"),),
        notes=(note,),
    )
    run = replace(sample.valid_run(tmp_path / "run"), judgement=sample.with_verdicts(verdict))
    page = report(run)
    assert page.text.index("VIOLATED") < page.text.index(note) < page.text.index("Repeat it")


def test_hostile_strings_stay_text(tmp_path: Path) -> None:
    events = [
        *sample.phases(),
        Note(sample.at(1), HOSTILE),
        Phase(sample.at(2), "aborted", HOSTILE),
        FaultEvent(sample.at(3), 0, FaultAction.INJECTED, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        FaultEvent(sample.at(4), 0, FaultAction.FAILED, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        ProbeEvent(sample.at(4), 0, "during", True, HOSTILE, (Measurement(HOSTILE, HOSTILE, False),)),
    ]
    clients = [*sample.operations(number=50), *sample.sessions()]
    run = sample.write(
        tmp_path / "run",
        sample.with_verdicts(
            Verdict(HOSTILE, HOSTILE, Finding.VIOLATED, HOSTILE, (Witness(HOSTILE),), (), (HOSTILE,), (HOSTILE,)),
            broken=(HOSTILE,),
        ),
        what=sample.scenario(name=HOSTILE, topology=HOSTILE, plan=HOSTILE, repeat=HOSTILE, plan_source=HOSTILE),
        machine=sample.environment(),
        events=events,
        clients=clients,
    )
    (run.folder.clients_folder / "<b>hostile & co.jsonl").write_text("")
    (run.folder.server(1).logs / "server.log").write_text(f"10:00:00,000 WARN {HOSTILE}\n")
    clean = report(sample.valid_run(tmp_path / "clean"))
    page = report(run)
    assert HOSTILE in page.text
    # There are as many scripts as in a harmless page, and no attribute was broken out of.
    assert len(page.of("script")) == len(clean.of("script")) == 2
    assert len(page.of("style")) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "%3Cb%3Ehostile%20%26%20co.jsonl" in run.folder.report_file.read_text()


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    run = sample.violated_run(tmp_path / "run")
    page = report(run)
    text = run.folder.report_file.read_text()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)
    assert "@import" not in text
    assert not page.of("img")
    for link in page.of("a"):
        href = link["href"] or ""
        assert href.startswith("#") or (run.folder.root / href).exists(), href
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_picture_has_a_name_and_every_table_a_caption(tmp_path: Path) -> None:
    page = report(sample.violated_run(tmp_path / "run"))
    for picture in page.of("svg"):
        if picture.get("role") == "img":
            assert picture.get("aria-label") or picture.get("aria-labelledby")
    assert len(page.of("table")) == len(page.of("caption")) > 3
    assert [name for name, _ in page.elements if name in ("header", "main", "footer", "h1")] == [
        "header",
        "h1",
        "main",
        "footer",
    ]
    assert page.of("html")[0]["lang"] == "en"


def test_a_hundred_thousand_operations_make_a_small_page_quickly(tmp_path: Path) -> None:
    run = sample.big_run(tmp_path / "run")
    evidence = load_evidence(run.folder)
    began = time.process_time()
    path = write_report(run.folder, evidence, run.judgement)
    assert time.process_time() - began < 5
    assert path.stat().st_size < 300_000
    assert "How 100,000 operations ended" in read(path).text


def test_everything_that_is_listed_is_bounded(tmp_path: Path) -> None:
    faults = [
        event
        for n in range(500)
        for event in sample.switch_down(start=0.5 + n / 40, end=0.51 + n / 40, fault_id=n, switch=f"net{n % 2 + 1}")
    ]
    notes = [Note(sample.at(k / 10), f"note {k} {'x' * 5000}") for k in range(200)]
    witnesses = tuple(Witness("w" * 5000, sample.at(k / 100), sample.at(k / 90)) for k in range(1000))
    verdict = Verdict("durability", "p" * 5000, Finding.VIOLATED, "s" * 5000, witnesses, notes=("n" * 5000,) * 100)
    run = sample.write(
        tmp_path / "run",
        sample.with_verdicts(verdict, broken=tuple(f"{k} {'b' * 3000}" for k in range(100))),
        events=[*sample.phases(), *sample.samples(), *faults, *notes],
        clients=[*sample.operations(clients=200), *sample.sessions(clients=200)],
    )
    page = report(run)
    assert run.folder.report_file.stat().st_size < 600_000
    assert "and 460 more faults" in page.text
    assert "500 faults between 0.5 s and 13.0 s (switch-down 500 times)" in page.text
    assert "and 980 more in verdicts.json" in page.text


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    run = sample.valid_run(tmp_path / "run")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (run.folder.root / "report.tmp").symlink_to(full)
    with pytest.raises(StorageFull):
        write_report(run.folder, None, run.judgement)

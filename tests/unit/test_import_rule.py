"""Who may import whom: the architecture as a test.

The floors of `harness` know only what is below them. Evidence is judged without anything that could touch a testbed,
so an old run can be judged on any machine; and what breaks things knows nothing of who uses them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent


@dataclass(frozen=True)
class Floor:
    """What one package of `harness` may import from the others, and why."""

    allowed: frozenset[str]
    why: str


def floor(allowed: str, why: str) -> Floor:
    return Floor(frozenset(allowed.split()), why)


#: A name is a package or module directly below `harness`, or one module of a package.
RULE = {
    "errors": floor("", "everybody raises them, so they depend on nobody"),
    "topology": floor("errors", "a topology is declared; nothing is needed to read one"),
    "history": floor("errors topology", "a run folder is read without what wrote it"),
    "check": floor(
        "errors topology history zookeeper.txnlog",
        "judges work on evidence alone; the transaction log's format is the one thing of ZooKeeper they read",
    ),
    "report": floor("errors topology history check", "a page is made from evidence and verdicts alone"),
    "testbed": floor("errors topology", "hosts and switches know nothing of what runs on them"),
    "zookeeper": floor("errors topology testbed history", "the system under test does not know who breaks or uses it"),
    "toxiproxy": floor(
        "errors topology testbed zookeeper.cache",
        "proxies stand on hosts and know nothing of what passes them; the program is kept where other programs are",
    ),
    "images": floor(
        "errors topology zookeeper toxiproxy testbed.engine testbed.reaper",
        "images are made for an engine, by whoever comes to run them there",
    ),
    "nemesis": floor(
        "errors topology testbed toxiproxy zookeeper history", "what breaks things does not know who uses them"
    ),
    "stage": floor(
        "errors topology testbed toxiproxy zookeeper history images",
        "what a run is performed on does not know what is performed there",
    ),
    "usermode": floor("errors", "a kernel runs any command, and knows nothing of what that does"),
    "load": floor("errors topology testbed zookeeper history", "who uses the ensemble does not know what breaks it"),
}

#: The modules directly below `harness` that put the parts together and so may know both sides.
KNOW_EVERYBODY = ("run", "cli", "testing", "pytest_plugin")


@dataclass(frozen=True)
class Import:
    """One import statement of one module; names are dotted, without the leading `harness.`."""

    importer: str
    line: int
    imported: str
    names: tuple[str, ...]


def modules(root: Path) -> dict[str, Path]:
    """Every module by its name below `harness`; the package itself is the empty name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> list[Import]:
    known = modules(root)
    return [found for name, path in known.items() for found in _imports_of(name, path, known)]


def _imports_of(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "harness":
                    yield Import(name, node.lineno, alias.name.partition(".")[2], ())
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".") if package else []
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join(["harness", *parents, *([base] if base else [])])
            if base.split(".")[0] != "harness":
                continue
            below = base.partition(".")[2]
            for alias in node.names:
                submodule = f"{below}.{alias.name}" if below else alias.name
                if submodule in known:
                    yield Import(name, node.lineno, submodule, ())
                else:
                    yield Import(name, node.lineno, below, (alias.name,))


def violations(found: list[Import]) -> list[str]:
    """Every breach of the rule, a line each."""
    broken = []
    sides: dict[str, set[str]] = {}
    for one in found:
        package, target = one.importer.split(".")[0], one.imported.split(".")[0]
        sides.setdefault(one.importer, set()).add(target)
        if target in (package, ""):  # the package's own modules, or the version number in harness itself
            continue
        where = f"harness.{one.importer}:{one.line} imports harness.{one.imported}"
        private = [name for name in (*one.imported.split("."), *one.names) if name.startswith("_") and name[1:2] != "_"]
        if private:
            broken.append(f"{where}: {private[0]} is private to its package")
        rule = RULE.get(package)
        if rule and not {target, one.imported} & rule.allowed:
            broken.append(f"{where}: {rule.why}")
        if not rule and "." in one.importer:
            broken.append(f"{where}: package {package} has no line in the rule")
    for importer, targets in sides.items():
        if {"nemesis", "load"} <= targets and not _knows_everybody(importer):
            broken.append(f"harness.{importer} imports nemesis and load: only {', '.join(KNOW_EVERYBODY)} may")
    return broken


def _knows_everybody(importer: str) -> bool:
    return "." not in importer and any(importer == k or importer.startswith(f"{k}_") for k in KNOW_EVERYBODY)


def cycle(found: list[Import], names: set[str]) -> list[str]:
    """The modules of one import cycle in order, or nothing. An import inside of a function counts too."""
    edges: dict[str, set[str]] = {name: set() for name in names}
    for one in found:
        if one.imported in names and one.imported != one.importer:
            edges[one.importer].add(one.imported)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as problem:
        return [str(name) for name in reversed(problem.args[1])]
    return []


def test_every_import_keeps_to_the_rule() -> None:
    assert violations(imports(ROOT)) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert cycle(imports(ROOT), set(modules(ROOT))) == []


def test_every_package_has_a_line_in_the_rule() -> None:
    packages = {name.split(".")[0] for name in modules(ROOT) if "." in name}
    assert packages <= set(RULE)


def tree(root: Path, files: dict[str, str]) -> Path:
    """A package with these files, beside the real one's `__init__`s."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, root):
            (folder / "__init__.py").touch()
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "check/judge.py",
            "from harness.testbed.agent import Agent\n",
            "harness.check.judge:1 imports harness.testbed",
        ),
        ("check/judge.py", "def f():\n    import harness.load\n", "harness.check.judge:2 imports harness.load"),
        ("check/judge.py", "from ..zookeeper import ensemble\n", "harness.check.judge:1 imports harness.zookeeper"),
        ("nemesis/plan.py", "from harness import load\n", "harness.nemesis.plan:1 imports harness.load"),
        ("history/folder.py", "from harness.check import verdict\n", "harness.history.folder:1 imports harness.check"),
        ("report/page.py", "from harness.check.verdict import _EXIT\n", "_EXIT is private to its package"),
        ("report/page.py", "import harness.check._math\n", "_math is private to its package"),
        ("novel/thing.py", "import harness.errors\n", "package novel has no line in the rule"),
        ("soak.py", "import harness.nemesis, harness.load\n", "harness.soak imports nemesis and load"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, name: str, text: str, expected: str) -> None:
    root = tree(tmp_path, {name: text, "zookeeper/ensemble.py": "", "check/verdict.py": "", "load/client.py": ""})
    assert any(expected in line for line in violations(imports(root)))


def test_what_is_allowed_is_not_a_breach(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "check/judge.py": "from harness.zookeeper.txnlog import read\nfrom . import verdict\n",
            "check/verdict.py": "from harness import __version__\nimport json\n",
            "cli_run.py": "import harness.nemesis\nimport harness.load.client\n",
            "zookeeper/txnlog.py": "from harness.history.records import Stat\n",
        },
    )
    assert violations(imports(root)) == []
    assert cycle(imports(root), set(modules(root))) == []


def test_a_cycle_is_found(tmp_path: Path) -> None:
    files = {"a.py": "import harness.b", "b.py": "def f():\n    from harness import c", "c.py": "import harness.a"}
    root = tree(tmp_path, files)
    assert set(cycle(imports(root), set(modules(root)))) == {"a", "b", "c"}

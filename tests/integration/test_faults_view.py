"""`zkchaos faults`: what it says of each kind is what a plan may say, and what this machine really does."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.faults_view import example_of
from harness.nemesis.kernel_parts import refused_effects
from harness.nemesis.kinds import KINDS
from harness.nemesis.plan import check_plan
from harness.nemesis.plan_loader import parse_plan
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from harness.zookeeper.clock import LIBRARY_VARIABLE
from tests.integration.command_line import zkchaos


@pytest.fixture(scope="module")
def shown(namespaces_allowed: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The lines of each kind."""
    return told(tmp_path_factory.mktemp("faults"))


def told(folder: Path, environ: dict[str, str] | None = None) -> dict[str, list[str]]:
    said = zkchaos("faults", cwd=folder, environ={"COLUMNS": "80", **(environ or {})})
    assert said.code == 0, said.err
    assert said.err == ""
    found: dict[str, list[str]] = {}
    for line in said.out.splitlines():
        if not line.startswith(" "):
            found[line.split()[0]] = []
        found[list(found)[-1]].append(line.strip())
    return found


def test_every_kind_is_there_with_what_it_is_and_whether_it_is_here(shown: dict[str, list[str]]) -> None:
    assert list(shown) == list(KINDS)
    for name, lines in shown.items():
        assert KINDS[name].summary in lines[0]
        assert lines[1] == example_of(KINDS[name])
        assert lines[-1].startswith(("here: yes", "here: in part: ", "here: no: "))


@pytest.mark.parametrize("name", KINDS)
def test_what_it_shows_is_a_step_that_a_plan_may_have(name: str) -> None:
    example = example_of(KINDS[name])
    step = "\n".join(example.split(', for = "')[0].replace('", ', '"\n').splitlines())
    lasts = 'for = "5s"' if KINDS[name].lasts else ""
    plan = parse_plan(f'title = "one"\n[[step]]\nat = "1s"\nfault = "{name}"\n{step}\n{lasts}\n', "one.toml")
    check_plan(plan, load_topology("proxied" if name == "stream" else "dual-net"))
    assert plan.steps[0].fault == name


def test_what_it_says_of_packets_is_what_the_kernel_does(shown: dict[str, list[str]], tmp_path: Path) -> None:
    testbed = NamespacesTestbed(load_topology("dual-net"))
    try:
        refused = refused_effects(testbed.lacking())
    finally:
        testbed.close()
    here = shown["packets"][-1]
    if not refused:
        assert here == "here: yes"
        return
    assert here.startswith(f"here: in part: not {', '.join(refused)}, for want of sch_netem")
    said = zkchaos("run", "slow-switch", cwd=tmp_path)
    complaint = said.complaint(3)
    assert "this kernel has no sch_netem" in complaint
    assert "--kernel usermode" in complaint
    assert not (tmp_path / "runs").exists()


def test_what_is_missing_is_told_with_the_next_step(tmp_path: Path) -> None:
    lines = told(tmp_path, {LIBRARY_VARIABLE: "/nowhere/libfaketime.so.1"})["clock"]
    assert lines[-1].startswith("here: no: this is not the absolute path of a file")

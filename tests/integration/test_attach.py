"""Ensembles that somebody else started: looked at, broken, healed and left as they were, whatever happens to us."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path

import pytest
from rich.console import Console

from harness.attach import break_once
from harness.compose import PRINT_STATUS
from tests.integration.command_line import end, zkchaos
from tests.integration.foreign import Fault, Project, is_whole, mend, servers

pytestmark = pytest.mark.usefixtures("own_memory")

SHORT = """
title = "A switch, then the leader"
duration = "8s"
[expect]
recovery_within = "8s"
[[step]]
at = "500ms"
fault = "switch-down"
switch = "net1"
for = "2s"
[[step]]
at = "5s"
fault = "kill"
server = "leader"
for = "1s"
"""


def znodes(project: Project) -> list[str]:
    """How many each server has."""
    found = []
    for container in servers(project):
        said = container.exec_run(["bash", "-c", PRINT_STATUS])[1].decode()
        found += [line for line in said.splitlines() if line.startswith("Node count: ")]
    assert len(found) == len(servers(project))
    return found


# --- looking, and breaking by hand ---------------------------------------------------------------------------


def test_attach_says_what_is_there_and_fault_breaks_it(foreign: Project, tmp_path: Path) -> None:
    said = zkchaos("attach", foreign.name, cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    table = [line.split() for line in lines[1:4]]
    assert [row[0] for row in table] == ["zk1", "zk2", "zk3"]
    assert sorted(row[1] for row in table) == ["follower", "follower", "leader"]
    assert [row[4] for row in table] == [f"{foreign.name}-zoo{n}-1" for n in (1, 2, 3)]
    assert f"net1: 12 of 12 paths answer; network {foreign.name}_back, bridge br-" in said.out
    death = next(line for line in lines if line.startswith("net2: 12 of 12 paths answer"))
    assert death.endswith(f"its death is also that of {foreign.name}-app-1")
    assert "--heal" not in said.out

    # what was attached last is what is broken, also by the network's own name
    said = zkchaos("fault", "switch-down", "front", "--for", "500ms", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[:5] == [
        "  before: 12 of 12 paths over net2 answer; elsewhere 12 of 12",
        "✗ switch-down net2",
        "  during: 0 of 12 paths over net2 answer; elsewhere 12 of 12",
        "✓ switch-down net2 healed",
        "   after: 12 of 12 paths over net2 answer; elsewhere 12 of 12",
    ]
    assert lines[5].startswith("it lasted 0.")
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("kind", "target", "proof"),
    [
        ("kill", "leader", "gone (pid"),
        ("link-down", "zk2:back", "0 of 6 paths over zk2:net1 answer; elsewhere 18 of 18"),
    ],
)
def test_every_kind_of_fault_bites_and_goes(foreign: Project, kind: str, target: str, proof: str) -> None:
    console = Console(file=io.StringIO(), width=40)
    break_once(console, foreign.name, kind, target, 0.2)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().splitlines()
    assert any(line.startswith("  during: ") and proof in line for line in said), said
    assert any(line.startswith("   after: ") for line in said), said
    assert is_whole(foreign)
    if kind == "kill":
        mend(foreign.name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_heal_at_once(foreign: Project, number: signal.Signals) -> None:
    fault = Fault("pause", "zk1", "--for", "60s", "--on", foreign.name)
    try:
        fault.wait_until_it_bites()
        assert not is_whole(foreign)
        fault.process.send_signal(number)
        rest = fault.process.stdout.read() if fault.process.stdout else ""
        assert fault.process.wait(timeout=20) == 130
    finally:
        end(fault.process)
    assert "✓ pause zk1 healed" in rest
    assert is_whole(foreign)


# --- a whole run ----------------------------------------------------------------------------------------------


def test_a_run_is_judged_and_leaves_nothing_behind(foreign: Project, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    before = znodes(foreign)
    said = zkchaos("run", "./short.toml", "--attach", foreign.name, "--rate", "60", cwd=tmp_path)
    assert said.code == 0, said.out + said.err
    assert "VALID" in said.out.splitlines()
    assert f"--attach {foreign.name}" in said.out
    folder = tmp_path / "runs" / "latest"
    assert json.loads((folder / "scenario.json").read_text())["attached"] == foreign.name
    assert (folder / "report.html").stat().st_size > 10_000
    for number in "123":
        server = folder / "servers" / number
        assert "tickTime=2000" in (server / "config" / "zoo.cfg").read_text()
        assert list(server.glob("txnlog/version-2/log.*"))
        assert "zookeeper" in (server / "logs" / "server.log").read_text().lower()
    assert znodes(foreign) == before  # those of the load are gone from what is not ours
    assert is_whole(foreign)

"""Faults heal whatever happens meanwhile: their server is killed by somebody else, or the whole run is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness.check.verdict import Overall, load_judgement
from harness.history.folder import RunFolder
from harness.history.records import Event, FaultAction, FaultEvent, Phase, ProbeEvent
from harness.history.scenario import LoadSpec, Scenario
from harness.scenario import now_text
from harness.testing import ChaosTest
from harness.topology.loader import load_topology
from tests.integration.command_line import command, end, wait_for_line, wait_until_gone
from tests.integration.conftest import require

pytestmark = [pytest.mark.usefixtures("namespaces_allowed", "java"), pytest.mark.timeout(180)]

MARK = "ZKCHAOS_TEST_MARK"
_PATIENCE = 30.0
#: A plan for each way in which faults are made, and what a machine may lack for it.
PLANS = {
    "partition-leader": "nftables",
    "switch-flapping": "",
    "nic-down": "",
    "crash-loop": "",
    "cpu-starved": "cgroups",
    "clock-drift": "faketime",
    "disk-full": "fuse",
    "stream-latency": "toxiproxy",
}


def test_a_partition_heals_although_its_server_is_killed(tmp_path: Path) -> None:
    topology = load_topology("dual-net")
    scenario = Scenario(
        name="killed",
        topology=topology.name,
        topology_source=topology.source,
        plan="",
        plan_source="",
        seed=0,
        duration_s=0.0,
        load=LoadSpec(),
        repeat="",
        started=now_text(),
    )
    with ChaosTest(scenario, topology, tmp_path / "run") as chaos:
        servers = chaos.ensemble.servers
        with chaos.nemesis.fault("partition", "isolate leader") as isolated:
            alone = servers.server_of(isolated.partition(" ")[0].strip()).id
            servers.kill(alone)  # by nobody whom the nemesis knows
            assert unanswered(chaos) > 0
        # its process is still dead, and its host is heard again
        assert not servers.is_running(alone)
        assert unanswered(chaos) == 0
        servers.start_server(alone)
        servers.wait_until_serving(within=_PATIENCE)
        with chaos.nemesis.fault("partition", f"isolate zk{alone}"), chaos.nemesis.kill(alone):
            assert unanswered(chaos) > 0
        servers.wait_until_serving(within=_PATIENCE)
        assert unanswered(chaos) == 0
    assert_healed(chaos.run.folder.events(), 3)


def unanswered(chaos: ChaosTest) -> int:
    """How many ways from a host to another are without an answer."""
    paths = chaos.run.testbed.reach(chaos.ensemble.topology.switch_names, timeout_ms=500)
    return sum(path.micros is None for path in paths)


def assert_healed(events: list[Event], faults: int) -> None:
    """Every fault that was begun was healed, and seen to be gone."""
    begun = {e.id for e in events if isinstance(e, FaultEvent)}
    healed = {e.id for e in events if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED}
    gone = {e.id for e in events if isinstance(e, ProbeEvent) and e.stage == "after" and e.bites is False}
    assert begun == healed == gone
    assert len(begun) == faults
    assert [e for e in events if isinstance(e, FaultEvent) and e.action is FaultAction.FAILED] == []


@pytest.mark.parametrize("plan", PLANS)
def test_ctrl_c_in_the_middle_of_a_fault(plan: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("run", plan, "--seed", "2"),
        cwd=tmp_path,
        env={**os.environ, MARK: str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        latest = tmp_path / "runs" / "latest"
        try:
            wait_for_line(latest / "events.jsonl", '"during","bites":true', process)
        except AssertionError:
            if process.poll() == 3 and PLANS[plan] and not latest.exists():  # before anything was started
                require(PLANS[plan], process.communicate()[1].decode())
            raise
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        out, err = process.communicate(timeout=60)
    finally:
        end(process)
        wait_until_gone(f"{MARK}={tmp_path}")
    assert (process.returncode, err.decode()) == (130, "")
    folder = RunFolder.open(latest)
    events = folder.events()
    assert_healed(events, 1)
    assert isinstance(events[-1], Phase)
    assert (events[-1].name, events[-1].detail) == ("aborted", "interrupted")
    assert load_judgement(folder).overall is Overall.BROKEN
    # the page has the fault, and what was seen of it before, while it was on and after it
    page = folder.report_file.read_text()
    fault = next(event for event in events if isinstance(event, FaultEvent))
    assert f"What the probes of {fault.fault}" in page
    assert "proved</span>" in page
    assert "not taken" not in page
    assert out.decode().splitlines()[-2] == f"page:   {folder.report_file}"

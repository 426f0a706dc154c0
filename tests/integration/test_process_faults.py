"""Faults of processes on real servers: crash loops, storms, rolling restarts, slow starts, and limits.

Where this user may make no control groups, limits are tried by signals, and those of memory are skipped. The second
version of control groups is tried by `zkchaos usermode -- pytest tests/integration/test_process_faults.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.doctor import _groups
from harness.errors import FaultError, TestbedError
from harness.history.folder import RunFolder
from harness.history.records import Event, FaultEvent, ProbeEvent, ProcessEvent
from harness.nemesis.nemesis import Nemesis
from harness.stage.make import make_stage
from harness.testbed.cgroups import Groups
from harness.testbed.engine import connect_engine
from harness.testbed.group_keeper import GroupKeeper
from harness.testbed.group_places import find_places
from harness.testbed.handles import Limits, Testbed, wait_until_connected
from harness.testbed.turns import turn
from harness.topology.loader import load_topology
from harness.topology.model import CLIENT_PORT
from harness.zookeeper.ensemble import Ensemble
from tests.integration.command_line import command, end, wait_for_line, wait_until_gone
from tests.integration.conftest import command as program
from tests.integration.conftest import require

pytestmark = pytest.mark.timeout(180)

TOPOLOGY = load_topology("dual-net")
PLACES = ["namespaces", "docker"]


@dataclass(frozen=True)
class Field:
    """An ensemble that runs, and a nemesis for it."""

    testbed: Testbed
    ensemble: Ensemble
    nemesis: Nemesis
    events: list[Event]

    def processes(self) -> list[ProcessEvent]:
        """What became of processes since the last test."""
        return [event for event in self.events if isinstance(event, ProcessEvent)]

    def bites(self, stage: str) -> list[bool | None]:
        return [e.bites for e in self.events if isinstance(e, ProbeEvent) and e.stage == stage]

    def told(self) -> str:
        """For the message of a failure."""
        faults = [str(event) for event in self.events if isinstance(event, FaultEvent)]
        probes = [event for event in self.events if isinstance(event, ProbeEvent)]
        return "\n".join([*faults, *(f"{probe.stage} {probe.bites}: {probe.summary}" for probe in probes)])

    def prove(self, kind: str, target: str) -> None:
        """Its whole life, with proof."""
        with self.nemesis.fault(kind, target):
            pass
        assert self.bites("before")[-1] is False, self.told()
        assert self.bites("during")[-1] is True, self.told()
        assert self.bites("after")[-1] is False, self.told()


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """One ensemble for all tests of a testbed."""
    kind = str(request.param)
    for needed in ("namespaces_allowed", "java") if kind == "namespaces" else ("engine_images",):
        request.getfixturevalue(needed)
    root = tmp_path_factory.mktemp(kind) / "run"
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        if kind == "docker":
            stack.enter_context(turn(connect_engine()))
        stage = stack.enter_context(contextlib.closing(make_stage(kind, TOPOLOGY, root, prepared=("limits",))))
        ensemble = Ensemble(stage.testbed, TOPOLOGY, RunFolder.create(root), stage.starter, events.append)
        ensemble.start()
        yield Field(stage.testbed, ensemble, Nemesis(ensemble, events.append, seed=0), events)
        ensemble.stop()


@pytest.fixture
def field(running: Field) -> Iterator[Field]:
    running.ensemble.wait_until_serving(within=60)
    running.events.clear()
    yield running
    running.nemesis.heal_all()


everywhere = pytest.mark.parametrize("running", PLACES, indirect=True)
on_namespaces = pytest.mark.parametrize("running", PLACES[:1], indirect=True)


@pytest.fixture
def groups() -> None:
    """This user may make control groups for both controllers."""
    if refusals := find_places().refusals:
        require("cgroups", "; ".join(refusals.values()))


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)


# --- crash loops, storms, restarts ------------------------------------------------------------------------------


@everywhere
def test_a_crash_loop(field: Field) -> None:
    with field.nemesis.fault("crash-loop", "zk2"):
        wait_for(lambda: sum(e.action == "ended" for e in field.processes()) >= 3)
    ended = [event for event in field.processes() if event.action == "ended"]
    assert {(event.server, event.code) for event in ended} == {(2, -9)}
    assert len({event.pid for event in field.processes()}) > 3
    pid = field.ensemble.pid(2)
    field.ensemble.wait_until_serving([2])
    assert field.ensemble.pid(2) == pid  # it is left alone


@on_namespaces
def test_a_kill_within_a_crash_loop_keeps_the_server_down(field: Field) -> None:
    with field.nemesis.fault("crash-loop", "zk1"):
        with field.nemesis.kill(1):
            seen = len(field.processes())
            time.sleep(1.0)  # for several turns of the loop
            assert len(field.processes()) == seen
            assert field.ensemble.process_state(1) == "X"
        wait_for(lambda: len(field.processes()) > seen + 2)
    assert field.bites("after") == [False, False]


@everywhere
def test_a_storm_takes_down_several_at_a_time(field: Field) -> None:
    with field.nemesis.fault("restart-storm", "all"):
        wait_for(lambda: sum(e.action == "ended" for e in field.processes()) >= 6)
    down, most = set[int](), 0
    for event in sorted(field.processes(), key=lambda event: event.at):
        (down.add if event.action == "ended" else down.discard)(event.server)
        most = max(most, len(down))
    assert most >= 2
    assert down == set()


@everywhere
def test_a_rolling_restart_goes_one_by_one_and_ends_with_the_leader(field: Field) -> None:
    leader = field.ensemble.wait_for_quorum()
    before = {server.id: field.ensemble.pid(server.id) for server in TOPOLOGY.servers}
    field.prove("rolling-restart", "all")
    done = [(event.server, event.action) for event in field.processes()]
    order = [server for server, action in done if action == "ended"]
    assert done == list(itertools.chain.from_iterable([(s, "ended"), (s, "started")] for s in order))
    assert sorted(order) == [server.id for server in TOPOLOGY.servers]
    assert order[-1] == leader
    assert all(field.ensemble.pid(server) != pid for server, pid in before.items())


@everywhere
def test_a_slow_start_refuses_where_a_paused_server_is_silent(field: Field) -> None:
    with field.nemesis.fault("slow-start", "zk3"):
        with field.testbed.tcp_socket("zk3", ("127.0.0.1", CLIENT_PORT)) as opened, pytest.raises(OSError) as caught:
            wait_until_connected(opened, 2.0)
        assert not isinstance(caught.value, TimeoutError)
        assert field.ensemble.process_state(3) not in "XZ"
    assert field.bites("after") == [False]


@on_namespaces
def test_a_server_that_another_fault_starts_is_slow_as_well(field: Field) -> None:
    with field.nemesis.fault("slow-start", "zk2"):
        slow = field.ensemble.pid(2)
        with field.nemesis.kill(2):
            pass
        assert field.ensemble.pid(2) != slow
        assert field.ensemble.status(timeout=0.5)[2].role == "down"
    field.ensemble.wait_until_serving([2])


# --- limits -----------------------------------------------------------------------------------------------------


@everywhere
def test_little_of_the_processor(field: Field, groups: None) -> None:
    field.prove("limit", "zk1,zk2:cpu 5%")
    assert "held back by its control group in" in field.told()
    assert field.testbed.pressure("zk1").cpu is None


@everywhere
def test_too_little_memory(field: Field, groups: None) -> None:
    with field.nemesis.fault("limit", "zk2:memory 32MB"):
        assert field.ensemble.process_state(2) in "XZ"
        assert field.testbed.pressure("zk2").killed >= 1
        field.ensemble.start_server(2)  # it is not spared, either; a JVM does not even start with that
        wait_for(lambda: field.ensemble.process_state(2) in "XZ")
    assert field.testbed.pressure("zk2").memory is None
    assert field.bites("after") == [False]
    assert "killed by the kernel for want of memory" in field.told()
    assert {event.code for event in field.processes() if event.action == "ended"} == {-9}


@on_namespaces
def test_of_overlapping_limits_the_least_holds(field: Field, groups: None) -> None:
    def held() -> float | None:
        return field.testbed.pressure("zk1").cpu

    with field.nemesis.fault("limit", "zk1:cpu 10%"):
        with field.nemesis.fault("limit", "zk1:cpu 5%"):
            assert held() == 0.05
            with field.nemesis.kill(1):
                pass  # the process that is started then is limited, too
        assert held() == 0.1
    assert held() is None


@on_namespaces
def test_a_limit_that_is_not_felt_is_told(field: Field, groups: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.nemesis.limit_fault.LimitFault.slow_to_bite", 0.0)
    with pytest.raises(FaultError, match="did not bite"), field.nemesis.fault("limit", "zk1:memory 2GB"):
        pass
    assert "a limit of 2048.0 MB" in field.told()


def test_memory_that_was_not_counted_from_the_start_cannot_be_limited(
    namespaces_allowed: None, groups: None, tmp_path: Path
) -> None:
    before = left_by(os.getpid())
    with contextlib.closing(make_stage("namespaces", TOPOLOGY, tmp_path)) as stage:
        stage.testbed.spawn("zk1", ["/bin/sleep", "100"], {}, tmp_path / "output")
        with pytest.raises(TestbedError, match="its memory cannot be limited") as caught:
            stage.testbed.limit("zk1", Limits(memory=2**25))
        assert 'prepared("limits")' in caught.value.next_step
        stage.testbed.limit("zk1", Limits(cpu=0.5))
        assert stage.testbed.pressure("zk1").cpu == 0.5
    assert left_by(os.getpid()) == before


# --- where there are no control groups --------------------------------------------------------------------------

STARVED = """
title = "A follower gets little of one core"
duration = "3s"
[[step]]
at = "1s"
fault = "limit"
server = "a follower"
limit = "cpu 10%"
for = "1s"
"""


def without_groups(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `zkchaos` where control groups are out of sight, as in most containers."""
    hidden = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
    unshare = [program("unshare"), "--user", "--map-root-user", "--mount", "sh", "-c", hidden, "sh"]
    return subprocess.run(
        [*unshare, *command(*words)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_processor_is_taken_away_by_signals(namespaces_allowed: None, java: None, tmp_path: Path) -> None:
    (tmp_path / "starved.toml").write_text(STARVED)
    done = without_groups("run", "starved.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cpu 10%: stopped by signals at" in done.stdout


def test_memory_is_refused_before_anything_is_started(namespaces_allowed: None, java: None, tmp_path: Path) -> None:
    (tmp_path / "starved.toml").write_text(STARVED.replace("cpu 10%", "memory 32MB"))
    done = without_groups("run", "starved.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("zkchaos: limit a follower:memory 32MB: no control group for memory can be made")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


# --- nothing is left --------------------------------------------------------------------------------------------


def left_by(pid: int) -> list[Path]:
    """Control groups that were made by a process and are still there."""
    places = {place.folder for place in find_places().found.values()}
    return [group for folder in places for group in folder.glob(f"zkchaos-*-{pid}-*")]


@pytest.mark.parametrize("spared", ["agent", "nobody but the keeper"])
def test_no_group_is_left_after_sigkill(
    namespaces_allowed: None, java: None, groups: None, tmp_path: Path, spared: str
) -> None:
    plan, marker = tmp_path / "starved.toml", f"groups-{os.getpid()}-{spared[:5]}"
    plan.write_text(STARVED.replace('duration = "3s"', 'duration = "60s"').replace('for = "1s"', 'for = "50s"'))
    process = subprocess.Popen(
        command("run", str(plan), "--runs", str(tmp_path / "runs")),
        env={**os.environ, "ZKCHAOS_GROUPS_TEST": marker},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_line(tmp_path / "runs" / "latest" / "events.jsonl", '"injected"', process)
        assert len(left_by(process.pid)) >= len(TOPOLOGY.servers)
        process.send_signal(signal.SIGKILL)
        if spared != "agent":
            for pid in others(f"ZKCHAOS_GROUPS_TEST={marker}"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until_gone(f"ZKCHAOS_GROUPS_TEST={marker}", 30)
        assert left_by(process.pid) == []
    finally:
        end(process)


def others(marker: str) -> list[int]:
    """The living processes of a run, but for its keeper of groups; marked by their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            marked = folder.name.isdigit() and marker.encode() in (folder / "environ").read_bytes()
            if marked and b"group_keeper" not in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


#: Makes groups, and dies without a word, and its keeper with it.
_WITHOUT_KEEPER = """
import os, signal
from harness.testbed.cgroups import Groups
from harness.testbed.group_places import find_places
groups = Groups(find_places())
groups.make("zk1")
os.kill(groups._keeper.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_run_removes_what_a_keeper_could_not(groups: None) -> None:
    dead = subprocess.Popen([sys.executable, "-c", _WITHOUT_KEEPER])
    dead.wait(timeout=30)
    assert len(left_by(dead.pid)) >= 1
    mine, before = Groups(find_places()), left_by(os.getpid())
    mine.make("zk1")
    assert left_by(dead.pid) == []
    assert left_by(os.getpid()) != before
    mine.close()
    mine.close()
    assert left_by(os.getpid()) == before


def test_a_keeper_that_was_killed_is_told(groups: None) -> None:
    keeper = GroupKeeper.start("zkchaos-nothing-", {})
    os.kill(keeper.pid, signal.SIGKILL)
    with pytest.raises(TestbedError, match="keeper of control groups ended with code -9"):
        keeper.close()


def test_the_doctor_says_what_is_possible() -> None:
    refusals = find_places().refusals
    finding = _groups()
    assert finding.ok == (not refusals)
    assert all(why in finding.found for why in refusals.values())
    assert not any("doctor" in group.name for group in left_by(os.getpid()))

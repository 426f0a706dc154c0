"""Disks that ail, and data that is damaged: first a disk alone, then servers that live on it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import FuseMissing
from harness.history.damaged import asides
from harness.history.folder import ServerFolder
from harness.history.records import FaultEvent, ProbeEvent
from harness.history.scenario import LoadSpec, Scenario
from harness.scenario import now_text
from harness.testbed.disk import Disk, find_fuse
from harness.testbed.disk_words import Ailment, DiskState
from harness.testbed.handles import Process
from harness.testbed.namespaces import NamespacesTestbed
from harness.testing import ChaosTest
from harness.topology.loader import load_topology
from harness.topology.model import Topology
from harness.zookeeper.data_files import last_snapshot
from tests.integration.command_line import living
from tests.integration.conftest import require

TOPOLOGY = load_topology("single-net")
FOLDERS = ("txnlog", "snapshot")
#: How long a change takes to hold on a machine that is not busy, and how long anything else may take, seconds.
AT_ONCE_S, PATIENCE_S = 0.01, 20.0
REFUSALS = {
    Ailment.FULL: ("create", errno.ENOSPC),
    Ailment.READ_ONLY: ("create", errno.EROFS),
    Ailment.FAILING: ("write", errno.EIO),
}


@pytest.fixture(scope="session")
def fuse() -> None:
    """The machine has FUSE."""
    try:
        find_fuse()
    except FuseMissing as lacking:
        require("fuse", str(lacking))


# --- a disk alone ----------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    (tmp_path / "snapshot" / "myid").write_text("1\n")
    return tmp_path


@pytest.fixture
def testbed(fuse: None, make_testbed: Callable[[Topology], NamespacesTestbed]) -> NamespacesTestbed:
    return make_testbed(TOPOLOGY)


@pytest.fixture
def disk(testbed: NamespacesTestbed, root: Path) -> Disk:
    made = Disk(testbed, "zk1", root, FOLDERS, root / "disk.log")
    made.wait_mounted()
    return made


def run_there(testbed: NamespacesTestbed, root: Path, script: str) -> str:
    """What a shell says that stands where the server does."""
    process, output = begin_there(testbed, root, script)
    wait_until(lambda: testbed.exited(process) is not None)
    return output.read_text()


def begin_there(testbed: NamespacesTestbed, root: Path, script: str) -> tuple[Process, Path]:
    output = root / f"output-{time.monotonic_ns()}"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    return testbed.spawn("zk1", ["/bin/sh", "-c", f"cd {root}; {script}"], environment, output), output


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_server_writes_lies_underneath_at_once_and_the_other_way_round(
    testbed: NamespacesTestbed, disk: Disk, root: Path
) -> None:
    script = (
        "stat -c %F txnlog; cat snapshot/myid; mkdir txnlog/version-2; cd txnlog/version-2; echo one > log.1;"
        "echo two >> log.1; mv log.1 log.2; ln -s log.2 link; chmod 600 log.2; truncate -s 4M log.3;"
        "rm ../../snapshot/myid"
    )
    assert run_there(testbed, root, script) == "directory\n1\n"
    written = root / "txnlog" / "version-2"
    assert (written / "log.2").read_text() == "one\ntwo\n" and (written / "log.3").stat().st_size == 4 * 2**20
    assert (written / "link").readlink() == Path("log.2") and list((root / "snapshot").iterdir()) == []
    (written / "log.2").write_text("changed underneath\n")
    assert run_there(testbed, root, "cat txnlog/version-2/link") == "changed underneath\n"
    (written / "log.2").unlink()
    assert "No such file" in run_there(testbed, root, "cat txnlog/version-2/log.2")


@pytest.mark.parametrize("ailment", REFUSALS)
def test_a_refusing_disk_says_so_at_once_and_not_for_longer_than_it_ails(
    disk: Disk, root: Path, ailment: Ailment
) -> None:
    took = []
    for _ in range(5):
        begun = time.monotonic()
        disk.set(DiskState(ailment))
        took.append(time.monotonic() - begun)
        tried = disk.attempt(PATIENCE_S)
        assert tried is not None and (tried.failed, tried.errno) == REFUSALS[ailment]
        disk.set(DiskState())
        well = disk.attempt(PATIENCE_S)
        assert well is not None and well.failed == ""
    assert min(took) < AT_ONCE_S
    assert [path.name for path in (root / "txnlog").iterdir()] == []


def test_what_is_on_a_full_disk_can_be_read_and_removed(testbed: NamespacesTestbed, disk: Disk, root: Path) -> None:
    (root / "txnlog" / "old").write_text("old\n")
    disk.set(DiskState(Ailment.FULL))
    said = run_there(testbed, root, "cat txnlog/old; rm txnlog/old; echo new > snapshot/new; df --output=avail txnlog")
    lines = said.splitlines()
    assert lines[0] == "old" and "No space left on device" in lines[1] and lines[-1].strip() == "0"
    assert not (root / "txnlog" / "old").exists()


def test_a_file_that_is_open_for_writing_is_read_only_too(testbed: NamespacesTestbed, disk: Disk, root: Path) -> None:
    script = (
        "exec 3>txnlog/open; echo before >&3; touch ready; while [ ! -e go ]; do sleep 0.01; done;cat snapshot/myid >&3"
    )
    process, output = begin_there(testbed, root, script)
    wait_until((root / "ready").exists)
    disk.set(DiskState(Ailment.READ_ONLY))
    (root / "go").touch()
    wait_until(lambda: testbed.exited(process) is not None)
    assert "Read-only file system" in output.read_text()
    assert (root / "txnlog" / "open").read_text() == "before\n"


def test_a_slow_disk_takes_so_much_longer(disk: Disk) -> None:
    for slow_ms in (20.0, 100.0):
        disk.set(DiskState(Ailment.SLOW, slow_ms))
        tried = disk.attempt(PATIENCE_S)
        assert tried is not None and tried.failed == "" and tried.took_ms >= slow_ms


def test_who_hangs_on_a_stuck_disk_goes_on_when_it_is_well_and_can_be_killed_before(
    testbed: NamespacesTestbed, disk: Disk, root: Path
) -> None:
    disk.set(DiskState(Ailment.STUCK))
    assert disk.attempt(0.1) is None and disk.attempt(0.1) is None
    hangs, _output = begin_there(testbed, root, "echo late > txnlog/late")
    dies, _output = begin_there(testbed, root, "echo never > snapshot/never")
    # the one waits for the disk; the other for its folder, which whoever tried the disk holds while it hangs
    wait_until(lambda: (testbed.state(dies), testbed.state(hangs)) == ("S", "D"))
    testbed.signal(dies, signal.SIGKILL)
    wait_until(lambda: testbed.exited(dies) is not None)
    assert testbed.exited(hangs) is None
    disk.set(DiskState())
    wait_until(lambda: testbed.exited(hangs) is not None)
    assert (root / "txnlog" / "late").read_text() == "late\n" and not (root / "snapshot" / "never").exists()
    well = disk.attempt(PATIENCE_S)
    assert well is not None and well.failed == ""


_HOLDER = """
import os, sys, time
from pathlib import Path
from harness.testbed.disk import Disk
from harness.testbed.disk_words import Ailment, DiskState
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
testbed, root = NamespacesTestbed(load_topology("single-net")), Path(sys.argv[1])
disk = Disk(testbed, "zk1", root, ("txnlog", "snapshot"), root / "disk.log")
disk.set(DiskState(Ailment.STUCK))
testbed.spawn("zk1", ["/bin/sh", "-c", f"echo > {root}/txnlog/hangs"], dict(os.environ), root / "output")
print(disk.attempt(0.2), flush=True)
time.sleep(60)
"""


def test_after_sigkill_no_process_and_no_mount_is_left_though_some_hang(
    fuse: None, namespaces_allowed: None, root: Path
) -> None:
    marker = f"disk-{os.getpid()}"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(root)],
        env={**os.environ, "ZKCHAOS_LEAK_TEST": marker, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"None\n"
    assert len(living(marker)) > 3
    holder.kill()
    holder.communicate()
    wait_until(lambda: not living(marker))
    assert not any(str(root) in mounts for mounts in everybodys_mounts())
    assert list((root / "txnlog").iterdir()) == []


def everybodys_mounts() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):  # of a process that has ended meanwhile
            yield path.read_text()


# --- servers ---------------------------------------------------------------------------------------------


def scenario() -> Scenario:
    return Scenario(
        name="disks",
        topology=TOPOLOGY.name,
        topology_source=TOPOLOGY.source,
        plan="",
        plan_source="",
        seed=0,
        duration_s=0.0,
        load=LoadSpec(),
        repeat="",
        started=now_text(),
        prepared=("disks",),
    )


def test_where_there_is_no_libfuse_nothing_is_started(
    namespaces_allowed: None, java: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", str(tmp_path / "libfuse.so"))
    with pytest.raises(FuseMissing, match="cannot be mounted here") as caught:
        ChaosTest(scenario(), TOPOLOGY, tmp_path / "run")
    assert "libfuse" in caught.value.cause and "apt install libfuse2" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def chaos(
    fuse: None, namespaces_allowed: None, java: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ChaosTest]:
    """Three servers with some data, whose disks may ail."""
    with ChaosTest(scenario(), TOPOLOGY, tmp_path_factory.mktemp("runs") / "disks") as made:
        with made.ensemble.client() as client:
            for number in range(20):
                client.create(f"/before-{number}", b"data" * 20)
        yield made


def stages(chaos: ChaosTest, kind: str) -> dict[str, ProbeEvent]:
    """The last fault's probes of each stage."""
    events = chaos.run.folder.events()
    last = [event.id for event in events if isinstance(event, FaultEvent) and event.fault == kind][-1]
    probes = [event for event in events if isinstance(event, ProbeEvent)]
    return {probe.stage: probe for probe in probes if probe.id == last}


@pytest.mark.parametrize("manner", ["full", "read-only", "failing", "slow 40ms", "stuck"])
def test_a_follower_whose_disk_ails_is_seen_to_and_follows_again(chaos: ChaosTest, manner: str) -> None:
    with chaos.nemesis.fault("disk", f"a follower:{manner}"):
        chaos.ensemble.wait_for_quorum(within=PATIENCE_S)
    probes = stages(chaos, "disk")
    assert {stage: probe.bites for stage, probe in probes.items()} == {"before": False, "during": True, "after": False}
    chaos.ensemble.servers.wait_until_serving(within=PATIENCE_S)


@pytest.mark.parametrize("other", ["kill", "pause"])
def test_a_server_that_another_fault_holds_meanwhile_comes_back_when_both_are_healed(
    chaos: ChaosTest, other: str
) -> None:
    """Either one heals first."""
    nemesis, servers = chaos.nemesis, chaos.ensemble.servers
    with nemesis.fault("disk", "zk1:full"), nemesis.fault(other, "zk1"):
        pass
    servers.wait_until_serving(within=PATIENCE_S)
    with nemesis.fault(other, "zk1"):
        with nemesis.fault("disk", "zk1:full"):
            pass
        wait_until(lambda: servers.process_state(1) == {"kill": "X", "pause": "T"}[other])
    servers.wait_until_serving(within=PATIENCE_S)


def test_of_two_faults_on_one_disk_the_last_one_counts_and_the_first_one_comes_back(chaos: ChaosTest) -> None:
    with chaos.nemesis.fault("disk", "zk1:slow 40ms"):
        with chaos.nemesis.fault("disk", "zk1:full"):
            pass
        assert "forced it in" in stages(chaos, "disk")["after"].summary
    chaos.ensemble.servers.wait_until_serving(within=PATIENCE_S)


@pytest.mark.parametrize("damage", ["truncate log", "corrupt log", "corrupt snapshot", "wipe"])
def test_a_follower_with_damaged_data_has_everything_again(chaos: ChaosTest, damage: str) -> None:
    leader = chaos.ensemble.wait_for_quorum(within=PATIENCE_S)
    server = min(s.id for s in TOPOLOGY.servers if s.id != leader)
    folder: ServerFolder = chaos.ensemble.servers.server_folder(server)
    assert last_snapshot(folder) is not None
    earlier, snapshots = len(asides(folder)), len(list((folder.snapshot / "version-2").glob("snapshot.*")))
    with chaos.nemesis.fault("damage", f"zk{server}:{damage}"), chaos.ensemble.client() as client:
        client.create(f"/while-{damage.replace(' ', '-')}", b"")
    probes = stages(chaos, "damage")
    assert {stage: probe.bites for stage, probe in probes.items()} == {"before": False, "during": True, "after": False}
    taken_away = "all its files were taken away" in probes["after"].summary
    # it starts with an older snapshot, where there is one
    refuses = damage == "corrupt log" or (damage == "corrupt snapshot" and snapshots == 1)
    assert taken_away == refuses, probes["after"].summary
    assert len(asides(folder)) == earlier + 1 + taken_away
    chaos.ensemble.servers.wait_until_serving(within=PATIENCE_S)


def test_a_server_that_another_fault_keeps_down_is_left_with_data_that_it_can_start_with(chaos: ChaosTest) -> None:
    with chaos.ensemble.client() as client:
        client.create("/before-both", b"")  # one that was wiped has logged nothing since
    with chaos.nemesis.fault("kill", "zk1"):
        with chaos.nemesis.fault("damage", "zk1:corrupt log"):
            pass
        assert chaos.ensemble.servers.process_state(1) == "X"
    chaos.ensemble.servers.wait_until_serving(within=PATIENCE_S)

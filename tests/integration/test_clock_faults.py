"""Wall clocks on real servers: set wrong one by one, seen by what the servers write, and right again afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.errors import EnvironmentLacking, FaketimeMissing, FaultError, UsageError
from harness.history.folder import RunFolder, ServerFolder
from harness.history.records import Event, ProbeEvent
from harness.nemesis.nemesis import Nemesis
from harness.stage.make import make_stage
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from harness.topology.model import Server
from harness.zookeeper.clock import CLOCKS, LIBRARY_VARIABLE, Clocks, find_faketime
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter
from tests.integration.conftest import require

TOPOLOGY = load_topology("dual-net")
EVENTS: list[Event] = []


@pytest.fixture(scope="module")
def faketime() -> Path:
    """This machine has a libfaketime."""
    try:
        return find_faketime()
    except EnvironmentLacking as lacking:
        require("faketime", str(lacking))
        raise


def shared() -> set[str]:
    """What libfaketime makes where every process of the machine can see it."""
    return {path.name for path in Path("/dev/shm").glob("*faketime*")}


@pytest.fixture(scope="module")
def ensemble(
    faketime: Path, namespaces_allowed: None, java: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ensemble]:
    before = shared()
    with started("namespaces", tmp_path_factory.mktemp("clocks")) as made:
        yield made
        assert shared() == before
    assert shared() == before  # processes were killed meanwhile, and this was the end of all


@contextmanager
def started(testbed: str, root: Path) -> Iterator[Ensemble]:
    """An ensemble whose clocks can be set."""
    stage = make_stage(testbed, TOPOLOGY, root, prepared=[CLOCKS])
    for server in TOPOLOGY.servers:
        RunFolder(root).server(server.id).create()
    made = Ensemble(stage.testbed, TOPOLOGY, RunFolder(root), stage.starter, EVENTS.append)
    try:
        made.start()
        yield made
    finally:
        stage.close()


@pytest.fixture
def nemesis(ensemble: Ensemble) -> Iterator[Nemesis]:
    EVENTS.clear()
    made = Nemesis(ensemble, EVENTS.append, seed=0)
    yield made
    made.heal_all()
    ensemble.wait_until_serving()


def probes(fault: int, stage: str) -> list[ProbeEvent]:
    found = [event for event in EVENTS if isinstance(event, ProbeEvent)]
    return [probe for probe in found if (probe.id, probe.stage) == (fault, stage)]


def seen(probe: ProbeEvent) -> float:
    """What the first server's clock was ahead of ours, seconds."""
    return float(probe.measurements[0].found.split()[0])


def proved(fault: int) -> bool:
    stages = [probes(fault, stage)[-1].bites for stage in ("before", "during", "after")]
    return stages == [False, True, False]


@pytest.mark.parametrize(
    "target",
    [
        "a follower:ahead 5s",
        "leader:behind 1h",
        "all:ahead 100ms",
        "zk2:ahead 24h",
        "zk2:jumps 2s every 500ms",
        "zk1,zk3:jumps 1h every 200ms",
        "zk2:drifts 1.5x",
        "zk1:drifts 0.5x",
        "leader:drifts 5x",
    ],
)
def test_a_fault_is_proved_and_gone_afterwards(nemesis: Nemesis, ensemble: Ensemble, target: str) -> None:
    with nemesis.fault("clock", target):
        assert len([s for s in ensemble.status().values() if s.serving]) == len(TOPOLOGY.servers)
    assert proved(0)


def test_a_server_that_is_started_anew_finds_its_clock_as_wrong_as_it_was(nemesis: Nemesis) -> None:
    with nemesis.fault("clock", "zk1:ahead 1h"):
        with nemesis.kill("zk1"):
            pass
        with nemesis.fault("clock", "zk1:behind 10m"):
            pass
    assert all(proved(fault) for fault in (0, 1, 2))
    # each is blamed for its own part
    assert "of which other faults make +3600.000 s" in probes(2, "before")[0].summary
    assert seen(probes(2, "during")[-1]) == pytest.approx(3000, abs=1)
    assert seen(probes(0, "after")[-1]) == pytest.approx(0, abs=1)


def test_a_clock_is_set_right_while_its_server_is_down(nemesis: Nemesis, ensemble: Ensemble) -> None:
    with nemesis.kill("zk2"), nemesis.fault("clock", "zk2:behind 5m"):
        pass
    assert proved(1)
    assert probes(1, "during")[-1].summary == "clock of zk2 will be -300.000 s; another fault holds the process"
    ensemble.wait_until_serving()
    assert abs(wall_clock(ensemble, 2) - time.time()) < 2


def test_the_monotonic_clock_stays_right(nemesis: Nemesis, ensemble: Ensemble) -> None:
    """Ticks go on, and pings are answered: nobody loses its leader in three times the time that this takes."""
    leader = ensemble.leader()
    with nemesis.fault("clock", "all:jumps 24h every 200ms"):
        time.sleep(3)  # the fault lasts, while nothing must happen
    assert ensemble.leader() == leader
    log = (ensemble.server_folder(leader or 1).logs / "server.log").read_text()
    assert len(re.findall(r"LEADING$", log, re.MULTILINE)) == 1


def wall_clock(ensemble: Ensemble, server: int) -> float:
    """What a server writes, as seconds since the epoch."""
    ensemble.word(server, "ruok")
    lines = (ensemble.server_folder(server).logs / "server.log").read_text().splitlines()
    last = next(line for line in reversed(lines) if "Processing ruok" in line)
    return datetime.fromisoformat(last.split()[0]).replace(tzinfo=UTC).timestamp()


def test_containers_have_clocks_of_their_own_too(
    faketime: Path, engine_images: None, subnets: None, tmp_path: Path
) -> None:
    with started("docker", tmp_path) as ensemble:
        EVENTS.clear()
        nemesis = Nemesis(ensemble, EVENTS.append, seed=0)
        with nemesis.fault("clock", "leader:jumps 1h every 500ms"), nemesis.fault("clock", "zk1:behind 10m"):
            with nemesis.kill("zk1"):
                pass
            with nemesis.fault("clock", "zk1:drifts 2x"):
                pass
    assert all(proved(fault) for fault in range(4))


def test_servers_must_have_been_started_for_it(namespaces_allowed: None, tmp_path: Path) -> None:
    testbed = NamespacesTestbed(TOPOLOGY)
    try:
        ensemble = Ensemble(testbed, TOPOLOGY, RunFolder(tmp_path), JvmStarter(testbed, {}), EVENTS.append)
        with (
            pytest.raises(FaultError, match="started without what faults of clocks need"),
            Nemesis(ensemble, EVENTS.append, seed=0).fault("clock", "zk1:ahead 5s"),
        ):
            pass
    finally:
        testbed.close()


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere.so", "not the absolute path of a file"),
        ("/dev/null", "not the absolute path of a file"),
        (__file__, "it does not change a process's clock"),
    ],
)
def test_a_library_that_does_not_work_is_found_out(named: str, said: str) -> None:
    with pytest.raises(FaketimeMissing, match=said) as caught:
        find_faketime({LIBRARY_VARIABLE: named})
    assert "apt install libfaketime" in caught.value.next_step


def test_nothing_is_started_without_the_library(
    namespaces_allowed: None, java: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "nowhere.so"))
    with pytest.raises(FaketimeMissing):
        make_stage("namespaces", TOPOLOGY, tmp_path, prepared=[CLOCKS])


def test_a_place_that_the_server_would_not_find_is_refused(tmp_path: Path, faketime: Path) -> None:
    clocks = Clocks(faketime)
    with pytest.raises(UsageError, match="a /dev/shm of its own") as caught:
        clocks.command(["java", "/dev/shm/runs/1/config/zoo.cfg"])
    assert caught.value.where == "/dev/shm/runs/1/config/zoo.cfg"


def test_a_container_gets_the_library_into_its_folder(tmp_path: Path, faketime: Path) -> None:
    server: Server = TOPOLOGY.servers[0]
    folder = ServerFolder(tmp_path)
    folder.create()
    clocks = Clocks(faketime, in_containers=True)
    clocks.prepare(server, folder)
    environment = clocks.environment(server)
    assert environment["LD_PRELOAD"] == "/conf/libfaketime.so"
    assert (folder.config / "libfaketime.so").read_bytes() == faketime.read_bytes()
    clocks.hold(7, server.id, 2.5)
    clocks.hold(8, server.id, -60)
    assert (folder.config / "clock").read_text() == "-57.500000\n"
    assert (clocks.written(server.id), clocks.others(7, server.id)) == (-57.5, -60.0)
    clocks.release(8, server.id)
    clocks.release(7, server.id)
    clocks.release(7, server.id)
    assert (folder.config / "clock").read_text() == "+0.000000\n"

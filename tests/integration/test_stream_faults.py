"""Faults of streams on real servers behind real proxies: each is made, measured on the wire, undone, measured again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import EnvironmentLacking, FaultError, ToxiproxyMissing, UsageError
from harness.history.folder import RunFolder
from harness.history.records import Event, ProbeEvent
from harness.load.hosted import hosted_client
from harness.nemesis.nemesis import Nemesis
from harness.stage.make import make_stage
from harness.stage.namespaces import Software
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology, parse_topology
from harness.topology.proxies import proxies_of
from harness.toxiproxy.api import Api, Toxic
from harness.toxiproxy.program import PROGRAM, PROGRAM_VARIABLE, VERSION, ensure_program, find_program
from harness.toxiproxy.proxies import Proxies, Wanted
from harness.zookeeper.cache import CACHE_VARIABLE
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter
from tests.integration.command_line import zkchaos
from tests.integration.conftest import require

TOPOLOGY = load_topology("proxied")


def quiet(_line: str) -> None:
    """Nobody is told."""


@pytest.fixture(scope="module")
def program() -> Path:
    """Toxiproxy's program."""
    try:
        return ensure_program(quiet)
    except EnvironmentLacking as lacking:
        require("toxiproxy", str(lacking))
        raise


@dataclass
class Proxied:
    """A running ensemble behind proxies, and what breaks it."""

    testbed: NamespacesTestbed
    ensemble: Ensemble
    proxies: Proxies
    nemesis: Nemesis
    events: list[Event] = field(default_factory=list)

    def toxics(self) -> dict[str, int]:
        """How many toxics each proxy has, of those that have some; those that are down have -1."""
        states = self.proxies.states().values()
        return {s.name: len(s.toxics) if s.enabled else -1 for s in states if s.toxics or not s.enabled}


@pytest.fixture(scope="module")
def running(
    namespaces_allowed: None, java: None, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    """One ensemble for all tests of this file; each must leave it as it was."""
    root = tmp_path_factory.mktemp("proxied")
    software = Software(TOPOLOGY)
    testbed = NamespacesTestbed(TOPOLOGY)
    try:
        proxies = Proxies(testbed, TOPOLOGY, program, root / "proxies")
        proxies.start()
        starter = JvmStarter(testbed, software.launches(TOPOLOGY))
        ensemble = Ensemble(testbed, TOPOLOGY, RunFolder.create(root / "run"), starter, lambda _event: None)
        ensemble.start()
        events: list[Event] = []
        yield Proxied(testbed, ensemble, proxies, Nemesis(ensemble, events.append, seed=1, proxies=proxies), events)
        ensemble.stop()
    finally:
        testbed.close()


@pytest.fixture
def proxied(running: Proxied) -> Iterator[Proxied]:
    """The same, whole before and after."""
    running.ensemble.wait_until_serving(within=20)
    running.events.clear()
    yield running
    assert running.toxics() == {}
    assert {p.name for p in proxies_of(TOPOLOGY)} == set(running.proxies.states())


EVERY_TOXIC = [
    "latency 10ms on clients",
    "latency 200ms on c1",
    "latency 50ms jitter 20ms on clients > leader downstream",
    "latency 50ms on servers > leader",
    "bandwidth 100kbit on clients",
    "bandwidth 10mbit on c1 upstream",
    "bandwidth 1mbit on zk1 > zk2",
    "bandwidth 40kbit on zk3 > zk1 downstream",
    "slow_close 200ms on clients",
    "slow_close 100ms on servers upstream",
    "timeout 0ms on clients",
    "timeout 300ms on c1 downstream",
    "timeout 0ms on a follower > servers",
    "reset_peer 0ms on clients",
    "reset_peer 100ms on c1 > zk2 downstream",
    "reset_peer 50ms on zk1 > zk2",
    "slicer 64B every 1ms on clients",
    "slicer 100B varying 20B every 2ms on zk1 > zk3 upstream",
    "slicer 40B every 1ms on zk1 > zk3 downstream",
    "limit_data 10kB on clients",
    "limit_data 1B on c2 > zk1",
    "limit_data 100B on zk2 > zk1",
    "down on clients > a follower",
    "down on zk1 > zk2",
    "timeout 0ms on clients toxicity 30%",
    "latency 100ms on clients upstream toxicity 50%",
]


@pytest.mark.parametrize("target", EVERY_TOXIC)
def test_a_fault_is_proved_and_gone_afterwards(proxied: Proxied, target: str) -> None:
    with proxied.nemesis.fault("stream", target):
        assert proxied.toxics()
    probes = [event for event in proxied.events if isinstance(event, ProbeEvent)]
    assert [p.bites for p in probes if p.stage in ("before", "after")] == [False, False]
    assert probes[-2].bites is True
    assert probes[-2].measurements


def test_faults_that_overlap_keep_what_is_the_others(proxied: Proxied) -> None:
    both = "c1.zk2.net1.client"
    with proxied.nemesis.fault("stream", "latency 50ms on c1"):
        with proxied.nemesis.fault("stream", "bandwidth 1mbit on clients > zk2"):
            assert proxied.toxics()[both] == 4
            with proxied.nemesis.fault("stream", "down on c1 > zk2"):
                assert proxied.toxics()[both] == -1
            assert proxied.toxics()[both] == 4
        assert proxied.toxics()[both] == 2
        with proxied.nemesis.fault("stream", "down on c2"), proxied.nemesis.fault("stream", "down on c2 > zk1"):
            pass


def test_other_faults_beside_it_are_told_apart(proxied: Proxied) -> None:
    """Of what another fault keeps from answering nothing is concluded; what it slows is compared with the same."""
    with (
        proxied.nemesis.fault("partition", "c1 | zk1 over net1"),
        proxied.nemesis.fault("stream", "timeout 0ms on clients > zk1"),
        proxied.nemesis.fault("stream", "latency 100ms on clients > zk2"),
        proxied.nemesis.kill("zk2"),
    ):
        pass
    dead = [e for e in proxied.events if isinstance(e, ProbeEvent) and "toxiproxy" in e.summary]
    assert all(event.bites is not None for event in dead)


def test_a_fault_on_a_dead_server_is_taken_by_toxiproxys_word(proxied: Proxied) -> None:
    follower = next(s.host for s in TOPOLOGY.servers if s.id != proxied.ensemble.leader())
    with proxied.nemesis.kill(follower), proxied.nemesis.fault("stream", f"latency 100ms on clients > {follower}"):
        last = [e for e in proxied.events if isinstance(e, ProbeEvent)][-1]
        assert last.bites is True
        assert "toxiproxy has it" in last.summary


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_toxiproxy_that_dies_or_hangs_is_replaced(proxied: Proxied, number: signal.Signals) -> None:
    """What other faults hold there is held by the new one, too."""
    old = proxied.proxies.process("c1")
    with proxied.nemesis.fault("stream", "latency 50ms on c1"):
        with proxied.nemesis.fault("stream", "latency 50ms on c2"):
            proxied.testbed.signal(old, number)
            deadline = time.monotonic() + 5
            while proxied.testbed.state(old) not in "TXZ" and time.monotonic() < deadline:
                time.sleep(0.01)
        assert proxied.proxies.process("c1").pid != old.pid
        assert {name: n for name, n in proxied.toxics().items() if name.startswith("c1.")} == {
            f"c1.zk{server}.net1.client": 2 for server in (1, 2, 3)
        }


def test_a_client_goes_through_its_proxies(proxied: Proxied) -> None:
    hosts = TOPOLOGY.connection_string(host=TOPOLOGY.client_hosts[0])
    assert hosts == "127.77.1.1:2181,127.77.1.2:2181,127.77.1.3:2181"
    with hosted_client(proxied.testbed, "c1", hosts) as client:
        client.ensure_path("/proxied")
        with proxied.nemesis.fault("stream", "latency 100ms on c1"):
            before = time.monotonic()
            client.get("/proxied")
            assert 0.19 < time.monotonic() - before < 2
        assert TOPOLOGY.server_of(client.server) in (1, 2, 3)


def test_what_servers_say_to_each_other_passes_proxies(proxied: Proxied) -> None:
    """The configuration that they hold is one and the same; nobody knows another by an address of its NIC."""
    config = {proxied.ensemble.word(s.id, "conf", timeout=5).partition("membership:")[2] for s in TOPOLOGY.servers}
    (text,) = config
    assert "server.2=127.77.1.2:2902:3902:participant" in text
    assert "10.77." not in text
    leader = proxied.ensemble.leader()
    with proxied.nemesis.fault("stream", f"timeout 0ms on servers > zk{leader}"):
        deadline = time.monotonic() + 15
        while proxied.ensemble.leader() == leader and time.monotonic() < deadline:
            time.sleep(0.05)
        assert proxied.ensemble.leader() != leader


def test_ports_of_partitions_are_those_behind_the_proxies(proxied: Proxied) -> None:
    leader = f"zk{proxied.ensemble.leader()}"
    others = ",".join(s.host for s in TOPOLOGY.servers if s.host != leader)
    for port in ("quorum", "election", "client"):
        with proxied.nemesis.fault("partition", f"{others} > {leader} port {port} rejected"):
            pass
        proxied.ensemble.wait_until_serving(within=20)
        if proxied.ensemble.leader() != int(leader[2:]):
            return


def test_cables_and_switches_mean_the_same_behind_proxies(proxied: Proxied) -> None:
    with proxied.nemesis.link_down("zk1", "net1"), proxied.nemesis.fault("stream", "latency 50ms on clients"):
        pass
    with proxied.nemesis.switch_down("net1"):
        pass


def test_without_proxies_a_fault_says_so(proxied: Proxied) -> None:
    alone = Nemesis(proxied.ensemble, proxied.events.append, seed=1)
    with pytest.raises(FaultError, match="this testbed has no proxies"), alone.fault("stream", "down on clients"):
        pass


# --- the program ------------------------------------------------------------------------------------------------


def test_the_program_is_kept_and_made_anew_when_it_was_changed(program: Path, tmp_path: Path) -> None:
    environ = {**os.environ, CACHE_VARIABLE: str(tmp_path)}
    environ.pop(PROGRAM_VARIABLE, None)
    told: list[str] = []
    if shutil.which(PROGRAM) is not None:
        pytest.skip("there is a toxiproxy on PATH, so none would be made")
    if shutil.which("go") is None:
        require("go", "go is not installed")
    made = ensure_program(told.append, environ)
    assert ensure_program(told.append, environ) == made
    assert told == [f"compiling toxiproxy {VERSION}, once"]
    content = made.read_bytes()
    with made.open("ab") as stream:
        stream.write(b"?")
    assert find_program(environ) is None
    assert not made.exists()
    assert ensure_program(told.append, environ).read_bytes() == content
    assert len(told) == 2
    assert {path.name for path in made.parent.iterdir()} == {made.name, "making.lock"}


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "toxiproxy-server"
    wrong.write_text("#!/bin/sh\necho something else\n")
    wrong.chmod(0o755)
    for environ in ({PROGRAM_VARIABLE: str(wrong)}, {"PATH": str(tmp_path)}, {PROGRAM_VARIABLE: str(tmp_path / "no")}):
        with pytest.raises(ToxiproxyMissing, match="is no toxiproxy that works here"):
            find_program(environ)


def test_a_run_without_toxiproxy_ends_before_it_begins(tmp_path: Path) -> None:
    environ = {CACHE_VARIABLE: str(tmp_path / "cache"), PROGRAM_VARIABLE: str(tmp_path / "nowhere")}
    refused = zkchaos("run", "stream-latency", cwd=tmp_path, environ=environ)
    assert "is no toxiproxy that works here" in refused.complaint(3)
    assert not (tmp_path / "runs").exists()


# --- the interface ----------------------------------------------------------------------------------------------


def test_the_api_is_understood(running: Proxied) -> None:
    toxic = Toxic("mine", "latency", "upstream", 0.5, {"latency": 10, "jitter": 5})
    with Api(running.testbed, "c1") as api:
        assert api.version()
        api.add("c1.zk1.net1.client", toxic)
        (found,) = api.states()["c1.zk1.net1.client"].toxics
        assert found == toxic
    running.proxies.set({"c1.zk1.net1.client": Wanted((toxic,), down=True)})
    assert running.toxics() == {"c1.zk1.net1.client": -1}
    running.proxies.set({})
    assert running.toxics() == {}


# --- on a Docker engine -----------------------------------------------------------------------------------------

CLIENTS_ONLY = """
title = "Three servers, and proxies for clients alone"
servers = 3
proxies = { clients = true }
[[switch]]
name = "net1"
subnet = "10.77.31.0/24"
"""


def test_containers_behind_proxies(
    engine_images: None, subnets: None, program: Path, tmp_path: Path, namespaces_allowed: None
) -> None:
    topology = parse_topology(CLIENTS_ONLY, "clients-only")
    try:
        stage = make_stage("docker", topology, tmp_path / "run")
    except UsageError as refused:
        pytest.skip(str(refused))  # who may only talk to the engine
    events: list[Event] = []
    try:
        assert stage.toxiproxy is not None
        folder = RunFolder.create(tmp_path / "run")
        proxies = Proxies(stage.testbed, topology, stage.toxiproxy, folder.proxies_folder)
        proxies.start()
        ensemble = Ensemble(stage.testbed, topology, folder, stage.starter, lambda _event: None)
        ensemble.start()
        nemesis = Nemesis(ensemble, events.append, seed=1, proxies=proxies)
        for target in ("latency 100ms on clients", "timeout 0ms on clients > leader", "down on c1 > zk1"):
            with nemesis.fault("stream", target):
                pass
        with nemesis.kill("zk1"), nemesis.fault("stream", "reset_peer 0ms on clients"):
            pass
        ensemble.stop()
    finally:
        stage.close()


@pytest.mark.parametrize("testbed", ["docker", "docker-helper"])
def test_what_an_engine_does_not_offer_is_refused(engine: object, testbed: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="proxies between servers would stand in the servers' containers"):
        make_stage(testbed, TOPOLOGY, tmp_path / "run")
    if testbed == "docker-helper":
        with pytest.raises(UsageError, match="not offered through a helper container"):
            make_stage(testbed, parse_topology(CLIENTS_ONLY, "clients-only"), tmp_path / "run")

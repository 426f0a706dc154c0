"""Every testbed does the same: one suite on namespaces, on Docker beside the engine, and on Docker through the helper.

Where a testbed is known to differ (`harness.nemesis.offers`), the difference is shown here, too.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from harness.errors import TestbedError
from harness.nemesis.offers import offers
from harness.stage.make import TESTBEDS, make_stage
from harness.stage.stage import Stage
from harness.testbed.containers import ContainerSpec, ContainersTestbed
from harness.testbed.handles import Link, Process, Testbed, wait_until_connected
from harness.topology.loader import load_topology
from harness.topology.model import Topology
from tests.integration.engine_things import Things

#: A process that waits for ever, as a host's only one.
IDLE = ("/bin/sleep", "1000")


@dataclass(frozen=True)
class Bed:
    """A testbed, and how to have a process on a server's host."""

    kind: str
    stage: Stage
    root: Path
    idle_image: str

    @property
    def testbed(self) -> Testbed:
        return self.stage.testbed

    def start(self, host: str) -> Process:
        """A process that waits: on Docker it makes the host, with all its NICs."""
        testbed = self.stage.testbed
        if isinstance(testbed, ContainersTestbed):
            return testbed.start_container(host, ContainerSpec(self.idle_image, {}, {}, "0:0"))
        return testbed.spawn(host, IDLE, {}, self.root / f"{host}.output")

    def start_all(self, topology: Topology) -> dict[str, Process]:
        return {server.host: self.start(server.host) for server in topology.servers}

    def answering(self, *switches: str) -> set[tuple[str, str, str]]:
        """Source, destination and switch of each datagram that arrived."""
        paths = self.testbed.reach(switches, timeout_ms=150)
        return {(p.source, p.destination, p.switch) for p in paths if p.micros is not None}

    def receive(self, host: str, address: tuple[str, int]) -> bytes:
        """What comes over a connection from a host."""
        with self.testbed.tcp_socket(host, address) as opened:
            wait_until_connected(opened, 2.0)
            opened.settimeout(2.0)
            return opened.recv(100)

    def fails(self, host: str, address: tuple[str, int]) -> float:
        """How long it takes until it is known that there is no connection, seconds; 2 where it is not known then.

        Through the helper the socket is one end of a relay, which only ends then.
        """
        began = time.monotonic()
        try:
            assert self.receive(host, address) == b""
            assert self.testbed.kind == "docker-helper"
        except TimeoutError:
            pass
        except OSError:
            assert self.testbed.kind != "docker-helper"
        return time.monotonic() - began


Make = Callable[[Topology], Bed]


@pytest.fixture(params=TESTBEDS)
def make_bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Build testbeds of each kind; they are closed at the end of the test."""
    kind = str(request.param)
    image = ""
    with ExitStack() as stack:
        if kind == "namespaces":
            request.getfixturevalue("namespaces_allowed")
            request.getfixturevalue("java")
        else:
            engine: docker.DockerClient = request.getfixturevalue("engine")
            request.getfixturevalue("engine_images")
            request.getfixturevalue("subnets")
            things = Things(engine)
            stack.callback(things.clear)
            image = things.image

        def make(topology: Topology) -> Bed:
            stage = stack.enter_context(closing(make_stage(kind, topology, tmp_path / "run")))
            return Bed(kind, stage, tmp_path, image)

        yield make


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


def every_path(topology: Topology) -> set[tuple[str, str, str]]:
    nics = list(topology.nics())
    return {(a.host, b.host, a.switch) for a in nics for b in nics if a.switch == b.switch and a.host != b.host}


@pytest.mark.parametrize("name", ["dual-net-five", "uneven-addresses"])
def test_every_nic_reaches_every_other_of_its_switch(make_bed: Make, name: str) -> None:
    topology = load_topology(name)
    bed = make_bed(topology)
    assert bed.testbed.kind in (
        bed.kind,
        "docker-helper",
    )  # who is not root gets through to an engine by a helper alone
    bed.start_all(topology)
    assert bed.answering(*topology.switch_names) == every_path(topology)
    names = [(s.switch, s.host) for s in bed.testbed.link_states() if s.up]
    assert sorted(names, key=str) == sorted(
        [*((name, None) for name in topology.switch_names), *((n.switch, n.host) for n in topology.nics())], key=str
    )


def test_switches_and_cables(make_bed: Make) -> None:
    topology = load_topology("dual-net")
    bed = make_bed(topology)
    bed.start_all(topology)
    both, everything = ("net1", "net2"), every_path(topology)
    links = bed.testbed.set_links

    links([Link("net1")], up=False)
    assert bed.answering(*both) == {path for path in everything if path[2] == "net2"}
    links([Link("net1")], up=True)
    wait_for(lambda: bed.answering(*both) == everything)

    links([Link("net1", "zk2"), Link("net2", "c1")], up=False)
    left = {p for p in everything if not (p[2] == "net1" and "zk2" in p[:2]) and not (p[2] == "net2" and "c1" in p[:2])}
    assert bed.answering(*both) == left

    # a switch dies and comes back; cables that are said to stay cut do, the others do not
    links([Link("net1")], up=False)
    links([Link("net1")], up=True, but=[Link("net1", "zk2"), Link("net2", "c1")])
    assert {(s.switch, s.host) for s in bed.testbed.link_states() if not s.up} == {("net1", "zk2"), ("net2", "c1")}
    wait_for(lambda: bed.answering(*both) == left)
    for _again in range(2):
        links([Link("net1", "zk2"), Link("net2", "c1")], up=True)
    wait_for(lambda: bed.answering(*both) == everything)

    started, ended = links([Link("net1"), Link("net2", "zk1"), Link("net2", "zk3")], up=False)
    assert 0 < ended - started < 1_000_000_000
    assert sum(not state.up for state in bed.testbed.link_states()) == 1 + len(topology.hosts) + 2


def test_a_process_is_paused_killed_and_started_again(make_bed: Make) -> None:
    bed = make_bed(load_topology("dual-net"))
    first = bed.start("zk2")
    wait_for(lambda: bed.testbed.state(first) == "S")
    assert bed.testbed.exited(first) is None
    bed.testbed.signal(first, signal.SIGSTOP)
    wait_for(lambda: bed.testbed.state(first) == "T")
    assert bed.testbed.exited(first) is None
    bed.testbed.signal(first, signal.SIGCONT)
    wait_for(lambda: bed.testbed.state(first) == "S")
    bed.testbed.signal(first, signal.SIGSTOP)
    bed.testbed.signal(first, signal.SIGKILL)  # also one that is stopped
    wait_for(lambda: bed.testbed.exited(first) is not None)
    end = bed.testbed.exited(first)
    assert end is not None
    assert end.code == -signal.SIGKILL
    assert end.at > first.started
    assert bed.testbed.state(first) == "X"
    bed.testbed.signal(first, signal.SIGKILL)  # an ended process is no error

    second = bed.start("zk2")
    assert second.pid != first.pid
    assert second.started > end.at
    wait_for(lambda: bed.testbed.state(second) == "S")
    assert bed.testbed.exited(second) is None
    assert bed.testbed.exited(first) is not None


def test_what_is_cut_while_a_server_is_down_is_cut_when_it_is_back(make_bed: Make) -> None:
    topology = load_topology("dual-net")
    bed = make_bed(topology)
    processes = bed.start_all(topology)
    both, everything = ("net1", "net2"), every_path(topology)

    def restart(host: str, *, meanwhile: Callable[[], object]) -> None:
        bed.testbed.signal(processes[host], signal.SIGKILL)
        wait_for(lambda: bed.testbed.exited(processes[host]) is not None)
        meanwhile()
        processes[host] = bed.start(host)

    restart("zk2", meanwhile=lambda: bed.testbed.set_links([Link("net1", "zk2")], up=False))
    without_cable = {path for path in everything if not (path[2] == "net1" and "zk2" in path[:2])}
    assert bed.answering(*both) == without_cable
    restart("zk2", meanwhile=lambda: None)
    assert bed.answering(*both) == without_cable
    restart("zk2", meanwhile=lambda: bed.testbed.set_links([Link("net1", "zk2")], up=True))
    wait_for(lambda: bed.answering(*both) == everything)

    restart("zk1", meanwhile=lambda: bed.testbed.set_links([Link("net2")], up=False))
    assert bed.answering(*both) == {path for path in everything if path[2] == "net1"}
    bed.testbed.set_links([Link("net2")], up=True)
    wait_for(lambda: bed.answering(*both) == everything)


#: Says that it listens, then tells each who comes who it is; also the one at the other end of its channel.
TELLING = """
import socket
listening = socket.create_server(("10.77.2.101", 2181))
with socket.socket(fileno=3) as channel:
    channel.sendall(b"listening")
while True:
    connection, (address, _port) = listening.accept()
    with connection:
        connection.sendall(address.encode())
"""


def test_processes_and_sockets_stand_on_hosts(make_bed: Make) -> None:
    bed = make_bed(load_topology("dual-net"))
    server = bed.start("zk1")
    python, environment = bed.testbed.python
    telling = bed.testbed.spawn("c1", [python, "-c", TELLING], environment, bed.root / "telling", channel=True)
    assert telling.channel is not None
    with telling.channel as channel:
        channel.settimeout(20)
        assert channel.recv(100) == b"listening"
    for host, address in (("zk1", b"10.77.2.1"), ("c1", b"10.77.2.101")):
        assert bed.receive(host, ("10.77.2.101", 2181)) == address

    assert bed.fails("c1", ("10.77.1.1", 2181)) < 1.0  # it is there, and nobody listens
    assert bed.fails("c1", ("10.99.0.1", 2181)) < 1.0  # there is no way out
    assert bed.fails("zk3", ("10.77.2.101", 2182)) < 1.0  # from a server that has never been up
    with socket.socket() as outside, pytest.raises(OSError, match="assign requested address"):
        outside.bind(("10.77.2.1", 0))  # this process itself stands where it stood before

    bed.testbed.signal(server, signal.SIGKILL)
    wait_for(lambda: bed.testbed.exited(server) is not None)
    assert bed.fails("zk1", ("10.77.2.101", 2182)) < 1.0
    # the one difference that there is, and it is told
    took = bed.fails("c1", ("10.77.1.1", 2181))
    assert (took < 1.0) == (bed.kind == "namespaces"), f"{took:.2f} s"
    assert bed.testbed.exited(telling) is None
    differs = {offer.kind for offer in offers(bed.kind) if any("gets no answer" in text for text in offer.differs)}
    assert (differs >= {"kill", "restart"}) if bed.kind != "namespaces" else (differs == set())


def test_what_does_not_exist_is_refused_by_name_and_what_is_gone_says_so(make_bed: Make) -> None:
    bed = make_bed(load_topology("single-net"))
    with pytest.raises(TestbedError, match="no such host") as caught:
        bed.testbed.tcp_socket("zk9", ("127.0.0.1", 2181))
    assert caught.value.where == "zk9"
    for link in (Link("net7"), Link("net1", "zk9")):
        with pytest.raises(TestbedError, match="no such link"):
            bed.testbed.set_links([link], up=False)
    assert bed.answering("net1") == set() or bed.kind == "namespaces"
    bed.start("zk1")
    assert {("zk1", "c1", "net1"), ("c1", "zk1", "net1")} <= bed.answering("net1")  # and it works on
    bed.testbed.close()
    bed.testbed.close()
    with pytest.raises(TestbedError, match="agent ended"):
        bed.testbed.link_states()

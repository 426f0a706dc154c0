"""Links that flap, switches in islands, NICs that are down: on real kernels, on every testbed, alone and overlapping.

No server runs here: hosts are what matters, and on Docker they are containers that do nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import docker
import pytest

from harness.errors import TestbedError
from harness.history.folder import RunFolder
from harness.history.records import Event, ProbeEvent
from harness.nemesis.nemesis import Nemesis
from harness.stage.make import TESTBEDS, make_stage
from harness.testbed.handles import Link, Process
from harness.testbed.reaper import BOUND
from harness.testbed.turns import turn
from harness.testbed.wire import Split
from harness.topology.loader import load_topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter
from tests.integration.command_line import end, wait_until_gone
from tests.integration.conftest import command, require
from tests.integration.engine_things import Things
from tests.integration.foreign import Fault, Project, is_whole
from tests.integration.foreign import wait_for as wait_within
from tests.integration.test_testbed_parity import Bed, every_path, wait_for

TOPOLOGY = load_topology("dual-net")
BOTH = TOPOLOGY.switch_names
EVERYTHING = every_path(TOPOLOGY)
HOSTS = [host.host for host in TOPOLOGY.hosts]


#: The helper does on an engine what the agent does, and other tests show that of less.
PLACES = [pytest.param(kind, marks=[pytest.mark.long] if kind == "docker-helper" else []) for kind in TESTBEDS]


@pytest.fixture(scope="module", params=PLACES)
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A testbed with all its hosts."""
    kind, root, image = str(request.param), tmp_path_factory.mktemp("links"), ""
    with ExitStack() as stack:
        if kind == "namespaces":
            request.getfixturevalue("namespaces_allowed")
            request.getfixturevalue("java")
        else:
            engine: docker.DockerClient = request.getfixturevalue("engine")
            request.getfixturevalue("engine_images")
            stack.enter_context(turn(engine))
            things = Things(engine)
            stack.callback(things.clear)
            image = things.image
        stage = stack.enter_context(closing(make_stage(kind, TOPOLOGY, root / "run")))
        made = Bed(kind, stage, root, image)
        PROCESSES[kind] = made.start_all(TOPOLOGY)
        yield made


#: What runs on the servers' hosts, by the kind of testbed.
PROCESSES: dict[str, dict[str, Process]] = {}


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def nemesis(bed: Bed, events: list[Event], tmp_path: Path) -> Iterator[Nemesis]:
    """One that has no servers to break, and needs none; everything is whole afterwards."""
    ensemble = Ensemble(bed.testbed, TOPOLOGY, RunFolder(tmp_path), JvmStarter(bed.testbed, {}), events.append)
    made = Nemesis(ensemble, events.append, seed=0)
    yield made
    made.heal_all()
    assert_whole(bed)


def assert_whole(bed: Bed) -> None:
    wait_for(lambda: bed.answering(*BOTH) == EVERYTHING)
    assert all(state.up for state in bed.testbed.link_states())
    assert all(state.up and state.carrier for state in bed.testbed.nic_states(BOTH))


def losses(bed: Bed) -> dict[tuple[str, str], int]:
    return {(nic.host, nic.switch): nic.losses for nic in bed.testbed.nic_states(BOTH)}


def needed(bed: Bed) -> None:
    """Skip where the kernel has no filters for bridges."""
    if why := bed.testbed.lacking().get("bridge"):
        require("nftables", f"this kernel has no nftables for bridges: {why}")


FAULTS = [
    ("switch-flap", "net1:200ms"),
    ("switch-flap", "net2:300ms/700ms"),
    ("link-flap", "zk2:net1:500ms"),
    ("link-flap", "c1:net2:100ms/900ms"),
    ("switch-split", "net1:zk1,c1 | zk2,zk3"),
    ("switch-split", "net2:zk1 | zk2 | zk3 | c1"),
    ("switch-split", "net1:zk1 | others"),
    ("nic-down", "zk2:net1"),
    ("nic-down", "c1:net2"),
]


@pytest.mark.parametrize(("kind", "target"), FAULTS)
def test_a_fault_is_proved_and_gone_afterwards(
    bed: Bed, nemesis: Nemesis, events: list[Event], kind: str, target: str
) -> None:
    if kind == "switch-split":
        needed(bed)
    with nemesis.fault(kind, target):
        pass
    probes = [event for event in events if isinstance(event, ProbeEvent)]
    assert [probe.bites for probe in probes if probe.stage in ("before", "after")] == [False, False]
    assert probes[-2].bites is True
    assert probes[-2].measurements


def test_who_hangs_on_a_flapping_link_loses_the_carrier_and_nobody_else(bed: Bed, nemesis: Nemesis) -> None:
    before = losses(bed)
    with nemesis.fault("switch-flap", "net1:300ms"), nemesis.fault("link-flap", "zk2:net2:200ms"):
        pass
    after = losses(bed)
    for host, switch in before:
        lost = after[host, switch] - before[host, switch]
        assert (lost >= 2) == (switch == "net1" or host == "zk2"), f"{host}:{switch} {lost}"
    time.sleep(0.7)
    assert losses(bed) == after


def test_a_flapping_switch_keeps_its_time(bed: Bed, nemesis: Nemesis) -> None:
    """Over two seconds the kernel counts as many deaths as the rhythm says, give or take a late turn."""
    with nemesis.fault("switch-flap", "net2:100ms/150ms"):
        before, began = losses(bed), time.monotonic()
        time.sleep(2.0)
        after, took = losses(bed), time.monotonic() - began
    for nic in (("zk1", "net2"), ("c1", "net2")):
        assert 0.5 * took / 0.25 < after[nic] - before[nic] <= took / 0.25 + 1


def test_an_island_hears_nothing_of_another_and_all_of_itself(bed: Bed) -> None:
    """Neither by datagrams nor by broadcasts, which ask for hardware addresses; and the other network is whole."""
    needed(bed)
    islands = (("zk1", "c1"), ("zk2", "zk3"))
    left = {p for p in EVERYTHING if p[2] == "net2" or any(p[0] in island and p[1] in island for island in islands)}
    started, ended = bed.testbed.set_splits([Split("net1", islands)])
    assert 0 < ended - started < 1_000_000_000
    try:
        assert bed.answering(*BOTH) == left
        assert heard(bed) == left
        both = [Split("net1", islands), Split("net1", (("zk1", "zk2"), ("zk3", "c1"))), Split("net2", (("c1",), ()))]
        bed.testbed.set_splits(both)
        assert heard(bed) == {p for p in EVERYTHING if p[2] == "net2" and "c1" not in p}
        assert all(state.up for state in bed.testbed.link_states())
    finally:
        bed.testbed.set_splits([])
    assert heard(bed) == EVERYTHING
    assert_whole(bed)


def heard(bed: Bed) -> set[tuple[str, str, str]]:
    paths = bed.testbed.reach(BOTH, timeout_ms=150, broadcast=True)
    return {(p.source, p.destination, p.switch) for p in paths if p.micros is not None}


def test_a_host_knows_of_a_nic_that_is_down_and_not_of_a_cable_that_is_cut(bed: Bed) -> None:
    nic = Link("net1", "zk2")
    for cut, down, error in ((True, False, ""), (False, True, "ENETUNREACH"), (True, True, "ENETUNREACH")):
        bed.testbed.set_links([nic], up=not cut)
        bed.testbed.set_nics([nic], up=not down)
        for broadcast in (False, True):
            paths = bed.testbed.reach(["net1"], timeout_ms=100, broadcast=broadcast)
            assert {p.error for p in paths if p.source == "zk2"} == {error}
            assert {p.error for p in paths if p.source != "zk2"} == {""}
            assert {p.micros for p in paths if "zk2" in (p.source, p.destination)} == {None}
        (state,) = [s for s in bed.testbed.nic_states(["net1"]) if s.host == "zk2"]
        assert (state.up, state.carrier) == (not down, False)
    for _twice in range(2):
        bed.testbed.set_nics([nic], up=True)
    assert [s.carrier for s in bed.testbed.nic_states(["net1"]) if s.host == "zk2"] == [False]
    bed.testbed.set_links([nic], up=True)
    assert_whole(bed)


OVERLAPS = [
    [("nic-down", "zk2:net1"), ("link-down", "zk2:net1"), ("switch-down", "net1")],
    [("switch-down", "net1"), ("link-down", "zk2:net1"), ("nic-down", "zk2:net1")],
    [("nic-down", "zk2:net1"), ("nic-down", "zk3:net1"), ("link-down", "zk2:net2")],
    [("switch-split", "net1:zk1 | others"), ("nic-down", "zk2:net1"), ("switch-split", "net1:zk1,zk2 | others")],
    [("switch-flap", "net1:200ms"), ("switch-split", "net1:zk2,c1 | others"), ("nic-down", "zk1:net1")],
    [("switch-flap", "net1:200ms"), ("link-down", "zk1:net1"), ("link-flap", "zk1:net1:300ms")],
    [("switch-split", "net1:zk2,c1 | others"), ("switch-down", "net1"), ("link-flap", "zk1:net1:300ms")],
    [("switch-flap", "net1:300ms"), ("switch-flap", "net2:200ms"), ("switch-down", "net2")],
]


@pytest.mark.parametrize("faults", OVERLAPS)
def test_faults_that_overlap_are_each_proved_and_healed(
    bed: Bed, nemesis: Nemesis, faults: list[tuple[str, str]]
) -> None:
    """Each in the middle of the others, and whoever goes first leaves the others as they are."""
    needed(bed)
    with ExitStack() as stack:
        for kind, target in faults:
            stack.enter_context(nemesis.fault(kind, target))
    assert_whole(bed)
    first, second, third = (nemesis.fault(kind, target) for kind, target in faults)
    entered = [each.__enter__() for each in (first, second, third)]
    assert len(entered) == 3
    for each in (first, third, second):
        each.__exit__(None, None, None)


def restart(bed: Bed, host: str, *, meanwhile: Callable[[], object]) -> None:
    processes = PROCESSES[bed.kind]
    bed.testbed.signal(processes[host], signal.SIGKILL)
    wait_for(lambda: bed.testbed.exited(processes[host]) is not None)
    meanwhile()
    processes[host] = bed.start(host)


def test_what_is_down_or_parted_is_so_for_a_host_that_comes_back(bed: Bed) -> None:
    needed(bed)
    nic, split = Link("net1", "zk2"), Split("net2", (("zk2",), ("zk1", "zk3", "c1")))
    without = {p for p in EVERYTHING if "zk2" not in p[:2]}
    try:
        bed.testbed.set_nics([nic], up=False)
        restart(bed, "zk2", meanwhile=lambda: bed.testbed.set_splits([split]))
        assert bed.answering(*BOTH) == without
        restart(bed, "zk2", meanwhile=lambda: None)
        assert bed.answering(*BOTH) == without
    finally:
        restart(bed, "zk2", meanwhile=lambda: (bed.testbed.set_nics([nic], up=True), bed.testbed.set_splits([])))
    assert_whole(bed)


def test_what_does_not_exist_is_refused_by_name(bed: Bed) -> None:
    with pytest.raises(TestbedError, match="no such NIC") as caught:
        bed.testbed.set_nics([Link("net1", "zk9")], up=False)
    assert caught.value.where == "zk9:net1"
    with pytest.raises(TestbedError, match="no such NIC"):
        bed.testbed.set_splits([Split("net1", (("zk1",), ("zk9",)))])
    assert_whole(bed)


#: A NIC with all that an engine or a user may have given it is set down and up again, and looked at before and after.
WITH_ROUTES = """
import subprocess, sys, time
from pyroute2 import IPRoute
from harness.testbed.nics import HostNic

def ip(words):
    return subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout

for words in (
    "link set lo up", "link add eth0 type veth peer name eth1", "link set eth1 up",
    "addr add 10.5.0.2/16 dev eth0", "addr add 10.6.0.2/24 dev eth0", "addr add fd00::2/64 dev eth0 nodad",
    "link set eth0 up", "route add default via 10.5.0.1 metric 7 mtu 1300", "route add 10.11.0.0/16 dev eth0",
    "route add 10.9.0.0/16 via 10.5.0.9 src 10.5.0.2 table 77", "-6 route add default via fd00::1",
    "-6 route add fd99::/64 dev eth0 metric 5",
):
    ip(words)

def sight():
    looks = ("-o addr show dev eth0", "route show table all dev eth0", "-6 route show table all dev eth0")
    return sorted(line.strip() for look in looks for line in ip(look).splitlines())

def settled():
    deadline = time.monotonic() + 10
    while "tentative" in (text := "\\n".join(sight())) or "scope link" not in text or "fe80" not in text:
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text

before = settled()
with IPRoute() as netlink:
    nic = HostNic(netlink.link_lookup(ifname="eth0")[0])
    for _twice in range(2):
        nic.set(netlink, up=False)
    assert "default" not in "\\n".join(sight())
    for _twice in range(2):
        nic.set(netlink, up=True)
assert settled() == before, "\\n".join(["before", before, "after", settled()])
"""


def test_a_nic_that_was_down_has_its_addresses_and_routes_again(namespaces_allowed: None) -> None:
    command("ip")
    in_own_namespace(WITH_ROUTES)


def in_own_namespace(program: str, *arguments: str) -> list[str]:
    """The lines that a program prints that stands in a network namespace of its own, with all rights there."""
    ran = subprocess.run(
        [command("unshare"), "--user", "--map-root-user", "--net", sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


#: A bridge that outlives the agent, with a container: what is left of it when an ending, or the container's own, comes
#: between the death of the switch and that of its ports. Prints who is up: the bridge, and the container's port.
OUTLIVING = """
import os, subprocess, sys, threading, time
from harness.testbed import wire
from harness.testbed.network import Network
from harness.testbed.spaces import Surroundings

def ip(words):
    return subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout

def up():
    lines = [ip(f"-o link show dev {name}") for name in ("br0", "port")]
    return " ".join("up" if ",UP" in line or "<UP" in line else "down" for line in lines)

def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

container = subprocess.Popen(["unshare", "--net", "sleep", "60"])
try:
    wait_for(lambda: os.readlink(f"/proc/{container.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
    ip("link add br0 type bridge")
    ip("link set br0 up")
    ip(f"link add port type veth peer name eth0 netns {container.pid}")
    ip("link set port master br0 up")
    inside = ["nsenter", "--target", str(container.pid), "--net", "ip"]
    for words in ("addr add 10.5.0.2/24 dev eth0", "link set eth0 up"):
        subprocess.run([*inside, *words.split()], check=True)
    network = Network(Surroundings.now())
    addresses = (("zk1", "10.5.0.2"), ("c1", "10.5.0.3"))
    hosts = tuple(wire.HostSpec(n, (wire.NicSpec("net1", a, 24),), n == "zk1") for n, a in addresses)
    network.build(wire.Build(("net1",), hosts, wire.EngineSpec({"net1": "br0"}, None, "t")))
    network.join("zk1", container.pid)
    dead, alive = ((wire.LinkChange("net1", None, is_up),) for is_up in (False, True))
    for _twice in range(2):
        network.set_links(dead)
        print("answered:", up())
        network.settle()
        network.settle()
        print("settled:", up())
        network.set_links(alive)
        network.settle()
        print("healed:", up())
    network.set_links(dead)
    if sys.argv[1] == "ends":
        network.restore()
        network.settle()
        print("restored:", up())
    elif sys.argv[1] == "ends meanwhile":
        ending = threading.Thread(target=network.restore)
        ending.start()
        network.settle()
        ending.join()
        print("restored:", up())
    else:
        container.kill()
        container.wait()
        ip("link del port")
        network.settle()
        network.leave("zk1")
        print("left:", *(link.up for link in network.looks.links()))
        network.set_links(alive)
        network.settle()
        print("healed:", *(link.up for link in network.looks.links()))
        network.restore()
finally:
    container.kill()
    container.wait()
"""


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("ends", ["restored: up up"]),
        ("ends meanwhile", ["restored: up up"]),
        ("has lost a container", ["left: False False False", "healed: True True True"]),
    ],
)
def test_a_switch_that_died_a_moment_ago_is_given_back_whole(
    namespaces_allowed: None, how: str, end: list[str]
) -> None:
    """Where the bridge is an engine's: also between the answer and what follows it."""
    command("ip")
    command("nsenter")
    once = ["answered: down up", "settled: down down", "healed: up up"]
    assert in_own_namespace(OUTLIVING, how) == [*once, *once, *end]


#: Of containers that outlive whoever breaks them.
OF_STRANGERS = [
    ("nic-down", "zk1:net1", "healed"),
    ("nic-down", "zk1:net1", "killed"),
    ("switch-split", "net1:zk1 | others", "killed"),
    ("switch-flap", "net1:500ms", "killed"),
    ("link-flap", "zk2:net2:200ms/500ms", "killed"),
]


@pytest.mark.parametrize(("kind", "target", "how"), OF_STRANGERS)
def test_somebody_elses_hosts_are_whole_whatever_becomes_of_who_broke_them(
    foreign: Project, own_memory: None, kind: str, target: str, how: str
) -> None:
    """Their routes to the outside too, which a NIC that is set down takes along."""
    wait_within(lambda: is_whole(foreign), 30)
    before = routes(foreign)
    fault = Fault(kind, target, "--for", "1s" if how == "healed" else "60s", "--on", foreign.name)
    try:
        fault.wait_until_it_bites()
        if how == "healed":
            _out, complaint = fault.process.communicate(timeout=60)
            assert fault.process.returncode == 0, complaint
        else:
            assert kind != "nic-down" or routes(foreign) != before
    finally:
        end(fault.process)
    wait_within(lambda: is_whole(foreign), BOUND)
    wait_within(lambda: routes(foreign) == before, BOUND)
    wait_until_gone(fault.marker, 2 * BOUND)


def routes(project: Project) -> dict[str, list[str]]:
    """What each container's kernel knows of the ways out, as long as it runs."""
    found: dict[str, list[str]] = {}
    for container in project.containers():
        pid = int(container.attrs["State"]["Pid"])
        if pid:
            found[str(container.name)] = sorted(Path(f"/proc/{pid}/net/route").read_text(encoding="ascii").splitlines())
    return found

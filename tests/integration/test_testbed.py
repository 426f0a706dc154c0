"""The namespaces testbed: the wire is really cut, processes really stop, sockets really stand elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from harness.errors import TestbedError
from harness.testbed.handles import Link, wait_until_connected
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from harness.topology.model import ClientHost, Nic, Topology
from tests.integration.conftest import command

Make = Callable[[Topology], NamespacesTestbed]
ENV = {"PATH": os.environ["PATH"]}


def answering(testbed: NamespacesTestbed, *switches: str) -> set[tuple[str, str, str]]:
    """Source, destination and switch of each datagram that arrived."""
    paths = testbed.reach(switches, timeout_ms=150)
    return {(p.source, p.destination, p.switch) for p in paths if p.micros is not None}


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["single-net", "dual-net", "dual-net-five", "uneven-addresses"])
def test_every_nic_reaches_every_other_of_its_switch(make_testbed: Make, name: str) -> None:
    topology = load_topology(name)
    testbed = make_testbed(topology)
    expected = {
        (a.host, b.host, a.switch)
        for a in topology.nics()
        for b in topology.nics()
        if a.switch == b.switch and a.host != b.host
    }
    assert answering(testbed, *topology.switch_names) == expected


def test_a_dead_switch_is_dead_for_all_and_the_other_is_untouched(make_testbed: Make) -> None:
    testbed = make_testbed(load_topology("dual-net"))
    before = answering(testbed, "net1", "net2")
    testbed.set_links([Link("net1")], up=False)
    assert answering(testbed, "net1", "net2") == {path for path in before if path[2] == "net2"}
    testbed.set_links([Link("net1")], up=True)
    wait_for(lambda: answering(testbed, "net1", "net2") == before)


def test_a_cut_cable_takes_one_host_off_one_switch(make_testbed: Make) -> None:
    testbed = make_testbed(load_topology("dual-net"))
    before = answering(testbed, "net1", "net2")
    testbed.set_links([Link("net1", "zk2")], up=False)
    assert answering(testbed, "net1", "net2") == {p for p in before if not (p[2] == "net1" and "zk2" in p[:2])}
    testbed.set_links([Link("net1", "zk2")], up=True)
    wait_for(lambda: answering(testbed, "net1", "net2") == before)


def test_a_switch_comes_back_without_the_cables_that_stay_cut(make_testbed: Make) -> None:
    testbed = make_testbed(load_topology("dual-net"))
    testbed.set_links([Link("net1"), Link("net2", "zk3")], up=False)
    testbed.set_links([Link("net1")], up=True, but=[Link("net1", "zk2"), Link("net2", "zk3")])
    assert {(s.switch, s.host) for s in testbed.link_states() if not s.up} == {("net1", "zk2"), ("net2", "zk3")}


def test_cutting_and_restoring_twice_is_the_same_as_once(make_testbed: Make) -> None:
    testbed = make_testbed(load_topology("single-net"))
    before = testbed.link_states()
    for up in (False, False, True, True):
        testbed.set_links([Link("net1")], up=up)
        assert all(state.up is up for state in testbed.link_states())
    assert testbed.link_states() == before


def test_a_batch_changes_many_nics_within_milliseconds(make_testbed: Make) -> None:
    testbed = make_testbed(load_topology("dual-net-five"))
    started, ended = testbed.set_links([Link("net1"), Link("net2", "zk1"), Link("net2", "zk3")], up=False)
    assert 0 < ended - started < 1_000_000_000
    assert sum(not state.up for state in testbed.link_states()) == 1 + 6 + 2


#: Says what time it is (CLOCK_MONOTONIC, nanoseconds) to an address, as often as it can, and writes down when.
SPEAKER = """
import socket, struct, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as saying, open(sys.argv[1], "wb") as said:
    saying.setblocking(False)
    while True:
        now = struct.pack("=q", time.monotonic_ns())
        try:
            saying.sendto(now, (sys.argv[2], 7000))
        except OSError:
            pass
        said.write(now)
"""
#: Writes down what is said to it, and when it heard that.
LISTENER = """
import socket, struct, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearing, open(sys.argv[1], "wb") as heard:
    hearing.bind((sys.argv[2], 7000))
    while True:
        heard.write(hearing.recv(8) + struct.pack("=q", time.monotonic_ns()))
"""


def stamps(path: Path) -> array[int]:
    """What a speaker or a listener has written so far."""
    found = array("q")
    data = path.read_bytes()
    found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return found


def is_newer(path: Path, than: int) -> bool:
    """Whether the last of them is."""
    size = path.stat().st_size // 8 * 8 if path.exists() else 0
    if not size:
        return False
    with path.open("rb") as written:
        written.seek(size - 8)
        return int.from_bytes(written.read(8), sys.byteorder) > than


def many_hosts(count: int) -> Topology:
    """So many client hosts on one switch; more than a file may declare."""
    clients = tuple(
        ClientHost(f"h{n}", (Nic(f"h{n}", "net1", IPv4Address(f"10.77.1.{n}"), 24),)) for n in range(1, count + 1)
    )
    return replace(load_topology("single-net"), servers=(), client_hosts=clients)


def test_nothing_passes_a_switch_from_the_answer_on_and_its_ports_lose_their_carrier(
    make_testbed: Make, tmp_path: Path
) -> None:
    """Its last ports lose it milliseconds later; what was sent by then over these very ports does not arrive."""
    testbed = make_testbed(many_hosts(50))
    said, heard, last = tmp_path / "said", tmp_path / "heard", "10.77.1.50"
    testbed.spawn("h50", [sys.executable, "-c", LISTENER, str(heard), last], ENV, tmp_path / "listener")
    testbed.spawn("h49", [sys.executable, "-c", SPEAKER, str(said), last], ENV, tmp_path / "speaker")
    silences = []
    for _death in range(3):
        passing = time.monotonic_ns()
        wait_for(partial(is_newer, heard, passing))
        before = {nic.host: nic.losses for nic in testbed.nic_states(["net1"])}
        testbed.set_links([Link("net1")], up=False)
        answered = time.monotonic_ns()
        after = testbed.nic_states(["net1"])
        assert {(nic.carrier, nic.losses - before[nic.host]) for nic in after} == {(False, 1)}
        wait_for(partial(is_newer, said, answered))
        silences.append((passing, answered, time.monotonic_ns()))
        testbed.set_links([Link("net1")], up=True)
    wait_for(partial(is_newer, heard, silences[-1][2]))
    sent, told = stamps(said), stamps(heard)
    arrived = list(zip(told[::2], told[1::2], strict=False))
    for passing, answered, end in silences:
        assert any(passing < at < answered for at, _heard in arrived)
        assert any(answered < at < end for at in sent)
        # what waits for a hardware address is sent when the switch is back
        late = [(at - answered) / 1e6 for at, then in arrived if answered < at and then < end]
        assert late == [], f"sent after the answer, and arrived: {late[:10]} ms"


def test_a_port_that_is_gone_when_its_switch_dies_is_told_with_the_next_answer(
    make_testbed: Make, tmp_path: Path
) -> None:
    """And only then: the switch is dead, its other ports have no carrier, and what was asked for meanwhile is done."""
    testbed = make_testbed(load_topology("dual-net"))
    remover = testbed.spawn("zk2", [command("ip"), "link", "del", "net1"], ENV, tmp_path / "o")
    wait_for(lambda: testbed.exited(remover) is not None)
    testbed.set_links([Link("net1")], up=False)
    with pytest.raises(TestbedError, match="the kernel refused: No such device"):
        testbed.set_links([Link("net2", "zk1")], up=False)
    up = {(state.switch, state.host) for state in testbed.link_states() if state.up}
    assert up == {("net2", None), ("net2", "zk2"), ("net2", "zk3"), ("net2", "c1")}


def test_a_process_runs_on_its_host_and_is_paused_and_killed(make_testbed: Make, tmp_path: Path) -> None:
    testbed = make_testbed(load_topology("dual-net"))
    output = tmp_path / "output"
    process = testbed.spawn("zk2", ["/bin/sh", "-c", "cat /proc/net/fib_trie; exec sleep 100"], ENV, output)
    wait_for(lambda: "10.77.1.2" in output.read_text() and testbed.state(process) == "S")
    assert "10.77.2.2" in output.read_text()
    assert "10.77.1.1" not in output.read_text()
    testbed.signal(process, signal.SIGSTOP)
    wait_for(lambda: testbed.state(process) == "T")
    testbed.signal(process, signal.SIGCONT)
    wait_for(lambda: testbed.state(process) == "S")
    assert testbed.exited(process) is None
    testbed.signal(process, signal.SIGKILL)
    wait_for(lambda: testbed.exited(process) is not None)
    end = testbed.exited(process)
    assert end is not None
    assert end.code == -signal.SIGKILL
    assert end.at > process.started
    testbed.signal(process, signal.SIGKILL)  # an ended process is no error


def test_a_channel_connects_a_process_with_its_caller(make_testbed: Make, tmp_path: Path) -> None:
    testbed = make_testbed(load_topology("single-net"))
    process = testbed.spawn(
        "c1", ["/bin/sh", "-c", "read word <&3; echo got $word >&3"], ENV, tmp_path / "o", channel=True
    )
    assert process.channel is not None
    with process.channel as channel:
        channel.settimeout(5)
        channel.sendall(b"hello\n")
        assert channel.recv(100) == b"got hello\n"


def test_a_socket_of_this_process_stands_on_a_client_host(make_testbed: Make, tmp_path: Path) -> None:
    testbed = make_testbed(load_topology("dual-net"))
    tell = "import socket; s = socket.create_server(('10.77.2.1', 2181)); print('listening', flush=True); "
    tell += "c, (address, _) = s.accept(); c.sendall(address.encode()); c.close()"
    testbed.spawn("zk1", [sys.executable, "-c", tell], ENV, tmp_path / "o")
    wait_for(lambda: "listening" in (tmp_path / "o").read_text())
    with testbed.tcp_socket("c1", ("10.77.2.1", 2181)) as client:
        wait_until_connected(client, 5.0)
        assert client.recv(100) == b"10.77.2.101"
    with testbed.tcp_socket("c1", ("10.77.2.1", 2182)) as client, pytest.raises(ConnectionRefusedError):
        wait_until_connected(client, 5.0)
    with testbed.tcp_socket("c1", ("10.99.0.1", 2182)) as client, pytest.raises(OSError, match="not connected"):
        wait_until_connected(client, 5.0)
    with socket.socket() as outside:
        outside.settimeout(0.2)
        with pytest.raises(OSError, match="assign requested address"):
            outside.bind(("10.77.2.1", 0))  # this process itself stands where it stood before


def test_what_does_not_exist_is_refused_by_name(make_testbed: Make, tmp_path: Path) -> None:
    testbed = make_testbed(load_topology("single-net"))
    with pytest.raises(TestbedError, match="no such host") as caught:
        testbed.tcp_socket("zk9", ("127.0.0.1", 2181))
    assert caught.value.where == "zk9"
    with pytest.raises(TestbedError, match="no such link"):
        testbed.set_links([Link("net7")], up=False)
    with pytest.raises(TestbedError, match="cannot start"):
        testbed.spawn("zk1", ["/no/such/program"], ENV, tmp_path / "o")
    assert len(answering(testbed, "net1")) == 12  # and it works on


def test_a_testbed_that_is_gone_says_so(make_testbed: Make) -> None:
    testbed = make_testbed(load_topology("single-net"))
    testbed.close()
    testbed.close()
    with pytest.raises(TestbedError, match="agent ended"):
        testbed.link_states()

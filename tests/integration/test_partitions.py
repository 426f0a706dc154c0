"""Partitions on a real kernel: dropped and refused, by address and by port; each is proved, and gone afterwards.

They are made of nftables in the switches, and of nftables or ip_tables in the hosts; `zkchaos usermode -- pytest
tests/integration/test_partitions.py` shows the same in a kernel that has other parts of both.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.history.folder import RunFolder
from harness.history.records import Event, ProbeEvent
from harness.nemesis.nemesis import Nemesis
from harness.testbed.namespaces import NamespacesTestbed
from harness.testbed.wire import Manner, Rule
from harness.topology.loader import load_topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter

TOPOLOGY = load_topology("dual-net")
QUORUM_PORT = 2888
LISTENER = """
import socket
with socket.create_server(("", 2888)) as listening:
    while True:
        listening.accept()[0].close()
"""


@pytest.fixture(scope="module")
def testbed(namespaces_allowed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamespacesTestbed]:
    """Hosts on each of which somebody listens on the quorum port."""
    made = NamespacesTestbed(TOPOLOGY)
    for server in TOPOLOGY.servers:
        output = tmp_path_factory.mktemp("listeners") / "output"
        made.spawn(server.host, [sys.executable, "-c", LISTENER], {}, output)
        deadline = time.monotonic() + 10
        while knock(made, server.host, "127.0.0.1") != "accepted":
            assert time.monotonic() < deadline, output.read_text()
    yield made
    made.close()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def nemesis(testbed: NamespacesTestbed, events: list[Event], tmp_path: Path) -> Iterator[Nemesis]:
    ensemble = Ensemble(testbed, TOPOLOGY, RunFolder(tmp_path), JvmStarter(testbed, {}), events.append)
    made = Nemesis(ensemble, events.append, seed=0)
    yield made
    made.heal_all()


def knock(testbed: NamespacesTestbed, host: str, address: str) -> str:
    """What a connection to the quorum port comes to within a fifth of a second."""
    with testbed.tcp_socket(host, (address, QUORUM_PORT)) as connecting:
        poller = select.poll()
        poller.register(connecting, select.POLLOUT)
        if not poller.poll(200):
            return "silent"
        problem = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            connecting.getpeername()
        except OSError:
            problem = problem or errno.ECONNREFUSED
        return errno.errorcode[problem] if problem else "accepted"


@pytest.mark.parametrize(
    "target",
    [
        "zk1 | zk2,zk3",
        "zk1 | zk2,zk3 over net1",
        "zk1 > zk2,zk3",
        "zk2 > zk1 over net2",
        "zk1,zk2 > zk3; zk3 > zk1",
        "zk1 | zk2,zk3 rejected",
        "zk1 > zk2 over net1 rejected",
        "zk1,zk2,zk3 > zk1,zk2,zk3 over net1 port quorum",
        "zk1 | zk2 port quorum rejected",
        "zk1 > c1",
    ],
)
def test_a_partition_is_proved_and_gone_afterwards(nemesis: Nemesis, events: list[Event], target: str) -> None:
    with nemesis.fault("partition", target):
        pass
    probes = [event for event in events if isinstance(event, ProbeEvent)]
    assert [p.bites for p in probes if p.stage in ("before", "after")] == [False, False]
    assert probes[-2].bites is True


def test_silence_and_refusal_are_not_the_same(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    with nemesis.fault("partition", "zk1 > zk2 over net1"):
        assert knock(testbed, "zk1", "10.77.1.2") == "silent"
        assert knock(testbed, "zk1", "10.77.2.2") == "accepted"
    with nemesis.fault("partition", "zk1 > zk2 over net1 rejected"):
        assert knock(testbed, "zk1", "10.77.1.2") == "ECONNREFUSED"
        assert knock(testbed, "zk1", "10.77.2.2") == "accepted"
        assert knock(testbed, "zk3", "10.77.1.2") == "accepted"
    assert knock(testbed, "zk1", "10.77.1.2") == "accepted"


def test_both_of_two_that_refuse_each_other_hear_of_it(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    with nemesis.fault("partition", "zk1 | zk2 over net1 rejected"):
        assert knock(testbed, "zk1", "10.77.1.2") == "ECONNREFUSED"
        assert knock(testbed, "zk2", "10.77.1.1") == "ECONNREFUSED"


def test_a_port_is_blocked_and_everything_else_passes(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    with nemesis.fault("partition", "zk1 > zk2 over net1 port quorum"):
        assert knock(testbed, "zk1", "10.77.1.2") == "silent"
        assert all(path.micros is not None for path in testbed.reach(["net1", "net2"], timeout_ms=200))
    with nemesis.fault("partition", "zk1 > zk2 over net1 port quorum rejected"):
        assert knock(testbed, "zk1", "10.77.1.2") == "ECONNREFUSED"
        assert all(path.micros is not None for path in testbed.reach(["net1", "net2"], timeout_ms=200))


def test_partitions_overlap(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    with nemesis.fault("partition", "zk1 > zk2 rejected"):
        with nemesis.fault("partition", "zk1 | zk2 over net1"), nemesis.fault("partition", "zk1 > zk3 port quorum"):
            assert knock(testbed, "zk1", "10.77.1.2") == "silent"
            assert knock(testbed, "zk1", "10.77.2.2") == "ECONNREFUSED"
            assert knock(testbed, "zk1", "10.77.1.3") == "silent"
        assert knock(testbed, "zk1", "10.77.1.2") == "ECONNREFUSED"
        assert knock(testbed, "zk1", "10.77.1.3") == "accepted"


def test_thousands_of_rules_are_one_batch(testbed: NamespacesTestbed) -> None:
    """More than one message takes; all but one of them of hosts that do not exist."""
    strangers = [Rule("zk2", f"10.99.{i // 250}.{i % 250}", Manner.DROP) for i in range(5000)]
    testbed.set_rules([*strangers, Rule("zk2", "10.77.1.1", Manner.DROP)])
    assert knock(testbed, "zk1", "10.77.1.2") == "silent"
    assert knock(testbed, "zk3", "10.77.1.2") == "accepted"
    testbed.set_rules([])
    assert knock(testbed, "zk1", "10.77.1.2") == "accepted"

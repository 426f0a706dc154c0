"""Faults of packets on a real kernel: each is made, measured on the wire, undone, and measured again.

Delay and most others are made of sch_netem. Where this kernel has none, those tests are skipped; they run with
`zkchaos usermode -- pytest tests/integration/test_packets.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import FaultError, KernelLacking, TestbedError
from harness.history.folder import RunFolder
from harness.history.records import Event, ProbeEvent
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.packets import parse
from harness.nemesis.packets_fault import refuse_lacking
from harness.nemesis.trials import bounds
from harness.testbed.namespaces import NamespacesTestbed
from harness.testbed.wire import Effects, Shape, Side, Train
from harness.topology.loader import load_topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter
from tests.integration.conftest import require

TOPOLOGY = load_topology("dual-net")
#: What every kernel does.
EVERYWHERE = [
    "rate 1mbit on net1",
    "rate 100kbit on zk2:net1 out",
    "rate 20mbit on zk1",
    "rate 2mbit on zk1 > zk2 over net2",
    "loss 10% on net1",
    "loss 1% on zk2:net2 in",
    "loss 50% on zk1 > zk2 over net1",
    "loss 100% on zk3:net1 out",
]
#: What takes netem.
NETEM = [
    "delay 1ms on net1",
    "delay 200ms on net1",
    "delay 500ms on zk1 > zk2,zk3",
    "delay 50ms jitter 20ms on zk1:net2",
    "delay 50ms jitter 10ms normal on zk1",
    "delay 50ms jitter 10ms pareto on net1,net2",
    "delay 50ms jitter 10ms paretonormal on zk2:net1 in",
    "delay 50ms jitter 20ms correlated 50% on net2",
    "loss 10% in bursts of 5 on net1",
    "loss gilbert-elliott 5% 25% 80% 1% on net1",
    "duplicate 5% on net1",
    "corrupt 2% on zk2",
    "delay 20ms, reorder 25% on net1",
    "loss 10%, rate 2mbit on zk3:net1",
    "delay 30ms, rate 1mbit on zk1:net1",
    "delay 5ms, loss 5%, duplicate 5%, corrupt 5% on zk1 > zk2 over net1",
]


@pytest.fixture(scope="module")
def testbed(namespaces_allowed: None) -> Iterator[NamespacesTestbed]:
    made = NamespacesTestbed(TOPOLOGY)
    yield made
    made.close()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def nemesis(testbed: NamespacesTestbed, events: list[Event], tmp_path: Path) -> Iterator[Nemesis]:
    """One that has no servers to break, and needs none."""
    ensemble = Ensemble(testbed, TOPOLOGY, RunFolder(tmp_path), JvmStarter(testbed, {}), events.append)
    made = Nemesis(ensemble, events.append, seed=0)
    yield made
    made.heal_all()
    testbed.set_shapes([])


def needed(testbed: NamespacesTestbed, target: str) -> None:
    """Skip where the kernel lacks what a fault is made of."""
    try:
        refuse_lacking(parse(target, TOPOLOGY).shapes, testbed.lacking(), target)
    except KernelLacking as lacking:
        require("netem", str(lacking))


@pytest.mark.parametrize("target", [*EVERYWHERE, *NETEM])
def test_a_fault_is_proved_and_gone_afterwards(
    testbed: NamespacesTestbed, nemesis: Nemesis, events: list[Event], target: str
) -> None:
    needed(testbed, target)
    with nemesis.fault("packets", target):
        pass
    probes = [event for event in events if isinstance(event, ProbeEvent)]
    assert [p.bites for p in probes if p.stage in ("before", "after")] == [False, False]
    assert probes[-2].bites is True
    assert probes[-2].measurements


@pytest.mark.parametrize("target", EVERYWHERE[:7])
def test_every_kernel_has_rates_and_loss(testbed: NamespacesTestbed, target: str) -> None:
    lacking = {name: why for name, why in testbed.lacking().items() if name == "netem"}
    refuse_lacking(parse(target, TOPOLOGY).shapes, lacking, target)


def test_faults_that_overlap_add_up(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    needed(testbed, "delay 1ms on net1")
    with nemesis.fault("packets", "delay 40ms on net1"):
        with nemesis.fault("packets", "delay 20ms, loss 20% on zk2"):
            assert median(testbed, "zk1", "zk2") == pytest.approx(60, rel=0.1)
            with nemesis.link_down("zk3", "net1"):
                pass
        assert median(testbed, "zk1", "zk2") == pytest.approx(40, rel=0.1)
    assert median(testbed, "zk1", "zk2") < 10


def test_what_is_cut_is_seen_on_paths_that_lose(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    with (
        nemesis.fault("packets", "loss 20% on net1,net2"),
        nemesis.fault("packets", "rate 2mbit on zk3:net1 out"),
        nemesis.fault("partition", "zk1 > zk2 over net1"),
        nemesis.link_down("zk3", "net2"),
    ):
        pass


def test_losses_that_overlap_are_independent(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    """Of queues and of filters alike: 20 % and then 50 % are 60 %, and each is proved beside the other."""
    with nemesis.fault("packets", "loss 20% on net1"), nemesis.fault("packets", "loss 50% on zk2:net1 in"):
        (train,) = testbed.send_trains([Train("zk1", "zk2", "net1", 4000, 100.0, 64)], timeout_ms=100)
    low, high = bounds(0.6, 4000)
    assert low <= train.micros.count(None) / 4000 <= high


def test_two_rates_of_one_nic_are_refused(nemesis: Nemesis) -> None:
    with (
        nemesis.fault("packets", "rate 1mbit on net1"),
        pytest.raises(FaultError, match="a NIC cannot have rate twice: zk2:net1 in"),
        nemesis.fault("packets", "rate 2mbit on zk2:net1 in"),
    ):
        pass


def test_one_destination_is_slow_and_the_others_are_not(testbed: NamespacesTestbed, nemesis: Nemesis) -> None:
    needed(testbed, "delay 1ms on net1")
    with nemesis.fault("packets", "delay 50ms on zk1 > zk2"):
        assert median(testbed, "zk1", "zk2") == pytest.approx(50, rel=0.1)
        assert median(testbed, "zk1", "zk3") < 10
        assert median(testbed, "zk2", "zk1") < 10


def test_the_same_shapes_twice_are_the_same_as_once(testbed: NamespacesTestbed) -> None:
    shapes = [Shape("zk2", "net1", Side.IN, Effects(rate=1_000_000))]
    for _ in range(3):
        testbed.set_shapes(shapes)
    testbed.set_shapes([*shapes, Shape("zk2", "net1", Side.IN, Effects(rate=500_000), "10.77.1.1")])
    testbed.set_shapes([])
    testbed.set_shapes([])
    (train,) = testbed.send_trains([Train("zk1", "zk2", "net1", 50, 0.0, 1000)], timeout_ms=500)
    assert None not in train.micros
    assert max(m for m in train.micros if m is not None) < 100_000


def test_what_does_not_exist_is_refused_by_name(testbed: NamespacesTestbed) -> None:
    with pytest.raises(TestbedError, match="no such NIC") as caught:
        testbed.set_shapes([Shape("zk9", "net1", Side.IN, Effects(rate=1_000_000))])
    assert caught.value.where == "zk9:net1"
    with pytest.raises(TestbedError, match="no such NIC"):
        testbed.send_trains([Train("zk1", "zk9", "net1", 1, 0.0, 100)], timeout_ms=10)
    with pytest.raises(TestbedError, match="a datagram has from"):
        testbed.send_trains([Train("zk1", "zk2", "net1", 1, 0.0, 100_000)], timeout_ms=10)


def median(testbed: NamespacesTestbed, source: str, destination: str) -> float:
    """One way over the first network, milliseconds."""
    (train,) = testbed.send_trains([Train(source, destination, "net1", 100, 500.0, 64)], timeout_ms=300)
    return statistics.median(micros for micros in train.micros if micros is not None) / 1000

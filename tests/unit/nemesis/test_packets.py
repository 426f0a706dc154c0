"""Faults of packets: what is written, what it becomes at the NICs, and what is refused with which words."""

import math
from collections.abc import Iterator
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import FaultError, KernelLacking, PlanError
from harness.nemesis import packets
from harness.nemesis.effects import lost_in_chain, merge, parse_effects
from harness.nemesis.packets_fault import PacketsFault
from harness.nemesis.plan import check_plan
from harness.nemesis.plan_loader import parse_plan
from harness.nemesis.trials import bounds
from harness.nemesis.world import World
from harness.testbed.wire import Chain, Effects, Manner, Shape, Side, Spread
from harness.topology.loader import load_topology
from tests.unit.memory import MemoryTestbed, memory_ensemble

TOPOLOGY = load_topology("dual-net")
HOSTS = [host.host for host in TOPOLOGY.hosts]


def where(target: str) -> set[tuple[str, str, str, str | None]]:
    shapes = packets.parse(f"loss 1% on {target}", TOPOLOGY).shapes
    return {(s.host, s.switch, s.side.value, s.peer) for s in shapes}


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("delay 200ms", Effects(delay_ms=200)),
        ("delay 1s jitter 10ms", Effects(delay_ms=1000, jitter_ms=10)),
        (
            "delay 50ms jitter 10ms pareto correlated 25%",
            Effects(delay_ms=50, jitter_ms=10, spread=Spread.PARETO, correlation=0.25),
        ),
        ("loss 0.1%", Effects(loss=0.001)),
        ("loss 20% in bursts of 4", Effects(bursts=Chain(0.0625, 0.25))),
        ("loss gilbert-elliott 1% 10% 70% 0%", Effects(bursts=Chain(0.01, 0.1, 0.7, 0.0))),
        ("duplicate 1%, corrupt 2%", Effects(duplicate=0.01, corrupt=0.02)),
        ("delay 10ms, reorder 25%", Effects(delay_ms=10, reorder=0.25)),
        ("rate 2.5mbit", Effects(rate=2_500_000)),
    ],
)
def test_effects_are_read(text: str, effects: Effects) -> None:
    assert parse_effects(text) == effects


@given(st.floats(0.001, 0.6), st.integers(2, 50))
def test_bursts_lose_the_share_that_was_asked_for(share: float, length: int) -> None:
    chain = parse_effects(f"loss {share:.4%} in bursts of {length}").bursts
    assert chain is not None
    assert lost_in_chain(chain) == pytest.approx(share, rel=1e-3)
    assert 1 / chain.to_good == pytest.approx(length)


def test_a_packet_passes_a_switch_once() -> None:
    assert where("net1") == {(host, "net1", "in", None) for host in HOSTS}


def test_a_host_is_meant_in_both_directions_on_all_its_networks() -> None:
    assert where("zk2") == {("zk2", switch, side, None) for switch in ("net1", "net2") for side in ("in", "out")}
    assert where("zk2:net1 in") == {("zk2", "net1", "in", None)}
    assert where("zk1:net1,zk2:net2 out") == {("zk1", "net1", "out", None), ("zk2", "net2", "out", None)}


def test_one_destination_is_told_by_its_address() -> None:
    assert where("zk1 > zk2,zk3 over net2") == {
        ("zk1", "net2", "out", "10.77.2.2"),
        ("zk1", "net2", "out", "10.77.2.3"),
    }


#: What is wrong, and what is said about it.
BROKEN = {
    "delay 5ms": '"delay 5ms" does not say what and where; allowed: EFFECTS on SWITCH, on HOST, '
    "on HOST:SWITCH [in|out], or on HOST > HOST,HOST [over SWITCH], as in delay 200ms on net1",
    "dely 5ms on net1": 'there is no effect "dely 5ms"; did you mean "delay"? '
    'allowed: "delay", "loss", "duplicate", "reorder", "corrupt", "rate"',
    "delay 5 on net1": '"delay 5" is not understood; '
    "allowed: delay 200ms [jitter 20ms [normal|pareto|paretonormal] [correlated 25%]]",
    "delay 5ms jitter 6ms on net1": "a jitter of 6ms is not allowed; allowed: at most the delay, and at most 2s",
    "loss 101% on net1": "101% is not allowed; allowed: more than 0%, and at most 100%",
    "loss 0% on net1": "0% is not allowed; allowed: more than 0%, and at most 100%",
    "loss 1%, loss 2% on net1": "loss is said twice",
    "reorder 5% on net1": "reorder takes a delay, which those that overtake are spared; as in delay 10ms, reorder 25%",
    "rate 1kbit on net1": '"rate 1kbit" is not allowed; allowed: from 8kbit to 100mbit, which can be proved',
    "loss 1% on nt1": 'there is no host or switch "nt1"; did you mean "net1"? '
    'allowed: "zk1", "zk2", "zk3", "c1", "net1", "net2"',
    "loss 1% on net1 in": 'a switch has no "in": a packet passes net1 once',
    "loss 1% on zk1:net9": 'zk1 has no NIC on "net9"; allowed: "net1", "net2"',
    "loss 1% on zk1,zk1:net1": '"zk1,zk1:net1" names a NIC twice',
    "loss 1% on zk1 > zk1": '"zk1" is nobody that zk1 has a network in common with',
    "loss 1% on zk1 > zk2 over net7": 'there is no switch "net7"; did you mean "net2"? allowed: "net1", "net2"',
}


@pytest.mark.parametrize("target", BROKEN)
def test_what_cannot_be_is_refused_with_one_exact_line(target: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]") as caught:
        packets.check(target, TOPOLOGY)
    assert str(caught.value) == BROKEN[target]


@given(st.text("delay losrtchupc0123456789.%msnzk:>,", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        packets.check(text, TOPOLOGY)
    except ValueError as problem:
        assert str(problem)


@given(st.sampled_from(["leader", "a follower", "random", "leader:net1 in", "random:a switch", "leader > a follower"]))
def test_roles_become_names(place: str) -> None:
    target = f"loss 1% on {place}"
    assert packets.is_role(target)
    resolved = packets.resolve(target, TOPOLOGY, leader=2, rng=Random(1))
    assert not packets.is_role(resolved)
    assert packets.parse(resolved, TOPOLOGY).shapes
    assert packets.resolve(target, TOPOLOGY, leader=2, rng=Random(1)) == resolved
    if "leader" in place:
        assert "zk2" in resolved
    if "follower" in place:
        assert "zk1" in resolved or "zk3" in resolved


def test_without_a_leader_nobody_leads() -> None:
    with pytest.raises(FaultError, match="no leader"):
        packets.resolve("loss 1% on leader", TOPOLOGY, leader=None, rng=Random(1))


EFFECTS = st.builds(
    Effects, delay_ms=st.floats(0, 1000), loss=st.floats(0, 1), duplicate=st.floats(0, 1), corrupt=st.floats(0, 1)
)


@given(EFFECTS, EFFECTS, EFFECTS)
def test_together_they_are_the_same_in_any_order(one: Effects, two: Effects, three: Effects) -> None:
    orders = [merge([one, two, three]), merge([three, one, two]), merge([merge([two, one]), three])]
    for name in ("delay_ms", "loss", "duplicate", "corrupt"):
        values = [getattr(order, name) for order in orders]
        assert values == pytest.approx([values[0]] * 3)
    assert merge([one]) == one
    assert 0 <= orders[0].loss <= 1


def test_what_holds_for_all_holds_for_each_destination_too() -> None:
    everybody = Shape("zk1", "net1", Side.OUT, Effects(delay_ms=10))
    one = Shape("zk1", "net1", Side.OUT, Effects(delay_ms=5, loss=0.5), "10.77.1.2")
    assert set(packets.combine([everybody, one])) == {
        everybody,
        msgspec.structs.replace(one, effects=Effects(delay_ms=15, loss=0.5)),
    }


def test_two_rates_of_one_nic_are_refused_when_the_plan_is_checked() -> None:
    text = 'title = "T"\n'
    for at, target in (("1s", "rate 1mbit on net1"), ("2s", "rate 2mbit on zk2:net1 in")):
        text += f'[[step]]\nat = "{at}"\nfault = "packets"\nfor = "2s"\npackets = "{target}"\n'
    with pytest.raises(PlanError) as caught:
        check_plan(parse_plan(text, "x.toml"), TOPOLOGY)
    assert str(caught.value) == (
        "x:step[1]: rate 2mbit on zk2:net1 in cannot hold while step[0] does: a NIC cannot have rate twice: "
        "zk2:net1 in; let one end before the other begins, or write both as one fault"
    )
    check_plan(parse_plan(text.replace("zk2:net1 in", "zk2:net1 out"), "x.toml"), TOPOLOGY)


# --- the fault, on a testbed in memory ------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    with memory_ensemble(TOPOLOGY) as (ensemble, _testbed):
        yield World.of(ensemble)


@pytest.mark.parametrize("target", ["delay 50ms on net1", "loss 10% on zk2", "delay 3ms, loss 50% on zk1 > zk2"])
def test_a_fault_is_seen_while_it_holds_and_no_longer(world: World, target: str) -> None:
    fault = PacketsFault(0, "packets", target, world)
    assert fault.probe().bites is False
    fault.inject()
    assert fault.probe().bites is True
    fault.heal()
    assert fault.probe().bites is False


def test_overlapping_faults_are_told_apart(world: World) -> None:
    slow = PacketsFault(0, "packets", "delay 50ms on net1", world)
    lossy = PacketsFault(1, "packets", "delay 20ms, loss 30% on zk2", world)
    slow.inject()
    assert [f.probe().bites for f in (slow, lossy)] == [True, False]
    lossy.inject()
    assert [f.probe().bites for f in (slow, lossy)] == [True, True]
    slow.heal()
    assert [f.probe().bites for f in (slow, lossy)] == [False, True]
    lossy.heal()
    assert [f.probe().bites for f in (slow, lossy)] == [False, False]


def test_a_kernel_that_does_not_obey_is_seen(world: World) -> None:
    fault = PacketsFault(0, "packets", "delay 50ms on net1", world)
    fault.inject()
    testbed = world.testbed
    assert isinstance(testbed, MemoryTestbed)
    testbed.set_shapes([msgspec.structs.replace(s, effects=Effects(delay_ms=100)) for s in testbed.shapes])
    assert fault.probe().bites is None
    testbed.set_shapes(testbed.shapes[1:])
    assert fault.probe().bites is None
    testbed.set_shapes([])
    assert fault.probe().bites is False


def test_a_kernel_without_netem_loses_by_filters_and_delays_nothing(world: World) -> None:
    testbed = world.testbed
    assert isinstance(testbed, MemoryTestbed)
    testbed.refused["netem"] = "No such file or directory"
    fault = PacketsFault(0, "packets", "loss 10% on zk2:net1 out", world)
    fault.inject()
    assert {(r.host, r.source, r.manner, r.share) for r in testbed.rules} == {
        (host, "10.77.1.2", Manner.LOSE, 0.1) for host in HOSTS if host != "zk2"
    }
    assert testbed.shapes == ()
    fault.heal()
    assert testbed.rules == ()
    with pytest.raises(KernelLacking) as caught:
        PacketsFault(1, "packets", "delay 5ms on net1", world)
    assert str(caught.value) == (
        "packets delay 5ms on net1: this kernel has no sch_netem, which the fault is made of "
        "(likely cause: it says: No such file or directory); "
        "`zkchaos run ... --kernel usermode` performs it in a kernel that has it"
    )


@given(st.integers(1, 3000), st.floats(0.0005, 0.9995))
def test_bounds_are_those_of_the_binomial_distribution(count: int, share: float) -> None:
    low, high = bounds(share, count, 0.01)
    assert low <= share <= high or count * min(share, 1 - share) < 20
    draws = (
        [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)] if count < 200 else []
    )
    if draws:
        inside = sum(mass for k, mass in enumerate(draws) if low * count - 1e-9 <= k <= high * count + 1e-9)
        assert inside >= 0.99 - 1e-9

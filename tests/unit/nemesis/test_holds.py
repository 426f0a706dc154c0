"""Overlapping faults: after any sequence of cuts and releases, exactly what somebody still holds is broken."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.nemesis.holds import Hold, LimitHolds, LinkHolds, ServerHolds
from harness.testbed.handles import Limits, Link
from harness.topology.loader import load_topology
from tests.unit.memory import MemoryTestbed, memory_ensemble

TOPOLOGY = load_topology("uneven-addresses")
SWITCHES = [Link(name) for name in TOPOLOGY.switch_names]
LINKS = [*SWITCHES, *(Link(nic.switch, nic.host) for nic in TOPOLOGY.nics())]
NET1, NET2, CABLE = Link("net1"), Link("net2"), Link("net1", "zk2")


@contextmanager
def link_holds() -> Iterator[tuple[LinkHolds, MemoryTestbed]]:
    testbed = MemoryTestbed(TOPOLOGY)
    yield LinkHolds(testbed, TOPOLOGY), testbed
    testbed.close()


def broken_by(held: set[Link]) -> frozenset[str]:
    """Everything that is down while these are held: a switch takes all its ports along."""
    return frozenset(link.name for link in LINKS if link in held or Link(link.switch) in held)


#: A fault's number, what it is aimed at, and whether it is injected or healed.
LINK_STEPS = st.lists(st.tuples(st.integers(0, 4), st.sets(st.sampled_from(LINKS), max_size=3), st.booleans()))


@given(LINK_STEPS)
def test_down_is_what_is_held_at_every_moment(steps: list[tuple[int, set[Link], bool]]) -> None:
    held: dict[int, set[Link]] = {}
    with link_holds() as (holds, testbed):
        for fault, links, cut in steps:
            before = len(testbed.batches)
            if cut:
                held.setdefault(fault, set()).update(links)
                holds.cut(fault, links)
            else:
                held.setdefault(fault, set()).difference_update(links)
                holds.release(fault, links)
            assert testbed.down == broken_by(set().union(*held.values()))
            # in one batch, so that nothing comes up for a moment that somebody still holds
            assert len(testbed.batches) <= before + 1
            for link in LINKS:
                assert holds.is_cut(link) == (link.name in testbed.down)
                others = set().union(*(mine for number, mine in held.items() if number != fault))
                assert holds.is_cut(link, but=fault) == (link.name in broken_by(others))
        for fault, mine in held.items():
            holds.release(fault, mine)
        assert testbed.down == frozenset()


def test_a_cable_that_is_cut_stays_cut_when_its_switch_comes_back() -> None:
    with link_holds() as (holds, testbed):
        holds.cut(1, [CABLE])
        holds.cut(2, [NET1])
        holds.release(2, [NET1])
        assert testbed.down == {"zk2:net1"}
        holds.release(1, [CABLE])
        assert testbed.down == frozenset()


def test_a_cable_that_heals_under_a_dead_switch_stays_dead() -> None:
    with link_holds() as (holds, testbed):
        holds.cut(1, [NET1])
        holds.cut(2, [CABLE])
        holds.release(2, [CABLE])
        assert testbed.down == broken_by({NET1})


def test_healing_twice_is_healing_once() -> None:
    with link_holds() as (holds, testbed):
        holds.cut(1, [NET1])
        holds.cut(2, [NET1])
        holds.release(1, [NET1])
        holds.release(1, [NET1])
        assert testbed.down == broken_by({NET1})


def test_several_links_are_cut_in_one_batch() -> None:
    with link_holds() as (holds, testbed):
        holds.cut(1, [NET1, NET2])
        assert testbed.batches == [(("net1", "net2"), False)]


SERVERS = [server.id for server in TOPOLOGY.servers]
#: How each fault holds its servers: a fault is of one kind, from its injection to its end.
HOW = (Hold.DOWN, Hold.DOWN, Hold.DOWN, Hold.PAUSED, Hold.PAUSED, Hold.RESTLESS)
#: A fault's number, its server, and whether it is injected or healed.
SERVER_STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(SERVERS), st.booleans()))


@given(SERVER_STEPS)
def test_a_server_is_what_its_holders_say_at_every_moment(steps: list[tuple[int, int, bool]]) -> None:
    held: dict[int, set[int]] = {server: set() for server in SERVERS}
    with memory_ensemble(TOPOLOGY) as (ensemble, testbed):
        holds = ServerHolds(ensemble)
        for fault, server, injected in steps:
            if injected:
                held[server].add(fault)
                holds.hold(fault, server, HOW[fault], gently=fault == 0)
            else:
                held[server].discard(fault)
                holds.release(fault, server)
            for one in SERVERS:
                assert testbed.living(f"zk{one}") == states({HOW[holder] for holder in held[one]})
                assert holds.held(one) == bool(held[one])
                assert holds.held(one, but=fault) == bool(held[one] - {fault})
        for server, faults in held.items():
            for fault in list(faults):
                holds.release(fault, server)
            assert testbed.living(f"zk{server}") == ["S"]


#: Of two faults, a server, and the least that is allowed of each; None where a fault is healed.
LIMIT_STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["zk1", "zk2"]),
        st.none() | st.builds(Limits, st.none() | st.sampled_from([0.1, 0.5]), st.none() | st.sampled_from([100, 200])),
    )
)


@given(LIMIT_STEPS)
def test_of_all_limits_the_least_holds_at_every_moment(steps: list[tuple[int, str, Limits | None]]) -> None:
    held: dict[str, dict[int, Limits]] = {"zk1": {}, "zk2": {}}
    with contextlib.closing(MemoryTestbed(TOPOLOGY)) as testbed:
        holds = LimitHolds(testbed)
        for fault, host, limits in steps:
            if limits is None:
                held[host].pop(fault, None)
                holds.release(fault, host)
            else:
                held[host][fault] = limits
                holds.hold(fault, host, limits)
            for one, theirs in held.items():
                least = Limits(
                    min((x.cpu for x in theirs.values() if x.cpu), default=None),
                    min((x.memory for x in theirs.values() if x.memory), default=None),
                )
                assert testbed.limits.get(one, Limits()) == least
                assert set(holds.held(one, but=fault)) == {x for f, x in theirs.items() if f != fault}


def states(holders: set[Hold]) -> list[str]:
    """The states of the living processes of a server that is held so: there is never more than one."""
    return [] if Hold.DOWN in holders else ["T"] if Hold.PAUSED in holders else ["S"]


@pytest.mark.parametrize("gently", [False, True])
def test_a_server_that_was_paused_and_killed_comes_back_paused(gently: bool) -> None:
    with memory_ensemble(TOPOLOGY) as (ensemble, testbed):
        holds = ServerHolds(ensemble)
        holds.hold(1, 2, Hold.PAUSED)
        holds.hold(2, 2, Hold.DOWN, gently=gently)
        assert testbed.living("zk2") == []
        holds.release(2, 2)
        assert testbed.living("zk2") == ["T"]
        holds.release(1, 2)
        assert testbed.living("zk2") == ["S"]

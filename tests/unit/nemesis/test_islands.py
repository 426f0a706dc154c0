"""Islands: what their names mean, what is refused, and that of two splits a frame must pass both."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import FaultError
from harness.nemesis import islands
from harness.nemesis.kinds import Aim
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.port_holds import SplitHolds
from harness.nemesis.targets import check_target, is_role, resolve_target
from harness.testbed.wire import Split
from harness.topology.loader import load_topology
from tests.unit.memory import MemoryTestbed, memory_ensemble

THREE = load_topology("dual-net")
FIVE = load_topology("dual-net-five")
UNEVEN = load_topology("uneven-addresses")

WRONG = {
    "zk1": '"zk1" is one island; allowed: "halves", A | B',
    "halfs": '"halfs" is one island; did you mean "halves"?',
    "zk1 | zk9,others": 'there is no host "zk9"; did you mean "zk3"? allowed: ',
    "zk1 || others": 'there is no host ""; allowed: ',
    "zk1,c1 | zk2": 'of net2 not all of "zk3" are in an island',
    "zk1,c1 | zk1,others": '"zk1" is in "zk1,c1 | zk1,others" twice',
    "others | others": '"others" is in "others | others" twice',
    "zk1,zk2 | zk3,c1 | others": '"others" is nobody: every host of net2 is in another island',
    "leader | zk1,others": '"leader" may be zk1, which is named, too',
    "leader | a follower": 'of net2 not all of "zk1", "zk2", "zk3", "c1" are in an island',
}


@pytest.mark.parametrize("target", WRONG)
def test_what_cannot_be_meant_is_refused(target: str) -> None:
    with pytest.raises(ValueError) as caught:
        islands.check(target, "net2", THREE)
    assert str(caught.value).startswith(WRONG[target]), str(caught.value)


def test_only_who_is_plugged_in_can_be_on_an_island() -> None:
    islands.check("zk3 | others", "net1", UNEVEN)
    for switch in ("net2", "random"):
        with pytest.raises(ValueError, match='zk3 has no NIC on "net2"; allowed: "zk1", "zk2", "c1"'):
            islands.check("zk3 | others", switch, UNEVEN)
        with pytest.raises(ValueError, match='"leader" may be zk3, which has no NIC on "net2"'):
            islands.check("leader | others", switch, UNEVEN)


def parts(target: str, *, leader: int | None = 3, seed: int = 0, switch: str = "net1") -> list[set[str]]:
    resolved = islands.resolve(target, switch, THREE, leader=leader, rng=Random(seed))
    return [set(island) for island in islands.parse(resolved, switch, THREE)]


def test_others_are_those_that_are_not_named() -> None:
    assert parts("zk1,c1 | others") == [{"zk1", "c1"}, {"zk2", "zk3"}]
    assert parts("zk1 | others | c1") == [{"zk1"}, {"zk2", "zk3"}, {"c1"}]
    assert parts("zk1 | zk2 | zk3 | c1") == [{"zk1"}, {"zk2"}, {"zk3"}, {"c1"}]
    assert parts("leader | others") == [{"zk3"}, {"zk1", "zk2", "c1"}]
    assert parts("leader,c1 | others") == [{"zk3", "c1"}, {"zk1", "zk2"}]
    one, other, rest = parts("leader | a follower | others")
    assert one == {"zk3"}
    assert other < {"zk1", "zk2"}
    assert rest == {"zk1", "zk2", "c1"} - other


@pytest.mark.parametrize("seed", range(20))
def test_halves_are_a_majority_and_the_rest_and_clients_on_both(seed: int) -> None:
    for topology, switch, servers in ((THREE, "net1", [2, 1]), (FIVE, "net2", [3, 2]), (UNEVEN, "net2", [2, 0])):
        resolved = islands.resolve("halves", switch, topology, leader=None, rng=Random(seed))
        found = islands.parse(resolved, switch, topology)
        assert [sum(name.startswith("zk") for name in island) for island in found] == servers
        clients = [sum(name.startswith("c") for name in island) for island in found]
        assert sum(clients) == sum(nic.switch == switch for c in topology.client_hosts for nic in c.nics)
        assert all(found)


def test_without_a_leader_it_is_not_guessed() -> None:
    with pytest.raises(FaultError, match="no leader"):
        islands.resolve("leader | others", "net1", THREE, leader=None, rng=Random(0))
    assert parts("zk2 | others", leader=None) == [{"zk2"}, {"zk1", "zk3", "c1"}]


GOOD = st.sampled_from(
    ["halves", "leader | others", "a follower,c1 | leader | others", "zk1,zk2 | others", "zk1 | zk2 | zk3,others"]
)


@given(GOOD, st.integers(0, 2**32), st.sampled_from(["net1", "net2", "random"]))
def test_what_was_drawn_is_repeated_by_its_own_words(target: str, seed: int, switch: str) -> None:
    first = resolve_target(Aim.SPLIT, f"{switch}:{target}", FIVE, leader=4, rng=Random(seed))
    assert not is_role(Aim.SPLIT, first)
    check_target(Aim.SPLIT, first, FIVE)
    assert resolve_target(Aim.SPLIT, first, FIVE, leader=None, rng=Random(seed + 1)) == first
    assert first == resolve_target(Aim.SPLIT, f"{switch}:{target}", FIVE, leader=4, rng=Random(seed))


@given(st.text(max_size=40) | st.text(alphabet="zk123c ,|others halves leader a follower", max_size=60))
def test_any_words_are_islands_or_refused(target: str) -> None:
    try:
        islands.check(target, "net1", THREE)
    except ValueError as problem:
        assert "\n" not in str(problem)
    else:
        resolved = islands.resolve(target, "net1", THREE, leader=1, rng=Random(0))
        found = islands.parse(resolved, "net1", THREE)
        assert sorted(name for island in found for name in island) == ["c1", "zk1", "zk2", "zk3"]
        assert all(found)


ISLANDS = st.lists(st.integers(0, 2), min_size=4, max_size=4).filter(lambda places: len(set(places)) > 1)
STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["net1", "net2"]), ISLANDS, st.booleans()), max_size=12)
HOSTS = [host.host for host in THREE.hosts]


@given(STEPS)
def test_a_frame_passes_if_every_split_that_holds_lets_it(steps: list[tuple[int, str, list[int], bool]]) -> None:
    testbed = MemoryTestbed(THREE)
    holds = SplitHolds(testbed)
    held: dict[int, tuple[str, dict[str, int]]] = {}
    for fault, switch, places, injected in steps:
        if injected:
            place_of = dict(zip(HOSTS, places, strict=True))
            groups = tuple(tuple(h for h in HOSTS if place_of[h] == place) for place in sorted(set(places)))
            held[fault] = (switch, place_of)
            holds.hold(fault, Split(switch, groups))
        else:
            held.pop(fault, None)
            holds.release(fault)
        for path in testbed.reach(["net1", "net2"], timeout_ms=1):
            parted = any(s == path.switch and p[path.source] != p[path.destination] for s, p in held.values())
            assert (path.micros is None) == parted


def test_overlapping_splits_are_each_proved_and_healed() -> None:
    with memory_ensemble(THREE) as (ensemble, testbed):
        nemesis = Nemesis(ensemble, lambda _event: None, seed=0)
        with (
            nemesis.fault("switch-split", "net1:zk1 | others"),
            nemesis.fault("switch-split", "net1:zk1,zk2 | others"),
            nemesis.fault("switch-split", "net2:halves"),
            nemesis.fault("switch-down", "net1"),
            nemesis.fault("switch-split", "net1:zk1 | zk2 | others"),
        ):
            assert len(testbed.splits) == 4
        assert not testbed.splits


def test_a_split_that_does_not_obey_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.nemesis.nemesis._BITE_TIMEOUT", 0.1)
    with memory_ensemble(THREE) as (ensemble, testbed):
        nemesis = Nemesis(ensemble, lambda _event: None, seed=0)
        monkeypatch.setattr(testbed, "set_splits", lambda _splits: (0, 0))  # a kernel that does not obey
        with pytest.raises(FaultError, match="did not bite"), nemesis.fault("switch-split", "net1:zk1 | others"):
            pass

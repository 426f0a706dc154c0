"""Partitions: what their names mean, what is refused, and what filters they come to."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import FaultError
from harness.nemesis import partitions
from harness.testbed.wire import Manner
from harness.topology.loader import load_topology

THREE = load_topology("dual-net")
FIVE = load_topology("dual-net-five")
UNEVEN = load_topology("uneven-addresses")

WRONG = {
    "isolated": 'there is no partition "isolated"',
    "isolate zk9": 'there is no server "zk9"; did you mean',
    "zk1 | zk7": 'there is no host "zk7"; did you mean',
    "zk1 | zk1,zk2": '"zk1 | zk1,zk2" has a host in two groups',
    "zk1 > zk2 > zk3": '"zk1 > zk2 > zk3" is not of the form A > B',
    "halves over net3": 'there is no switch "net3"; did you mean',
    "halves port 0": '"0" is not a port; allowed: "quorum", "election", "client", a number up to 65535',
    "halves port 70000": '"70000" is not a port',
    "majorities-ring": '"majorities-ring" takes 4 participants at least',
}


@pytest.mark.parametrize("target", WRONG)
def test_what_cannot_be_meant_is_refused(target: str) -> None:
    with pytest.raises(ValueError) as caught:
        partitions.check(target, THREE)
    assert str(caught.value).startswith(WRONG[target]), str(caught.value)


def pairs(target: str, *, leader: int | None = 3, seed: int = 0, topology: object = None) -> set[tuple[str, str]]:
    chosen = FIVE if topology is FIVE else THREE
    resolved = partitions.resolve(target, chosen, leader=leader, rng=Random(seed))
    return set(partitions.parse(resolved, chosen).pairs)


def test_one_server_alone() -> None:
    out = {("zk3", "zk1"), ("zk3", "zk2")}
    back = {(b, a) for a, b in out}
    assert pairs("isolate leader") == out | back
    assert pairs("mute leader") == out
    assert pairs("deaf leader") == back
    assert pairs("isolate zk3") == pairs("zk3 | zk1,zk2")


def test_clients_are_cut_off_only_where_they_are_named() -> None:
    assert not any("c1" in pair for pair in pairs("halves"))
    assert ("c1", "zk1") in pairs("zk1 | zk2,c1")


@pytest.mark.parametrize("seed", range(20))
def test_a_minority_never_has_the_leader(seed: int) -> None:
    resolved = partitions.resolve("minority", FIVE, leader=2, rng=Random(seed))
    few, many = (part.split(",") for part in resolved.split(" | "))
    assert len(few) == 2
    assert "zk2" in many


@pytest.mark.parametrize("seed", range(20))
def test_in_a_ring_everybody_is_on_speaking_terms_with_another_majority(seed: int) -> None:
    cut = pairs("majorities-ring", seed=seed, topology=FIVE)
    hosts = [server.host for server in FIVE.servers]
    assert {(b, a) for a, b in cut} == cut
    heard = {host: frozenset(h for h in hosts if (h, host) not in cut) for host in hosts}
    assert {len(majority) for majority in heard.values()} == {3}
    assert len(set(heard.values())) == len(hosts)


@pytest.mark.parametrize("seed", range(20))
def test_only_the_bridge_hears_both_halves(seed: int) -> None:
    cut = pairs("bridge", seed=seed, topology=FIVE)
    hosts = [server.host for server in FIVE.servers]
    assert [h for h in hosts if not any(h in pair for pair in cut)] != []
    assert len(cut) == 8
    assert {(b, a) for a, b in cut} == cut


def test_one_way_cuts_one_direction_of_every_two() -> None:
    cut = pairs("one-way", topology=FIVE)
    assert all(((a, b) in cut) != ((b, a) in cut) for a, b in permutations([s.host for s in FIVE.servers], 2))


def test_without_a_leader_it_is_not_guessed() -> None:
    with pytest.raises(FaultError, match="no leader"):
        partitions.resolve("isolate leader", THREE, leader=None, rng=Random(0))
    assert partitions.resolve("isolate zk2", THREE, leader=None, rng=Random(0)) == "zk2 | zk1,zk3"


def test_a_filter_stands_where_the_packet_arrives() -> None:
    (rule,) = partitions.parse("zk1 > zk2 over net2 port quorum rejected", THREE).rules(THREE)
    assert (rule.host, rule.source, rule.port, rule.manner) == ("zk2", "10.77.2.1", 2888, Manner.REJECT)


def test_only_networks_that_both_are_on_have_a_filter() -> None:
    single = next(server for server in UNEVEN.servers if len(server.nics) == 1)
    other = next(server for server in UNEVEN.servers if len(server.nics) == 2)
    rules = partitions.parse(f"{single.host} > {other.host}", UNEVEN).rules(UNEVEN)
    assert [rule.source for rule in rules] == [str(single.nics[0].address)]


SHAPES = st.sampled_from([*partitions.SHAPES, "isolate leader", "deaf a follower", "mute random", "isolate zk1"])
REST = st.tuples(
    st.sampled_from(["", " over net1", " over net2,net1"]),
    st.sampled_from(["", " port quorum", " port 3888"]),
    st.sampled_from(["", " rejected"]),
).map("".join)


@given(SHAPES, REST, st.integers(0, 2**32))
def test_what_was_drawn_is_repeated_by_its_own_words(shape: str, rest: str, seed: int) -> None:
    target = shape + rest
    first = partitions.resolve(target, FIVE, leader=4, rng=Random(seed))
    assert not partitions.is_role(first)
    assert partitions.resolve(first, FIVE, leader=None, rng=Random(seed + 1)) == first
    assert first == partitions.resolve(target, FIVE, leader=4, rng=Random(seed))
    assert partitions.parse(first, FIVE).rules(FIVE)


@given(st.text(alphabet="zk123c ,|>;overnt port isolate halves", max_size=60))
def test_any_words_are_a_partition_or_refused(target: str) -> None:
    try:
        partitions.check(target, THREE)
    except ValueError as problem:
        assert "\n" not in str(problem)
    else:
        resolved = partitions.resolve(target, THREE, leader=1, rng=Random(0))
        partitions.parse(resolved, THREE)

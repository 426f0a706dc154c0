"""What roles mean at a given moment, and which targets a topology does not have."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import FaultError
from harness.nemesis.kinds import Aim
from harness.nemesis.targets import check_target, conflict, link_parts, minority_size, resolve_target, server_ids
from harness.topology.loader import load_topology, parse_topology
from harness.topology.model import Topology

DUAL = load_topology("dual-net")
FIVE = load_topology("dual-net-five")
UNEVEN = load_topology("uneven-addresses")
SINGLE = parse_topology('title = "T"\nservers = 1\n[[switch]]\nname = "net1"\n', "one")


def resolve(aim: Aim, target: str, topology: Topology = DUAL, leader: int | None = 2, seed: int = 0) -> str:
    return resolve_target(aim, target, topology, leader=leader, rng=Random(seed))


@pytest.mark.parametrize(
    ("aim", "target"),
    [
        (Aim.SWITCH, "net2"),
        (Aim.LINK, "zk3:net1"),
        (Aim.LINK, "c1:net2"),
        (Aim.SERVERS, "zk1"),
        (Aim.SERVERS, "zk3,zk1"),
    ],
)
def test_a_name_is_what_it_is(aim: Aim, target: str) -> None:
    assert resolve(aim, target, leader=None) == target


def test_the_leader() -> None:
    assert resolve(Aim.SERVERS, "leader") == "zk2"
    assert resolve(Aim.LINK, "leader:net1") == "zk2:net1"
    assert {resolve(Aim.LINK, "leader:random", seed=s) for s in range(20)} == {"zk2:net1", "zk2:net2"}


def test_a_follower_is_never_the_leader() -> None:
    assert {resolve(Aim.SERVERS, "a follower", seed=s) for s in range(20)} == {"zk1", "zk3"}


@pytest.mark.parametrize("target", ["leader", "a follower"])
def test_without_a_leader_nobody_holds_these_roles(target: str) -> None:
    with pytest.raises(FaultError, match="there is no leader to aim at"):
        resolve(Aim.SERVERS, target, leader=None)
    with pytest.raises(FaultError, match="there is no leader to aim at"):
        resolve(Aim.LINK, f"{target}:net1", leader=None)


@given(leader=st.sampled_from([1, 2, 3, 4, 5, None]), seed=st.integers())
def test_minority_and_majority_are_what_they_say(leader: int | None, seed: int) -> None:
    minority = server_ids(resolve(Aim.SERVERS, "minority", FIVE, leader, seed))
    assert len(minority) == minority_size(FIVE) == 2
    assert leader not in minority
    majority = server_ids(resolve(Aim.SERVERS, "majority", FIVE, leader, seed))
    assert len(majority) == FIVE.quorum_size == 3
    assert leader is None or leader in majority


def test_all_means_every_server() -> None:
    assert resolve(Aim.SERVERS, "all", FIVE) == "zk1,zk2,zk3,zk4,zk5"


def test_random_is_fair() -> None:
    rng = Random(0)
    drawn = Counter(resolve_target(Aim.SERVERS, "random", DUAL, leader=1, rng=rng) for _ in range(3000))
    assert set(drawn) == {"zk1", "zk2", "zk3"}
    # 1000 expected each, standard deviation 26; a fair draw is outside of 850..1150 less than once in 10**8.
    assert all(850 < n < 1150 for n in drawn.values())


def test_what_is_broken_already_is_not_drawn_again() -> None:
    rng = Random(0)
    for _ in range(20):
        assert resolve_target(Aim.SERVERS, "random", DUAL, leader=1, rng=rng, busy={"zk1,zk2"}) == "zk3"
        assert resolve_target(Aim.SWITCH, "random", DUAL, leader=1, rng=rng, busy={"net1"}) == "net2"
        link = resolve_target(Aim.LINK, "a follower:net1", DUAL, leader=1, rng=rng, busy={"zk3:net1"})
        assert link == "zk2:net1"
    with pytest.raises(FaultError, match=r'nothing is left that "random" could mean'):
        resolve_target(Aim.SWITCH, "random", DUAL, leader=1, rng=rng, busy={"net1", "net2"})


def test_a_drawn_link_exists() -> None:
    """On net2, zk3 has no NIC: it is passed over."""
    assert {resolve(Aim.LINK, "random:net2", UNEVEN, seed=s) for s in range(20)} == {"zk1:net2", "zk2:net2"}


@given(seed=st.integers(), leader=st.sampled_from([1, 2, 3]))
def test_equal_seeds_resolve_equally(seed: int, leader: int) -> None:
    for target in ("a follower:random", "random:random"):
        assert resolve(Aim.LINK, target, DUAL, leader, seed) == resolve(Aim.LINK, target, DUAL, leader, seed)


WRONG = [
    (Aim.SWITCH, "net3", DUAL, 'there is no switch "net3"; did you mean "net2"? allowed: "net1", "net2", "random"'),
    (
        Aim.LINK,
        "zk4:net1",
        DUAL,
        'there is no host "zk4"; did you mean "zk3"? allowed: "zk1", "zk2", "zk3", "c1", "leader", "a follower", '
        '"random"',
    ),
    (Aim.LINK, "zk3:net2", UNEVEN, 'zk3 has no NIC on "net2"; allowed: "net1"'),
    (Aim.LINK, "leader:net2", UNEVEN, '"leader" may be zk3, which has no NIC on "net2"'),
    (Aim.LINK, "zk1", DUAL, '"zk1" is not host:switch'),
    (Aim.LINK, "a follower:net1", SINGLE, "a single participant has no follower"),
    (Aim.SERVERS, "a follower", SINGLE, "a single participant has no follower"),
    (Aim.SERVERS, "minority", SINGLE, "none of 1 participants may fail, so a minority is nobody"),
    (Aim.SERVERS, "zk1,zk9", DUAL, 'there is no server "zk9"'),
    (Aim.SERVERS, "zk1,zk1", DUAL, '"zk1,zk1" names a server twice'),
    (Aim.SERVERS, "c1", DUAL, 'there is no server "c1"'),
]


@pytest.mark.parametrize(("aim", "target", "topology", "message"), WRONG)
def test_target_that_the_topology_does_not_have(aim: Aim, target: str, topology: Topology, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_target(aim, target, topology)
    assert str(caught.value).startswith(message)


def test_certain_conflicts() -> None:
    assert conflict(Aim.SWITCH, "net1", "net1")
    assert not conflict(Aim.SWITCH, "random", "random")
    assert conflict(Aim.SERVERS, "zk1,zk2", "zk2")
    assert conflict(Aim.SERVERS, "all", "zk2")
    assert not conflict(Aim.SERVERS, "leader", "leader")
    assert not conflict(Aim.SERVERS, "leader", "zk1")
    assert not conflict(Aim.LINK, "zk1:net1", "zk1:net2")


def test_parts() -> None:
    assert server_ids("zk3,1") == (3, 1)
    assert link_parts("zk2:net1") == ("zk2", "net1")
    with pytest.raises(ValueError, match="is not a server"):
        server_ids("leader")
    with pytest.raises(ValueError, match="is not host:switch"):
        link_parts("zk2:net1:x")

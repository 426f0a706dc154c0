"""Which kinds of fault are offered where."""

import pytest

from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.offers import Guest, offers, refusal
from harness.stage.make import TESTBEDS

#: Kinds that end a process, and those that are offered of no server of somebody else's.
ENDING = {"kill", "restart", "crash-loop", "restart-storm", "rolling-restart", "slow-start"}
UNPREPARED = {"clock", "damage", "disk", "limit", "stream"}
REMOVED, SHIELDED = Guest("zk1", "java", removed_at_end=True), Guest("zk2", "docker-init")


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_every_kind_is_offered_on_every_testbed(testbed: str) -> None:
    assert [offer.kind for offer in offers(testbed)] == list(KINDS)
    assert {offer.kind for offer in offers(testbed) if offer.unless} == (
        set() if testbed == "namespaces" else {"disk", "stream"}
    )
    assert {offer.kind for offer in offers(testbed) if offer.never} == {
        "namespaces": set(),
        "docker": {"disk"},
        "docker-helper": {"disk", "stream"},
    }[testbed]


def test_both_ways_to_docker_offer_the_same_and_say_how_it_differs_from_namespaces() -> None:
    ours, helpers = ([o for o in offers(name) if o.kind != "stream"] for name in ("docker", "docker-helper"))
    assert ours == helpers
    assert {offer.kind for offer in offers("docker") if offer.differs} == {*ENDING, "limit"}
    assert not any(offer.differs for offer in offers("namespaces"))


def test_of_servers_of_others_it_is_said_what_is_not_offered() -> None:
    attached = {offer.kind: offer for offer in offers("docker", attached=True)}
    assert {kind for kind, offer in attached.items() if offer.unless} == {*ENDING, "pause", *UNPREPARED}
    assert {kind for kind, offer in attached.items() if offer.never} == UNPREPARED
    of_switches = {"switch-down", "switch-flap", "switch-split"}
    assert {kind for kind, offer in attached.items() if offer.differs} == {*ENDING, "pause", "limit", *of_switches}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_table_says_is_what_is_refused(kind: str) -> None:
    """No kind is refused of which the table of doctor does not say so, and each that it names can be refused."""
    target = {
        Aim.SWITCH: "net1",
        Aim.LINK: "zk1:net1",
        Aim.SERVERS: "all",
        Aim.PARTITION: "isolate zk1",
        Aim.PACKETS: "loss 10% on zk1",
        Aim.SWITCH_RHYTHM: "net1:500ms",
        Aim.LINK_RHYTHM: "zk1:net1:500ms",
        Aim.SPLIT: "net1:zk1 | zk2,zk3",
        Aim.STREAM: "latency 100ms on clients",
        Aim.CLOCK: "all:ahead 5s",
        Aim.DISK: "all:full",
        Aim.DAMAGE: "all:wipe",
        Aim.LIMIT: "all:cpu 5%",
    }[KINDS[kind].aim]
    told = {offer.kind: offer.unless for offer in offers("docker", attached=True)}[kind]
    assert bool(refusal(kind, target, [REMOVED, SHIELDED])) == bool(told)
    # these are refused of whoever was not started for them
    assert bool(refusal(kind, target, [Guest("zk1", "java"), Guest("zk2")])) == (kind in UNPREPARED)
    assert refusal(kind, target, []) == ""


@pytest.mark.parametrize("target", ["zk1", "zk3,zk1", "leader", "a follower", "minority", "majority", "all", "random"])
def test_a_target_that_may_be_that_server_is_refused(target: str) -> None:
    assert refusal("kill", target, [REMOVED]).startswith("zk1: its container is removed when it ends")
    assert refusal("restart", target, [REMOVED]).startswith("zk1: ")
    assert refusal("pause", target, [REMOVED]) == ""


def test_other_servers_may_still_be_aimed_at() -> None:
    guests = [REMOVED, SHIELDED, Guest("zk3")]
    assert refusal("kill", "zk2,zk3", guests) == ""
    assert refusal("pause", "zk1,3", guests) == ""
    assert "docker-init, which would be stopped" in refusal("pause", "zk2", guests)
    assert "docker-init, which would be stopped" in refusal("slow-start", "zk2", guests)

"""Faults of streams: what their words mean, what is refused, and on which proxies they are."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import FaultError
from harness.nemesis import streams
from harness.nemesis.streams import Way
from harness.nemesis.toxics import Kind, ToxicSpec, parse_toxic
from harness.topology.loader import load_topology, parse_topology
from harness.topology.proxies import Service

PROXIED = load_topology("proxied")
CLIENTS_ONLY = parse_topology(
    """
title = "Two networks, and proxies for clients alone"
servers = 3
proxies = { clients = true }
switch = [{ name = "net1" }, { name = "net2" }]
""",
    "clients-only",
)

WRONG = {
    "latency 200ms": '"latency 200ms" does not say what and where; allowed: TOXIC on SOURCE',
    "lateness 1s on clients": 'there is no toxic "lateness"; did you mean "latency"? allowed: "latency", "bandwidth"',
    "latency 1ms on clients": 'found "1ms"; allowed: from 10ms to 2s',
    "latency 50 on clients": "'50' is not a duration",
    "latency 50ms jitter 60ms on clients": 'found "60ms"; allowed: from 1ms to 50ms',
    "latency 50ms fast on clients": '"latency 50ms fast" is not understood; allowed: "latency 200ms jitter 50ms"',
    "bandwidth 3 on clients": 'found "3"; allowed: a rate from 8kbit to 10mbit',
    "bandwidth 20mbit on clients": 'found "20mbit"; allowed: a rate',
    "slicer 64B on clients": '"slicer 64B" is not understood; allowed: "slicer 64B varying 16B every 1ms"',
    "slicer 1B varying 1B every 1ms on clients": "pieces of 1B cannot vary",
    "slicer 8B varying 8B every 1ms on clients": 'found "8B"; allowed: a size from 1B to 7B',
    "slicer 16B every 1ms on servers": 'servers refuse whose greeting comes in pieces, so between them found "16B"',
    "slicer 64B every 1ms on servers downstream": "slicer 64B every 1ms could not be seen downstream alone",
    "slicer 40B varying 20B every 1ms on zk1 > zk2 downstream": "slicer 40B varying 20B every 1ms could not be seen",
    "limit_data 2MB on clients": 'found "2MB"; allowed: a size from 1B to 500000B',
    "limit_data 100kB on clients downstream": "limit_data 100000B could not be seen downstream alone; allowed: up to",
    "bandwidth 1mbit on zk1 > zk2 downstream": "bandwidth 1000kbit could not be seen downstream alone; allowed: up",
    "down on clients upstream": "a proxy is down for all connections and both ways",
    "timeout 0ms on clients toxicity 5%": 'found "5%"; allowed: a toxicity from 10% to 100%',
    "timeout 0ms on clients toxicity 101%": 'found "101%"; allowed: a toxicity from 10% to 100%',
    "timeout 0ms on client": 'there is no host "client"; did you mean "clients"? allowed: "clients", "servers", "c1"',
    "timeout 0ms on clients > zk9": 'there is no host "zk9"; did you mean',
    "timeout 0ms on clients > c2": 'there is no host "c2"',
    "timeout 0ms on zk1 > zk1": "no stream from zk1 to zk1 passes a proxy there",
    "timeout 0ms on leader > leader": "no stream from zk1 to zk1 passes a proxy there",
}


@pytest.mark.parametrize("target", WRONG)
def test_what_cannot_be_meant_is_refused(target: str) -> None:
    with pytest.raises(ValueError) as caught:
        streams.check(target, PROXIED)
    assert str(caught.value).startswith(WRONG[target]), str(caught.value)


def test_without_proxies_nothing_can_be_aimed_at() -> None:
    with pytest.raises(ValueError, match=r"it has no proxies; write \[proxies\] into it"):
        streams.check("latency 200ms on clients", load_topology("dual-net"))
    with pytest.raises(ValueError, match="no stream from servers to servers passes a proxy there"):
        streams.check("latency 200ms on servers", CLIENTS_ONLY)


def paths(target: str, topology: object = PROXIED) -> set[tuple[str, str, str]]:
    chosen = CLIENTS_ONLY if topology is CLIENTS_ONLY else PROXIED
    return {(p.source, p.destination, p.switch) for p in streams.parse(target, chosen).proxies}


def test_where() -> None:
    everybody = {(c, f"zk{s}", "net1") for c in ("c1", "c2") for s in (1, 2, 3)}
    assert paths("timeout 0ms on clients") == everybody
    assert paths("timeout 0ms on c1,c2 > zk1, zk2,zk3") == everybody
    assert paths("timeout 0ms on clients>zk2") == {("c1", "zk2", "net1"), ("c2", "zk2", "net1")}
    assert paths("timeout 0ms on c1 > zk2 upstream toxicity 50%") == {("c1", "zk2", "net1")}
    assert paths("timeout 0ms on servers > zk2") == {("zk1", "zk2", "net1"), ("zk3", "zk2", "net1")}
    assert paths("down on zk1") == {("zk1", "zk2", "net1"), ("zk1", "zk3", "net1")}
    assert len(paths("timeout 0ms on clients,servers")) == 12
    assert paths("timeout 0ms on c1 > zk2", CLIENTS_ONLY) == {("c1", "zk2", "net1"), ("c1", "zk2", "net2")}


def test_between_servers_both_ports_are_meant() -> None:
    found = streams.parse("latency 50ms on zk1 > zk2", PROXIED).proxies
    assert {proxy.service for proxy in found} == {Service.QUORUM, Service.ELECTION}
    assert {proxy.upstream for proxy in found} == {("10.77.1.2", 2902), ("10.77.1.2", 3902)}


def test_which_way_and_how_many() -> None:
    both = streams.parse("latency 50ms on clients", PROXIED)
    assert (both.ways, both.toxicity) == ((Way.UP, Way.DOWN), 1.0)
    some = streams.parse("latency 50ms on clients downstream toxicity 30%", PROXIED)
    assert (some.ways, some.toxicity) == ((Way.DOWN,), 0.3)


def test_toxiproxy_is_told_in_its_own_units() -> None:
    assert parse_toxic("latency 1.5s jitter 50ms").attributes == {"latency": 1500, "jitter": 50}
    assert parse_toxic("bandwidth 100kbit").attributes == {"rate": 12}
    assert parse_toxic("slicer 64B varying 16B every 2ms").attributes == {
        "average_size": 64,
        "size_variation": 16,
        "delay": 2000,
    }
    assert parse_toxic("limit_data 10kB").attributes == {"bytes": 10_000}


def test_roles() -> None:
    target = "latency 50ms on servers > leader"
    assert streams.is_role(target)
    assert streams.resolve(target, PROXIED, leader=2, rng=Random(0)) == "latency 50ms on servers > zk2"
    drawn = {streams.resolve("down on a follower > servers", PROXIED, leader=2, rng=Random(seed)) for seed in range(20)}
    assert drawn == {"down on zk1 > servers", "down on zk3 > servers"}
    with pytest.raises(FaultError, match="no leader"):
        streams.resolve(target, PROXIED, leader=None, rng=Random(0))
    assert not streams.is_role("latency 50ms on servers > zk2")


TIMES = st.integers(50, 2000)
TOXICS = st.one_of(
    TIMES.flatmap(
        lambda time: st.integers(0, time).map(lambda jitter: ToxicSpec(Kind.LATENCY, time_ms=time, jitter_ms=jitter))
    ),
    st.integers(1, 1250).map(lambda rate: ToxicSpec(Kind.BANDWIDTH, rate=rate)),
    st.builds(ToxicSpec, st.sampled_from([Kind.SLOW_CLOSE, Kind.TIMEOUT, Kind.RESET_PEER]), time_ms=TIMES),
    st.integers(1, 512).flatmap(
        lambda size: st.builds(
            ToxicSpec,
            st.just(Kind.SLICER),
            time_ms=st.integers(1, 100),
            size=st.just(size),
            variation=st.integers(0, size - 1),
        )
    ),
    st.integers(1, 500_000).map(lambda size: ToxicSpec(Kind.LIMIT_DATA, size=size)),
    st.just(ToxicSpec(Kind.DOWN)),
)


@given(TOXICS)
def test_what_a_toxic_is_called_is_understood(toxic: ToxicSpec) -> None:
    assert parse_toxic(toxic.text()) == toxic


@given(
    TOXICS,
    st.sampled_from(["clients", "c1 > a follower", "clients > leader", "c2,c1>random"]),
    st.sampled_from(["", " toxicity 40%"]),
    st.integers(0, 2**32),
)
def test_what_was_drawn_is_repeated_by_its_own_words(toxic: ToxicSpec, where: str, rest: str, seed: int) -> None:
    target = f"{toxic.text()} on {where}{rest if toxic.kind is not Kind.DOWN else ''}"
    first = streams.resolve(target, PROXIED, leader=1, rng=Random(seed))
    assert not streams.is_role(first)
    assert first == streams.resolve(target, PROXIED, leader=1, rng=Random(seed))
    assert streams.resolve(first, PROXIED, leader=None, rng=Random(seed + 1)) == first
    parsed = streams.parse(first, PROXIED)
    assert parsed.toxic == toxic
    assert parsed.proxies


WORDS = [*(kind.value for kind in Kind), "on", ">", ",", "clients", "servers", "zk1", "c1", "leader"]
WORDS += ["200ms", "10kB", "64B", "every", "8kbit", "0ms"]
WORDS += ["a follower", "upstream", "downstream", "toxicity", "50%", "jitter", "varying", "\u0665", "%", "B"]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=60))
def test_any_words_are_a_fault_or_refused(target: str) -> None:
    try:
        streams.check(target, PROXIED)
    except ValueError as problem:
        assert "\n" not in str(problem)
    else:
        resolved = streams.resolve(target, PROXIED, leader=1, rng=Random(0))
        streams.parse(resolved, PROXIED)

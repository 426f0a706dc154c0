"""Faults of TCP streams: what becomes of them, and of which.

::

    latency 200ms on clients             all streams from client hosts to servers
    latency 200ms on clients > zk2       those to one server (several are parted by commas)
    reset_peer 100ms on c1 > zk2         those of one client host to one server
    timeout 0ms on servers               all streams between servers
    bandwidth 100kbit on zk1 > zk2       those that zk1 has opened to zk2
    latency 50ms on servers > leader     those that the others have opened to the leader: it is they who connect to it
    down on clients > a follower
    latency 200ms on clients upstream    only what goes to the server (`downstream`: only what comes from it)
    timeout 0ms on clients toxicity 50%  only so many connections

Toxics are those of `harness.nemesis.toxics`. A host may be `leader`, `a follower` or `random` (any server). Faults
that overlap on a proxy add up; a proxy has its toxics in the order in which the faults began.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from harness.errors import FaultError
from harness.nemesis.toxics import Kind, ToxicSpec, parse_toxic
from harness.topology.model import Topology
from harness.topology.proxies import Proxy, Service, proxies_of
from harness.topology.toml_document import allowed_words, nearest, value_text

LEADER, FOLLOWER, RANDOM = "leader", "a follower", "random"
HOST_ROLES = (LEADER, FOLLOWER, RANDOM)
CLIENTS, SERVERS = "clients", "servers"

#: The least share of connections, in per cent: fewer could be told from none by hundreds of connections only.
_LEAST_SHARE = 10
#: The most that can be told from no toxic downstream, where a server's longest answer has 16 kB and its vote 230
#: bytes: kilobytes per second of bandwidth, bytes of the others.
_SEEN_BY_CLIENTS = {Kind.BANDWIDTH: 375, Kind.SLICER: 512, Kind.LIMIT_DATA: 10_000}
_SEEN_BETWEEN_SERVERS = {Kind.BANDWIDTH: 5, Kind.SLICER: 50, Kind.LIMIT_DATA: 200}
#: Of a server's greeting to another, bytes: one whose end comes later than its beginning is not understood.
_GREETING = 32

_TARGET = re.compile(
    r"(?P<toxic>.+?) on (?P<sources>[^>]+?)(?:\s*>\s*(?P<servers>[^>]+?))?"
    r"(?: (?P<way>upstream|downstream))?(?: toxicity (?P<share>\d{1,3})%)?",
    re.ASCII,
)


class Way(StrEnum):
    """Which way bytes go through a stream: to the server, or from it."""

    UP = "upstream"
    DOWN = "downstream"


@dataclass(frozen=True)
class Stream:
    """A fault of streams with everything decided."""

    toxic: ToxicSpec
    proxies: tuple[Proxy, ...]
    ways: tuple[Way, ...] = tuple(Way)
    #: The share of connections, from 0 to 1.
    toxicity: float = 1.0


def parse(target: str, topology: Topology) -> Stream:
    """A fault that says where by names: what `resolve` returns.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    match = _match(target)
    toxic = parse_toxic(match["toxic"])
    ways = (Way(match["way"]),) if match["way"] else tuple(Way)
    stream = Stream(toxic, _proxies(match, topology), ways, _share(match["share"]))
    if toxic.kind is Kind.DOWN and (match["way"] or match["share"]):
        raise ValueError("a proxy is down for all connections and both ways; allowed: down on SOURCE [> SERVER]")
    _refuse_unseen(stream)
    return stream


def check(target: str, topology: Topology) -> None:
    """Refuse what this topology does not have; a role stands for every server that may turn out to hold it.

    Raises:
        ValueError: as `parse`.
    """
    if not is_role(target):
        parse(target, topology)
        return
    if FOLLOWER in target and len(topology.participants) < 2:
        raise ValueError("a single participant has no follower")
    names = [server.host for server in (topology.servers if RANDOM in target else topology.participants)]
    for place, name in enumerate(names):
        roles = {LEADER: name, RANDOM: name, FOLLOWER: names[(place + 1) % len(names)]}
        parse(_replaced(target, roles.__getitem__), topology)


def is_role(target: str) -> bool:
    """Whether only the running ensemble or the seed can say where it is."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return False
    words = f"{match['sources']},{match['servers'] or ''}".split(",")
    return any(word.strip() in HOST_ROLES for word in words)


def resolve(target: str, topology: Topology, *, leader: int | None, rng: Random) -> str:
    """The same fault with everything named.

    Raises:
        FaultError: there is no leader, and it takes one.
        ValueError: as `check`.
    """
    check(target, topology)
    if not is_role(target):
        return target

    def one(role: str) -> str:
        if role == RANDOM:
            return _draw([server.host for server in topology.servers], rng)
        led = _leader(leader, target)
        return led if role == LEADER else _draw([s.host for s in topology.participants if s.host != led], rng)

    return _replaced(target, one)


# --- the grammar --------------------------------------------------------------------------------------------


def _match(target: str) -> re.Match[str]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(
            f"{value_text(target)} does not say what and where; allowed: TOXIC on SOURCE [> SERVER] "
            "[upstream|downstream] [toxicity N%], as in latency 200ms on clients > zk2"
        )
    return match


def _share(text: str | None) -> float:
    if text is None:
        return 1.0
    if not _LEAST_SHARE <= int(text) <= 100:
        raise ValueError(f"found {value_text(f'{text}%')}; allowed: a toxicity from {_LEAST_SHARE}% to 100%")
    return int(text) / 100


def _proxies(match: re.Match[str], topology: Topology) -> tuple[Proxy, ...]:
    clients = [host.name for host in topology.client_hosts]
    servers = [server.host for server in topology.servers]
    sources = _named(match["sources"], {CLIENTS: clients, SERVERS: servers}, [*clients, *servers])
    targets = _named(match["servers"] or SERVERS, {SERVERS: servers}, servers)
    known = proxies_of(topology)
    if not known:
        raise ValueError("it has no proxies; write [proxies] into it, or take the topology proxied")
    found = tuple(p for p in known if p.source in sources and p.destination in targets)
    if not found:
        raise ValueError(f"no stream from {match['sources']} to {match['servers'] or SERVERS} passes a proxy there")
    return found


def _named(text: str, groups: dict[str, list[str]], known: list[str]) -> set[str]:
    """The hosts that a list of names and groups means."""
    found: set[str] = set()
    for word in (word.strip() for word in text.split(",")):
        if word not in groups and word not in known:
            allowed = [*groups, *known, *HOST_ROLES]
            raise ValueError(
                f"there is no host {value_text(word)}; {nearest(word, allowed)}allowed: {allowed_words(allowed)}"
            )
        found.update(groups.get(word, [word]))
    return found


def _refuse_unseen(stream: Stream) -> None:
    """What a probe could not tell from no toxic, because it is downstream alone and servers do not say so much."""
    toxic, between = stream.toxic, any(p.service is not Service.CLIENT for p in stream.proxies)
    if toxic.kind is Kind.SLICER and between and Way.UP in stream.ways and toxic.size < _GREETING:
        raise ValueError(
            f"servers refuse whose greeting comes in pieces, so between them found {value_text(f'{toxic.size}B')}; "
            f"allowed: a size from {_GREETING}B"
        )
    if stream.ways != (Way.DOWN,):
        return
    seen = _SEEN_BETWEEN_SERVERS if between else _SEEN_BY_CLIENTS
    most = seen.get(toxic.kind)
    found = toxic.rate if toxic.kind is Kind.BANDWIDTH else toxic.size + toxic.variation
    if most is not None and found > most:
        shown = ToxicSpec(toxic.kind, rate=most, size=most, time_ms=toxic.time_ms).text()
        raise ValueError(f"{toxic.text()} could not be seen downstream alone; allowed: up to {shown}")


# --- roles --------------------------------------------------------------------------------------------------


def _replaced(target: str, host: Callable[[str], str]) -> str:
    """The target with a host in place of each role."""
    match = _match(target)
    text = target
    for name in ("servers", "sources"):  # from the end, so that what was found stays where it is
        if match[name] is not None:
            words = [_place(word, host) for word in match[name].split(",")]
            text = text[: match.start(name)] + ",".join(words) + text[match.end(name) :]
    return text


def _place(word: str, host: Callable[[str], str]) -> str:
    role = word.strip()
    return word.replace(role, host(role)) if role in HOST_ROLES else word


def _leader(leader: int | None, target: str) -> str:
    if leader is None:
        raise FaultError(
            "there is no leader to aim at",
            where=f"stream {target}",
            cause="an election is going on, or an earlier fault has taken the quorum away",
            next_step="leave more time between the faults, or name a server",
        )
    return f"zk{leader}"


def _draw(names: Iterable[str], rng: Random) -> str:
    names = [*names]
    return names[int(rng.random() * len(names))]

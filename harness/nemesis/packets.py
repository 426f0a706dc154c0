"""Faults of packets: which effects they suffer, and where.

::

    delay 200ms on net1              every packet that passes this switch, once
    loss 10% on zk2                  what a host sends and receives, on all its networks
    loss 10% on zk2:net1             on one of them
    loss 10% on zk2:net1 in          only what it receives (`out`: sends)
    delay 50ms on zk1 > zk2,zk3      only from one to others; on all networks
    delay 50ms on zk1 > zk2 over net1

Effects are those of `harness.nemesis.effects`. Several switches or NICs are parted by commas. A host may be `leader`,
`a follower` or `random`, and a switch `a switch`, which the seed chooses.

Where two faults hold on one NIC, delays add up and shares of chance are independent; two of rate, jitter, reorder or
loss in bursts are refused, because a NIC has one queue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from harness.errors import FaultError
from harness.nemesis.effects import merge, parse_effects
from harness.testbed.wire import Effects, Shape, Side
from harness.topology.model import Topology
from harness.topology.toml_document import allowed_words, nearest, value_text

LEADER, FOLLOWER, RANDOM, A_SWITCH = "leader", "a follower", "random", "a switch"
HOST_ROLES = (LEADER, FOLLOWER, RANDOM)

_TARGET = re.compile(
    r"(?P<effects>.+?) on (?P<where>[^>]+?)"
    r"(?: (?P<side>in|out)|\s*>\s*(?P<peers>[\w., -]+?)(?: over (?P<over>[\w,-]+))?)?",
    re.ASCII,
)
_BOTH = (Side.OUT, Side.IN)

#: A way through one NIC.
_Way = tuple[str, str, Side, str | None]


@dataclass(frozen=True)
class Packets:
    """A fault of packets with everything decided."""

    effects: Effects
    shapes: tuple[Shape, ...]


def parse(target: str, topology: Topology) -> Packets:
    """A fault that says where by names: what `resolve` returns.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    match = _match(target)
    effects = parse_effects(match["effects"])
    ways = _ways(match, topology)
    return Packets(effects, tuple(Shape(host, switch, side, effects, peer) for host, switch, side, peer in ways))


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
        for switch in topology.switch_names:
            parse(_replaced(target, roles.__getitem__, switch), topology)


def is_role(target: str) -> bool:
    """Whether only the running ensemble or the seed can say where it is."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return False
    words = re.split(r"[,:]", ",".join(match[name] or "" for name in ("where", "peers")))
    return any(word.strip() in (*HOST_ROLES, A_SWITCH) for word in words)


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

    return _replaced(target, one, _draw(topology.switch_names, rng) if A_SWITCH in target else "")


def clash(one: str, other: str, topology: Topology) -> str:
    """Why two faults cannot hold at once, in half a sentence; empty where they can, or where roles hide it."""
    if is_role(one) or is_role(other):
        return ""
    try:
        combine((*parse(one, topology).shapes, *parse(other, topology).shapes))
    except ValueError as problem:
        return str(problem)
    return ""


def combine(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """The same with one shape for each way through a NIC, as the testbed wants it.

    What holds for all peers holds for each of those that something else holds for, too.

    Raises:
        ValueError: two of them cannot hold at once.
    """
    found: dict[_Way, list[Shape]] = {}
    for shape in shapes:
        found.setdefault((shape.host, shape.switch, shape.side, shape.peer), []).append(shape)
    combined: list[Shape] = []
    for (host, switch, side, peer), some in found.items():
        for_all = found.get((host, switch, side, None), ()) if peer is not None else ()
        if len(some) == 1 and not for_all:
            combined += some
            continue
        try:
            merged = merge([shape.effects for shape in (*some, *for_all)])
        except ValueError as problem:
            raise ValueError(f"{problem}: {host}:{switch} {side.value}") from None
        combined.append(Shape(host, switch, side, merged, peer))
    return tuple(combined)


# --- the grammar --------------------------------------------------------------------------------------------


def _match(target: str) -> re.Match[str]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(
            f"{value_text(target)} does not say what and where; allowed: EFFECTS on SWITCH, on HOST, on HOST:SWITCH "
            "[in|out], or on HOST > HOST,HOST [over SWITCH], as in delay 200ms on net1"
        )
    return match


def _ways(match: re.Match[str], topology: Topology) -> list[_Way]:
    places = [place.strip() for place in match["where"].split(",")]
    ways: list[_Way] = []
    for place in places:
        if match["peers"] is not None:
            ways += _to_peers(place, match, topology)
        elif place in topology.switch_names:
            if match["side"]:
                raise ValueError(f"a switch has no {value_text(match['side'])}: a packet passes {place} once")
            # each path through a switch leaves it by one port
            ways += [(nic.host, place, Side.IN, None) for nic in topology.nics() if nic.switch == place]
        else:
            sides = (Side(match["side"]),) if match["side"] else _BOTH
            ways += [(host, switch, side, None) for host, switch in _nics(place, topology) for side in sides]
    if len(set(ways)) != len(ways):
        raise ValueError(f"{value_text(match['where'])} names a NIC twice")
    return ways


def _to_peers(source: str, match: re.Match[str], topology: Topology) -> list[_Way]:
    own = {switch for _host, switch in _nics(source, topology)}
    if ":" in source:
        raise ValueError(f"{value_text(source)} is not a host; networks are said with over, as in zk1 > zk2 over net1")
    over = match["over"].split(",") if match["over"] else topology.switch_names
    for switch in over:
        _known(switch, topology.switch_names, "switch")
    nics = {(nic.host, nic.switch): str(nic.address) for nic in topology.nics()}
    ways: list[_Way] = []
    for peer in (peer.strip() for peer in match["peers"].split(",")):
        _known(peer, [host.host for host in topology.hosts], "host")
        ways += [
            (source, switch, Side.OUT, nics[peer, switch])
            for switch in over
            if peer != source and switch in own and (peer, switch) in nics
        ]
    if not ways:
        raise ValueError(f"{value_text(match['peers'])} is nobody that {source} has a network in common with")
    return ways


def _nics(place: str, topology: Topology) -> list[tuple[str, str]]:
    host, colon, switch = place.partition(":")
    names = [known.host for known in topology.hosts]
    if not colon and host not in names:
        _known(place, [*names, *topology.switch_names], "host or switch")
    _known(host, names, "host")
    plugged = [nic.switch for nic in topology.nics() if nic.host == host]
    if not colon:
        return [(host, name) for name in plugged]
    if switch not in plugged:
        raise ValueError(f"{host} has no NIC on {value_text(switch)}; allowed: {allowed_words(plugged)}")
    return [(host, switch)]


def _known(name: str, names: Iterable[str], what: str) -> None:
    names = [*names]
    if name not in names:
        raise ValueError(
            f"there is no {what} {value_text(name)}; {nearest(name, names)}allowed: {allowed_words(names)}"
        )


# --- roles --------------------------------------------------------------------------------------------------


def _replaced(target: str, host: Callable[[str], str], switch: str) -> str:
    """The target with a host in place of each role, and a switch in place of `a switch`."""
    match = _match(target)
    text = target
    for name in ("peers", "where"):  # from the end, so that what was found stays where it is
        if match[name] is not None:
            pieces = re.split(r"([,:])", match[name])
            words = [_place(piece, host, switch) for piece in pieces]
            text = text[: match.start(name)] + "".join(words) + text[match.end(name) :]
    return text


def _place(piece: str, host: Callable[[str], str], switch: str) -> str:
    word = piece.strip()
    if word in HOST_ROLES:
        return piece.replace(word, host(word))
    return piece.replace(word, switch) if word == A_SWITCH else piece


def _leader(leader: int | None, target: str) -> str:
    if leader is None:
        raise FaultError(
            "there is no leader to aim at",
            where=f"packets {target}",
            cause="an election is going on, or an earlier fault has taken the quorum away",
            next_step="leave more time between the faults, or name a server",
        )
    return f"zk{leader}"


def _draw(names: Iterable[str], rng: Random) -> str:
    names = [*names]
    return names[int(rng.random() * len(names))]

"""Partitions: who does not hear whom, on which networks, on which port, in silence or refused.

::

    halves               a majority and the rest, drawn by the seed
    isolate zk2          one server hears nobody, and nobody hears it (any role of one server, as `isolate leader`)
    deaf zk2, mute zk2   the same in one direction: it hears nobody; nobody hears it
    minority             as many as may fail, the leader not among them, cut off from the others
    majorities-ring      every server hears a majority, and no two the same one
    bridge               two halves that only one server hears both of
    one-way              of every two servers one does not hear the other
    zk1 | zk2,zk3        groups: who is in none of them, as client hosts mostly, is cut off from nobody
    zk1 > zk2,zk3        what zk1 sends does not arrive at zk2 and zk3; several of these are parted by `;`

followed, in this order and where wanted, by

* `over net1,net2`, else all networks;
* `port quorum` (or `election`, `client`, a number): TCP to that port alone, while everything else passes;
* `rejected`: the sender is told at once, instead of silence.

Shapes are Jepsen's (jepsen.nemesis: `bridge`, `majorities-ring`), with directions and networks added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from harness.errors import FaultError
from harness.testbed.wire import Manner, Rule
from harness.topology.model import CLIENT_PORT, ELECTION_PORT, QUORUM_PORT, Topology
from harness.topology.toml_document import allowed_words, nearest, value_text

#: The shapes that need no server to be named.
SHAPES = ("halves", "minority", "majorities-ring", "bridge", "one-way")
#: What is said of one server.
ALONE = ("isolate", "deaf", "mute")
#: The roles that one server may be named by.
ROLES = ("leader", "a follower", "random")
PORTS = {"quorum": QUORUM_PORT, "election": ELECTION_PORT, "client": CLIENT_PORT}

_TARGET = re.compile(
    r"(?P<who>.+?)(?: over (?P<over>[\w,-]+))?(?: port (?P<port>\w+))?(?P<rejected> rejected)?", re.ASCII
)

#: One direction: what the first sends does not arrive at the second.
Pair = tuple[str, str]


@dataclass(frozen=True)
class Partition:
    """A partition with everything decided."""

    pairs: tuple[Pair, ...]
    switches: tuple[str, ...]
    #: TCP to this port alone; None: everything.
    port: int | None
    manner: Manner

    def rules(self, topology: Topology) -> tuple[Rule, ...]:
        """The packet filters that make it."""
        nics = {(nic.host, nic.switch): nic for nic in topology.nics()}
        return tuple(
            Rule(receiver, str(nics[sender, switch].address), self.manner, self.port_at(receiver, topology))
            for sender, receiver in self.pairs
            for switch in self.switches
            if (sender, switch) in nics and (receiver, switch) in nics
        )

    def port_at(self, host: str, topology: Topology) -> int | None:
        """The port as that host has it."""
        return None if self.port is None else topology.port_at(host, self.port)


def parse(target: str, topology: Topology) -> Partition:
    """A partition that says who by names: what `resolve` returns.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    who, switches, port, manner = _parts(target, topology)
    return Partition(tuple(_pairs(who, topology)), switches, port, manner)


def check(target: str, topology: Topology) -> None:
    """Refuse what this topology does not have.

    Raises:
        ValueError: as `parse`.
    """
    who, _switches, _port, _manner = _parts(target, topology)
    word, _, server = who.partition(" ")
    if who in SHAPES:
        least = 4 if who == "majorities-ring" else 3
        if len(topology.participants) < least:
            raise ValueError(f"{value_text(who)} takes {least} participants at least")
    elif word in ALONE:
        names = [s.host for s in topology.servers]
        if server not in (*names, *ROLES):
            raise ValueError(
                f"there is no server {value_text(server)}; {nearest(server, names)}allowed: "
                f"{allowed_words([*names, *ROLES])}"
            )
    else:
        _pairs(who, topology)


def is_role(target: str) -> bool:
    """Whether only the running ensemble or the seed can say who it is."""
    match = _TARGET.fullmatch(target)
    who = match["who"] if match else target
    return not (">" in who or "|" in who)


def resolve(target: str, topology: Topology, *, leader: int | None, rng: Random) -> str:
    """The same partition with everybody named.

    Raises:
        FaultError: there is no leader, and it takes one.
        ValueError: as `check`.
    """
    check(target, topology)
    if not is_role(target):
        return target
    match = _TARGET.fullmatch(target)
    assert match is not None, "it was checked"
    who, rest = match["who"], target[match.end("who") :]
    word, _, server = who.partition(" ")
    if word in ALONE:
        return _alone(word, one_server(server, topology, leader, rng), topology) + rest
    hosts = [s.host for s in topology.participants]
    drawn = shuffled(hosts, rng)
    match who:
        case "halves":
            text = groups_text(drawn[: topology.quorum_size], drawn[topology.quorum_size :])
        case "minority":
            spare = [h for h in drawn if h != _leader_host(leader, who)]
            few = spare[: len(hosts) - topology.quorum_size]
            text = groups_text(few, [h for h in hosts if h not in few])
        case "bridge":
            middle = (len(drawn) - 1) // 2
            text = "; ".join(_both(drawn[:middle], drawn[middle + 1 :]))
        case "majorities-ring":
            text = "; ".join(_ring(drawn, topology.quorum_size))
        case _:
            text = "; ".join(f"{a}>{b}" if rng.random() < 0.5 else f"{b}>{a}" for a, b in combinations(hosts, 2))
    return text + rest


# --- the grammar --------------------------------------------------------------------------------------------


def _parts(target: str, topology: Topology) -> tuple[str, tuple[str, ...], int | None, Manner]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"{value_text(target)} is not a partition")
    who = match["who"].strip()
    word = who.partition(" ")[0]
    if who not in SHAPES and word not in ALONE and not set(who) & {"|", ">"}:
        known = allowed_words([*SHAPES, *(f"{w} SERVER" for w in ALONE)])
        raise ValueError(
            f"there is no partition {value_text(who)}; {nearest(who, SHAPES)}allowed: {known}, A | B, A > B"
        )
    switches = tuple(match["over"].split(",")) if match["over"] else topology.switch_names
    for name in switches:
        if name not in topology.switch_names:
            raise ValueError(
                f"there is no switch {value_text(name)}; {nearest(name, topology.switch_names)}allowed: "
                f"{allowed_words(topology.switch_names)}"
            )
    return who, switches, _port(match["port"]), Manner.REJECT if match["rejected"] else Manner.DROP


def _port(text: str | None) -> int | None:
    if text is None or text in PORTS:
        return PORTS[text] if text else None
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError(f"{value_text(text)} is not a port; allowed: {allowed_words(PORTS)}, a number up to 65535")
    return int(text)


def _pairs(who: str, topology: Topology) -> list[Pair]:
    if "|" in who:
        groups = [_names(group, topology) for group in who.split("|")]
        flat = [name for group in groups for name in group]
        if len(set(flat)) != len(flat):
            raise ValueError(f"{value_text(who)} has a host in two groups")
        return [(a, b) for one in groups for other in groups if one is not other for a in one for b in other]
    pairs: list[Pair] = []
    for arrow in who.split(";"):
        senders, found, receivers = arrow.partition(">")
        if not found or ">" in receivers:
            raise ValueError(f"{value_text(arrow.strip())} is not of the form A > B")
        pairs += [(a, b) for a in _names(senders, topology) for b in _names(receivers, topology) if a != b]
    return list(dict.fromkeys(pairs))


def _names(text: str, topology: Topology) -> list[str]:
    known = [host.host for host in topology.hosts]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(
                f"there is no host {value_text(name)}; {nearest(name, known)}allowed: {allowed_words(known)}"
            )
    return names


# --- the shapes ---------------------------------------------------------------------------------------------


def one_server(server: str, topology: Topology, leader: int | None, rng: Random) -> str:
    """The host that one of `ROLES` means at this moment; a name is what it is.

    Raises:
        FaultError: there is no leader, and it takes one.
    """
    match server:
        case "leader":
            return _leader_host(leader, server)
        case "a follower":
            led = _leader_host(leader, server)
            return _draw([s.host for s in topology.participants if s.host != led], rng)
        case "random":
            return _draw([s.host for s in topology.servers], rng)
    return server


def _leader_host(leader: int | None, who: str) -> str:
    if leader is None:
        raise FaultError(
            "there is no leader to aim at",
            where=who,
            cause="an election is going on, or an earlier fault has taken the quorum away",
            next_step="leave more time between the faults, or name a server",
        )
    return f"zk{leader}"


def _alone(word: str, host: str, topology: Topology) -> str:
    others = ",".join(s.host for s in topology.servers if s.host != host)
    return {"isolate": f"{host} | {others}", "deaf": f"{others} > {host}", "mute": f"{host} > {others}"}[word]


def groups_text(*groups: Iterable[str]) -> str:
    """`zk1,zk2 | zk3`."""
    return " | ".join(",".join(sorted(group)) for group in groups)


def _both(one: Sequence[str], other: Sequence[str]) -> list[str]:
    return [f"{','.join(one)}>{','.join(other)}", f"{','.join(other)}>{','.join(one)}"]


def _ring(hosts: Sequence[str], quorum: int) -> list[str]:
    """Each is on speaking terms with its nearest neighbours in a ring, itself included a majority at least."""
    count, reach = len(hosts), quorum // 2
    cut = []
    for place, host in enumerate(hosts):
        near = {hosts[(place + step) % count] for step in range(-reach, reach + 1)}
        if far := sorted(set(hosts) - near):
            cut.append(f"{','.join(far)}>{host}")
    return cut


def shuffled(hosts: Sequence[str], rng: Random) -> list[str]:
    """All of them in an order that the seed draws."""
    pool = list(hosts)
    return [pool.pop(int(rng.random() * len(pool))) for _ in hosts]


def _draw(hosts: Sequence[str], rng: Random) -> str:
    return hosts[int(rng.random() * len(hosts))]

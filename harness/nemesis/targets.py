"""What a fault may be aimed at: the grammar of targets, their check against a topology, and how roles become names.

::

    switch   a switch's name, or `random`
    host     zk2, the name of a client host, `leader`, `a follower`, or `random` (any server)
    link     host:switch, as `zk2:net1`, `leader:net1`, `a follower:random`
    servers  2, zk2, several as `zk1,zk3`, or a role:

    leader      the leader at that moment
    a follower  one participant that is not the leader
    minority    as many participants as may fail while the others are still a quorum; never the leader, so that the
                loss is one that an ensemble survives without an election (aim at `leader` for that one)
    majority    as few participants as are a majority, the leader among them; the others are no quorum
    all         every server, observers too
    random      any one server, observers too

    partition   see `harness.nemesis.partitions`
    packets     see `harness.nemesis.packets`
    stream      see `harness.nemesis.streams`

A target with a rhythm, islands, a clock and so on is one of the above, a colon, and what `rhythm`, `islands`,
`clocks`, `disks`, `damage`, `limits` describe: `net1:500ms`, `leader:ahead 5s`.

Choices are drawn with `Random.random()` alone, the one method whose sequence Python promises to keep for a seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Protocol, TypeVar

from harness.errors import FaultError
from harness.nemesis import clocks, damage, disks, islands, limits, packets, partitions, rhythm, streams
from harness.nemesis.kinds import OF_SERVERS, Aim
from harness.topology.model import ClientHost, Server, Topology
from harness.topology.toml_document import allowed_words, nearest, value_text

T = TypeVar("T")

LEADER = "leader"
FOLLOWER = "a follower"
MINORITY = "minority"
MAJORITY = "majority"
ALL = "all"
RANDOM = "random"

SERVER_ROLES = (LEADER, FOLLOWER, MINORITY, MAJORITY, ALL, RANDOM)
HOST_ROLES = (LEADER, FOLLOWER, RANDOM)
SWITCH_ROLES = (RANDOM,)


class _Grammar(Protocol):
    """A module that knows all of a target."""

    def is_role(self, target: str, /) -> bool:
        """Whether it contains a role."""
        ...

    def check(self, target: str, topology: Topology, /) -> None:
        """Refuse what this topology does not have, by a ValueError."""
        ...

    def resolve(self, target: str, topology: Topology, /, *, leader: int | None, rng: Random) -> str:
        """Roles become names."""
        ...


#: Checks what is behind the colon of a target.
_MANNERS: Mapping[Aim, Callable[[str], object]] = {
    Aim.SWITCH_RHYTHM: rhythm.parse,
    Aim.LINK_RHYTHM: rhythm.parse,
    Aim.CLOCK: clocks.parse,
    Aim.DISK: disks.parse,
    Aim.DAMAGE: damage.parse,
    Aim.LIMIT: limits.parse,
}
#: Targets that have a grammar of their own altogether.
_GRAMMARS: Mapping[Aim, _Grammar] = {Aim.PARTITION: partitions, Aim.PACKETS: packets, Aim.STREAM: streams}
#: What is before that colon.
_PARTS = {
    Aim.SWITCH_RHYTHM: Aim.SWITCH,
    Aim.LINK_RHYTHM: Aim.LINK,
    Aim.SPLIT: Aim.SWITCH,
    **dict.fromkeys(OF_SERVERS, Aim.SERVERS),
}

_SERVER = re.compile(r"(?:zk)?([1-9]\d?)", re.ASCII)


def server_ids(target: str) -> tuple[int, ...]:
    """The ids in a resolved target of servers: `(1, 3)` for `zk1,zk3`.

    Raises:
        ValueError: it is not a resolved target, but a role for instance.
    """
    ids: list[int] = []
    for part in target.split(","):
        match = _SERVER.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{value_text(part)} is not a server")
        ids.append(int(match[1]))
    if len(set(ids)) != len(ids):
        raise ValueError(f"{value_text(target)} names a server twice")
    return tuple(ids)


def link_parts(target: str) -> tuple[str, str]:
    """`("zk2", "net1")` for `zk2:net1`.

    Raises:
        ValueError: not of that form.
    """
    host, colon, switch = target.partition(":")
    if not (host and colon and switch) or ":" in switch:
        raise ValueError(f"{value_text(target)} is not host:switch")
    return host, switch


def target_parts(aim: Aim, target: str) -> tuple[str, str]:
    """What a fault is aimed at, and how it is to be: `("zk2:net1", "500ms")`; the second is empty for most aims.

    Raises:
        ValueError: not of that form.
    """
    if aim not in _PARTS:
        return target, ""
    if aim is Aim.LINK_RHYTHM:
        part, colon, manner = target.rpartition(":")
    else:
        part, colon, manner = target.partition(":")
    if not (part and colon and manner):
        raise ValueError(f"{value_text(target)} is not {':'.join(aim.keys)}")
    return part, manner


def is_role(aim: Aim, target: str) -> bool:
    """Whether a target is, or contains, a role that only the running ensemble or the seed can resolve."""
    if aim in _PARTS:
        part, manner = target_parts(aim, target)
        return is_role(_PARTS[aim], part) or (aim is Aim.SPLIT and islands.is_role(manner))
    if aim in _GRAMMARS:
        return _GRAMMARS[aim].is_role(target)
    if aim is Aim.SWITCH:
        return target in SWITCH_ROLES
    if aim is Aim.LINK:
        host, switch = link_parts(target)
        return host in HOST_ROLES or switch in SWITCH_ROLES
    return target in SERVER_ROLES


def conflict(aim: Aim, one: str, other: str) -> bool:
    """Whether two targets are certain to have a part in common. Of roles only `all` is certain before the run."""
    if aim in _PARTS:
        return conflict(_PARTS[aim], target_parts(aim, one)[0], target_parts(aim, other)[0])
    if aim is not Aim.SERVERS:
        return one == other and not is_role(aim, one)
    if ALL in (one, other):
        return all(t == ALL or t not in SERVER_ROLES for t in (one, other))
    if one in SERVER_ROLES or other in SERVER_ROLES:
        return False
    return bool(set(one.split(",")) & set(other.split(",")))


def check_target(aim: Aim, target: str, topology: Topology) -> None:
    """Refuse a target that this topology does not have, or may turn out not to have.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    if aim in _PARTS:
        part, manner = target_parts(aim, target)
        check_target(_PARTS[aim], part, topology)
        if aim is Aim.SPLIT:
            islands.check(manner, part, topology)
        else:
            _MANNERS[aim](manner)
    elif aim in _GRAMMARS:
        _GRAMMARS[aim].check(target, topology)
    elif aim is Aim.SWITCH:
        _check_switch(target, topology)
    elif aim is Aim.LINK:
        _check_link(target, topology)
    else:
        _check_servers(target, topology)


def resolve_target(
    aim: Aim,
    target: str,
    topology: Topology,
    *,
    leader: int | None,
    rng: Random,
    busy: Collection[str] = frozenset(),
) -> str:
    """The concrete target that a target means at this moment: `net1`, `zk2:net1`, or `zk1,zk3`.

    Args:
        aim: what the fault's kind is aimed at.
        target: a name, which stays what it is, or a role.
        topology: what there is.
        leader: the id of the current leader, or None if there is none or it is not known.
        rng: decides where there is a choice; not used where there is none.
        busy: concrete targets that the same kind of fault holds already; they are not chosen again.

    Raises:
        FaultError: the role has no holder at this moment.
        ValueError: the target is not one of this topology's, see `check_target`.
    """
    check_target(aim, target, topology)
    if aim in _PARTS:
        part, manner = target_parts(aim, target)
        held = {target_parts(aim, other)[0] for other in busy}
        part = resolve_target(_PARTS[aim], part, topology, leader=leader, rng=rng, busy=held)
        if aim is Aim.SPLIT:
            manner = islands.resolve(manner, part, topology, leader=leader, rng=rng)
        return f"{part}:{manner}"
    if aim in _GRAMMARS:
        return _GRAMMARS[aim].resolve(target, topology, leader=leader, rng=rng)
    taken = {part for held in busy for part in held.split(",")}
    if aim is Aim.SWITCH:
        return target if target != RANDOM else _draw([n for n in topology.switch_names if n not in taken], target, rng)
    if aim is Aim.LINK:
        return _resolve_link(target, topology, leader, rng, taken)
    return ",".join(s.host for s in _resolve_servers(target, topology, leader, rng, taken))


def minority_size(topology: Topology) -> int:
    """How many participants may fail while the others are still a quorum."""
    return len(topology.participants) - topology.quorum_size


def _resolve_link(target: str, topology: Topology, leader: int | None, rng: Random, taken: Collection[str]) -> str:
    host, switch = link_parts(target)
    hosts: Sequence[Server | ClientHost]
    if host == LEADER:
        hosts = [_leader(topology, leader)]
    elif host == FOLLOWER:
        hosts = _followers(topology, leader)
    elif host == RANDOM:
        hosts = topology.servers
    else:
        hosts = [h for h in topology.hosts if h.host == host]
    # The host is drawn first, so that a host with more NICs is not drawn more often.
    choices = {h.host: [n.name for n in h.nics if switch in (n.switch, RANDOM) and n.name not in taken] for h in hosts}
    if not is_role(Aim.LINK, target):
        return target
    chosen = _draw([name for name, nics in choices.items() if nics], target, rng)
    return _draw(choices[chosen], target, rng)


def _resolve_servers(
    target: str, topology: Topology, leader: int | None, rng: Random, taken: Collection[str]
) -> Sequence[Server]:
    if target not in SERVER_ROLES:
        return [topology.server(server_id) for server_id in server_ids(target)]
    if target == ALL:
        return topology.servers
    if target == LEADER:
        return [_leader(topology, leader)]
    if target in (FOLLOWER, RANDOM):
        candidates = topology.servers if target == RANDOM else _followers(topology, leader)
        return [_draw([s for s in candidates if s.host not in taken], target, rng)]
    first = [s for s in topology.participants if s.id == leader and target == MAJORITY]
    size = minority_size(topology) if target == MINORITY else topology.quorum_size
    others = _sample([s for s in topology.participants if s.id != leader], size - len(first), rng)
    return sorted((*first, *others), key=lambda s: s.id)


def _leader(topology: Topology, leader: int | None) -> Server:
    for server in topology.servers:
        if server.id == leader:
            return server
    raise FaultError(
        "there is no leader to aim at",
        cause="an election is going on, or an earlier fault has taken the quorum away",
        next_step="leave more time between the faults, or aim at a server by its id",
    )


def _followers(topology: Topology, leader: int | None) -> list[Server]:
    _leader(topology, leader)  # without one there are no followers either
    return [s for s in topology.participants if s.id != leader]


def _draw(choices: Sequence[T], target: str, rng: Random) -> T:
    if not choices:
        raise FaultError(
            f"nothing is left that {value_text(target)} could mean",
            cause="other steps of the plan hold every candidate at this moment",
            next_step="let fewer faults overlap",
        )
    if len(choices) == 1:
        return choices[0]
    return choices[int(rng.random() * len(choices))]


def _sample(servers: Sequence[Server], size: int, rng: Random) -> list[Server]:
    pool = list(servers)
    return [pool.pop(int(rng.random() * len(pool))) for _ in range(size)]


def _check_switch(target: str, topology: Topology) -> None:
    if target != RANDOM and target not in topology.switch_names:
        raise ValueError(_unknown("switch", target, topology.switch_names, SWITCH_ROLES))


def _check_link(target: str, topology: Topology) -> None:
    host, switch = link_parts(target)
    _check_switch(switch, topology)
    if host not in HOST_ROLES:
        _check_plugged(host, switch, topology)
        return
    voting = host in (LEADER, FOLLOWER)
    candidates = topology.participants if voting else topology.servers
    plugged = [s for s in candidates if switch == RANDOM or any(n.switch == switch for n in s.nics)]
    needed = {LEADER: len(candidates), FOLLOWER: 2, RANDOM: 1}[host]
    if host == FOLLOWER and len(candidates) < needed:
        raise ValueError("a single participant has no follower")
    if len(plugged) < needed:
        # A link that only some of them have would make the run depend on who is elected.
        lacking = next(s.host for s in candidates if s not in plugged)
        raise ValueError(f"{value_text(host)} may be {lacking}, which has no NIC on {value_text(switch)}")


def _check_plugged(host: str, switch: str, topology: Topology) -> None:
    for candidate in topology.hosts:
        if candidate.host == host:
            plugged = [n.switch for n in candidate.nics]
            if switch not in (RANDOM, *plugged):
                raise ValueError(f"{host} has no NIC on {value_text(switch)}; allowed: {allowed_words(plugged)}")
            return
    raise ValueError(_unknown("host", host, [h.host for h in topology.hosts], HOST_ROLES))


def _check_servers(target: str, topology: Topology) -> None:
    if target == MINORITY and minority_size(topology) < 1:
        raise ValueError(f"none of {len(topology.participants)} participants may fail, so a minority is nobody")
    if target == FOLLOWER and len(topology.participants) < 2:
        raise ValueError("a single participant has no follower")
    if target in SERVER_ROLES:
        return
    hosts = [s.host for s in topology.servers]
    try:
        ids = server_ids(target)
    except ValueError as problem:
        if "," in target:
            raise
        raise ValueError(_unknown("server", target, hosts, SERVER_ROLES)) from problem
    for server_id in ids:
        if f"zk{server_id}" not in hosts:
            raise ValueError(_unknown("server", f"zk{server_id}", hosts, SERVER_ROLES))


def _unknown(what: str, name: str, names: Sequence[str], roles: Sequence[str]) -> str:
    allowed = allowed_words([*names, *roles])
    return f"there is no {what} {value_text(name)}; {nearest(name, [*names, *roles])}allowed: {allowed}"

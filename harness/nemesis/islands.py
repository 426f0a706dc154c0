"""The islands that a switch falls into: its hosts in groups, and no frame passes from one group to another.

::

    zk1,c1 | zk2,zk3     every host of the switch in one of the islands
    zk1,c1 | others      `others` are those that are not named
    leader | others      roles are `leader` and `a follower`; of client hosts any may be named beside them
    halves               a majority of its servers and the rest, drawn by the seed; client hosts are dealt to both

A port is always on one side or the other. So, unlike in a partition, a host that is in no island is not passed over but
refused: whoever forgets the client host would measure something else than what was meant. What is plugged into the
switch and not in the topology, as other containers on an engine's network may be, is in the last island.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from harness.nemesis.partitions import groups_text, one_server, shuffled
from harness.topology.model import Topology
from harness.topology.toml_document import allowed_words, nearest, value_text

HALVES, OTHERS = "halves", "others"
#: The roles that one server may be named by.
ROLES = ("leader", "a follower")
#: In place of the name of a switch: any of them.
_ANY_SWITCH = "random"

Islands = tuple[tuple[str, ...], ...]


def parse(target: str, switch: str, topology: Topology) -> Islands:
    """Islands that are said by names: what `resolve` returns.

    Raises:
        ValueError: as `check`.
    """
    check(target, switch, topology)
    return tuple(tuple(names) for names in _named(_words(target), switch, topology))


def is_role(target: str) -> bool:
    """Whether only the running ensemble or the seed can say who it is."""
    return target.strip() == HALVES or any(word in ROLES for island in _words(target) for word in island)


def check(target: str, switch: str, topology: Topology) -> None:
    """Refuse what this topology does not have, or may turn out not to have.

    Args:
        target: as the module describes it.
        switch: its name, or `random`.
        topology: what there is.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    for name in topology.switch_names if switch == _ANY_SWITCH else (switch,):
        _check(target, name, topology)


def resolve(target: str, switch: str, topology: Topology, *, leader: int | None, rng: Random) -> str:
    """The same islands with everybody named.

    Raises:
        FaultError: there is no leader, and it takes one.
        ValueError: as `check`.
    """
    check(target, switch, topology)
    if target.strip() == HALVES:
        return groups_text(*_halves(switch, topology, rng))
    words = [[one_server(w, topology, leader, rng) if w in ROLES else w for w in island] for island in _words(target)]
    return groups_text(*_named(words, switch, topology))


def _words(target: str) -> list[list[str]]:
    return [[word.strip() for word in island.split(",")] for island in target.split("|")]


def _hosts(switch: str, topology: Topology) -> list[str]:
    return [nic.host for nic in topology.nics() if nic.switch == switch]


def _named(words: Sequence[Sequence[str]], switch: str, topology: Topology) -> list[list[str]]:
    """The islands with `others` spelt out."""
    said = {word for island in words for word in island}
    rest = [host for host in _hosts(switch, topology) if host not in said]
    return [[name for word in island for name in (rest if word == OTHERS else [word])] for island in words]


def _halves(switch: str, topology: Topology, rng: Random) -> tuple[list[str], list[str]]:
    plugged = _hosts(switch, topology)
    servers = shuffled([s.host for s in topology.servers if s.host in plugged], rng)
    most = len(servers) // 2 + 1
    one, other = servers[:most], servers[most:]
    for client in shuffled([c.host for c in topology.client_hosts if c.host in plugged], rng):
        min(other, one, key=len).append(client)
    if not other:
        other.append(one.pop())
    return one, other


def _check(target: str, switch: str, topology: Topology) -> None:
    plugged = _hosts(switch, topology)
    if target.strip() == HALVES:
        if len(plugged) < 2:
            raise ValueError(f"{value_text(HALVES)} takes two hosts at least, and {switch} has {len(plugged)}")
        return
    words = _words(target)
    if len(words) < 2:
        known = allowed_words([HALVES])
        hint = nearest(target.strip(), [HALVES])
        raise ValueError(f"{value_text(target)} is one island; {hint}allowed: {known}, A | B")
    said = Counter(word for island in words for word in island)
    for word in said:
        _check_word(word, switch, topology, plugged)
    if twice := [word for word, times in said.items() if times > 1]:
        raise ValueError(f"{value_text(twice[0])} is in {value_text(target)} twice")
    _check_roles(said, switch, topology, plugged)
    _check_rest(said, switch, plugged)


def _check_word(word: str, switch: str, topology: Topology, plugged: Sequence[str]) -> None:
    if word in (*plugged, *ROLES, OTHERS):
        return
    if word in [host.host for host in topology.hosts]:
        raise ValueError(f"{word} has no NIC on {value_text(switch)}; allowed: {allowed_words(plugged)}")
    allowed = [*plugged, *ROLES, OTHERS]
    raise ValueError(f"there is no host {value_text(word)}; {nearest(word, allowed)}allowed: {allowed_words(allowed)}")


def _check_roles(said: Counter[str], switch: str, topology: Topology, plugged: Sequence[str]) -> None:
    for role in ROLES:
        if role not in said:
            continue
        if role != ROLES[0] and len(topology.participants) < 2:
            raise ValueError("a single participant has no follower")
        for server in topology.participants:
            if server.host in said:
                raise ValueError(f"{value_text(role)} may be {server.host}, which is named, too")
            if server.host not in plugged:
                raise ValueError(f"{value_text(role)} may be {server.host}, which has no NIC on {value_text(switch)}")


def _check_rest(said: Counter[str], switch: str, plugged: Sequence[str]) -> None:
    """Everybody is in an island, and nobody is looked for in vain."""
    unnamed = [host for host in plugged if host not in said]
    left = len(unnamed) - sum(role in said for role in ROLES)
    if OTHERS in said and left <= 0:
        raise ValueError(f"{value_text(OTHERS)} is nobody: every host of {switch} is in another island")
    if OTHERS not in said and left > 0:
        who = allowed_words(unnamed)
        raise ValueError(f"of {switch} not all of {who} are in an island; name them, or say {value_text(OTHERS)}")

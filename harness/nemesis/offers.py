"""Which kinds of fault are offered where, why not, and where the same kind is not quite the same fault.

Faults are made of what all testbeds have: links, and signals to a server's first process. So every kind is offered on
every testbed, except for servers that somebody else started in a way that a fault would not survive, or would not feel.
A plan is held against this before anything is started; `zkchaos doctor` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.targets import is_role, server_ids

#: Kinds that end a server's process, and those that stop it by a signal.
_ENDING = ("kill", "restart", "crash-loop", "restart-storm", "rolling-restart", "slow-start")
_STOPPING = ("pause", "slow-start")
#: What a server's first process is called, where it is the server itself, or where nobody can say.
_SERVER = ("java", "")

_REMOVED = "its container is removed when it ends (`--rm`), with all its data"
_SHIELDED = "the first process of its container is {process}, which would be stopped in place of the server"

#: Kinds that servers must have been started for, and why somebody else's were not.
_UNPREPARED = {
    "clock": "a server's clock can only be set where it was started with libfaketime, by the harness itself",
    "disk": "a server's disk can only fail where it was mounted through the harness before the server was started",
    "damage": "somebody else's data, which the harness could not put aside, is not its to damage",
    "limit": "what limits somebody else has given a container would be lost if the harness were killed",
    "stream": "what somebody else's clients and servers say to each other passes no proxy of the harness",
}
#: What a testbed does not offer, whoever started the servers.
_NO_DISKS = (
    "not on an engine: it would have to see the mounts of a server's disk, which would then outlive a killed harness"
)
_NOT_OFFERED = {
    "docker": {
        "disk": _NO_DISKS,
        "stream": "not between servers: their proxies would stand in their containers' networks, which come and go",
    },
    "docker-helper": {
        "disk": _NO_DISKS,
        "stream": "not through a helper container: how a connection ends, which proves it, does not pass the relay",
    },
}

#: For the table of what is offered; what can be said before an ensemble is known.
_NOT_WITH_RM = "not where a container is removed when it ends (`--rm`): its data would go with it"
_NOT_SHIELDED = (
    "not where a container's first process is another than the server (`init: true`, a shell): the signal would stop "
    "that one in place of the server"
)
_ATTACHED = {
    **_UNPREPARED,
    **dict.fromkeys(_ENDING, _NOT_WITH_RM),
    **dict.fromkeys(_STOPPING, _NOT_SHIELDED),
    "slow-start": f"{_NOT_WITH_RM}; and {_NOT_SHIELDED}",
}
_CONTAINER_ENDS = (
    "the server's NICs vanish with its container until it is started again: who connects meanwhile gets no answer, "
    "where on namespaces it is refused at once"
)
_DIFFERENCES = dict.fromkeys((*_ENDING, "limit"), _CONTAINER_ENDS)
_ATTACHED_DIFFERENCES = {
    **dict.fromkeys(("switch-down", "switch-flap"), "it cuts off whatever else is on that network, too"),
    "switch-split": "whatever else is on that network is on the last island",
    **dict.fromkeys(
        _STOPPING, "the engine takes the signal for a wish to end it: its restart policy rests until its next start"
    ),
}


@dataclass(frozen=True)
class Guest:
    """A server that somebody else started in a container, as far as it matters to what can be done to it."""

    host: str
    #: The name of its container's first process, which is the one that the engine sends signals to.
    first_process: str = ""
    #: Whether the engine removes the container when it ends.
    removed_at_end: bool = False


@dataclass(frozen=True)
class Offer:
    """One kind of fault in one place."""

    kind: str
    #: Of which servers it is not offered, and why; empty where it is offered of all.
    unless: str = ""
    #: Whether that is all of them.
    never: bool = False
    #: In what it differs from the same kind on namespaces, where it does.
    differs: tuple[str, ...] = ()


def offers(testbed: str, *, attached: bool = False) -> tuple[Offer, ...]:
    """Every kind of fault on a testbed, in the order of the table of kinds.

    Args:
        testbed: `namespaces`, `docker`, `docker-helper`.
        attached: whether the servers are somebody else's.
    """
    differences = ([] if testbed == "namespaces" else [_DIFFERENCES]) + ([_ATTACHED_DIFFERENCES] if attached else [])
    unless = _ATTACHED if attached else _NOT_OFFERED.get(testbed, {})
    never = set(_UNPREPARED if attached else unless) - ({"stream"} if testbed == "docker" and not attached else set())
    return tuple(
        Offer(kind, unless.get(kind, ""), kind in never, tuple(d[kind] for d in differences if kind in d))
        for kind in KINDS
    )


def refusal(kind: str, target: str, guests: Iterable[Guest]) -> str:
    """Why a kind of fault is not offered of a target; empty where it is.

    Args:
        kind: a name in `KINDS`.
        target: as in a plan; a role may turn out to be any server.
        guests: the servers that are somebody else's.
    """
    if kind in _UNPREPARED:
        return next((f"{guest.host}: {_UNPREPARED[kind]}" for guest in guests), "")
    if KINDS[kind].aim is not Aim.SERVERS:
        return ""
    hosts = None if is_role(Aim.SERVERS, target) else {f"zk{number}" for number in server_ids(target)}
    for guest in guests:
        if hosts is not None and guest.host not in hosts:
            continue
        if reason := _refusal_of(kind, guest):
            return f"{guest.host}: {reason}"
    return ""


def _refusal_of(kind: str, guest: Guest) -> str:
    if kind in _ENDING and guest.removed_at_end:
        return _REMOVED
    if kind in _STOPPING and guest.first_process not in _SERVER:
        return _SHIELDED.format(process=guest.first_process)
    return ""

"""The kinds of fault there are: what each is called, what it is aimed at, and whether it lasts.

This table is the one place that says so. The loader of plans, their check against a topology, and the command line
read it; a new kind is one more line here and its implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Aim(StrEnum):
    """What a kind of fault is aimed at."""

    SWITCH = "switch"
    #: One NIC of one host, written `host:switch`.
    LINK = "link"
    #: One server's process or several.
    SERVERS = "servers"
    #: Who does not hear whom, see `partitions`.
    PARTITION = "partition"
    #: What becomes of packets and where, see `packets`.
    PACKETS = "packets"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a step that say it, all of them required."""
        return _KEYS[self]


_KEYS = {
    Aim.SWITCH: ("switch",),
    Aim.LINK: ("host", "switch"),
    Aim.SERVERS: ("server",),
    Aim.PARTITION: ("partition",),
    Aim.PACKETS: ("packets",),
}


@dataclass(frozen=True)
class FaultKind:
    """One line of the table."""

    name: str
    aim: Aim
    #: Whether a step says how long it lasts (`for`); a fault that does not last heals by itself.
    lasts: bool
    #: One line for people.
    summary: str


KINDS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("switch-down", Aim.SWITCH, True, "a switch dies: no frame passes between any two of its ports"),
        FaultKind("link-down", Aim.LINK, True, "one NIC of one host loses its cable"),
        FaultKind("partition", Aim.PARTITION, True, "some hosts do not hear others, in one direction or in both"),
        FaultKind(
            "packets", Aim.PACKETS, True, "packets are late, lost, doubled, damaged, overtaken, or few at a time"
        ),
        FaultKind("kill", Aim.SERVERS, True, "a server's process dies by SIGKILL, and is started again"),
        FaultKind("pause", Aim.SERVERS, True, "a server's process is stopped by SIGSTOP, and goes on by SIGCONT"),
        FaultKind("restart", Aim.SERVERS, False, "a server's process ends by SIGTERM, and is started again at once"),
    )
}

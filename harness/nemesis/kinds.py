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
    #: A switch, and how often it dies and comes back, see `rhythm`.
    SWITCH_RHYTHM = "switch and rhythm"
    LINK_RHYTHM = "link and rhythm"
    #: A switch, and the islands that its ports fall into, see `islands`.
    SPLIT = "switch and islands"
    #: What becomes of TCP streams through proxies, see `streams`.
    STREAM = "stream"
    #: Servers, and what becomes of their wall clock, their disk, their data, or what they get of the machine; see
    #: `clocks`, `disks`, `damage`, `limits`.
    CLOCK = "servers and clock"
    DISK = "servers and disk"
    DAMAGE = "servers and damage"
    LIMIT = "servers and limit"

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
    Aim.SWITCH_RHYTHM: ("switch", "every"),
    Aim.LINK_RHYTHM: ("host", "switch", "every"),
    Aim.SPLIT: ("switch", "islands"),
    Aim.STREAM: ("stream",),
    Aim.CLOCK: ("server", "clock"),
    Aim.DISK: ("server", "disk"),
    Aim.DAMAGE: ("server", "damage"),
    Aim.LIMIT: ("server", "limit"),
}

#: Aims whose target is servers, a colon, and what becomes of them.
OF_SERVERS = frozenset({Aim.CLOCK, Aim.DISK, Aim.DAMAGE, Aim.LIMIT})


@dataclass(frozen=True)
class FaultKind:
    """One line of the table."""

    name: str
    aim: Aim
    #: Whether a step says how long it lasts (`for`); a fault that does not last heals by itself.
    lasts: bool
    #: One line for people.
    summary: str
    #: What servers must be started with so that the fault can reach them later: `clocks`, `disks`; mostly nothing.
    prepared: str = ""


KINDS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("switch-down", Aim.SWITCH, True, "a switch dies: no frame passes between any two of its ports"),
        FaultKind("link-down", Aim.LINK, True, "one NIC of one host loses its cable"),
        FaultKind("switch-flap", Aim.SWITCH_RHYTHM, True, "a switch dies and comes back, again and again"),
        FaultKind("switch-split", Aim.SPLIT, True, "a switch falls into islands: no frame passes between two of them"),
        FaultKind("link-flap", Aim.LINK_RHYTHM, True, "one NIC's cable loses contact, again and again"),
        FaultKind("nic-down", Aim.LINK, True, "one NIC of one host is set down, and its host knows it"),
        FaultKind("partition", Aim.PARTITION, True, "some hosts do not hear others, in one direction or in both"),
        FaultKind(
            "packets", Aim.PACKETS, True, "packets are late, lost, doubled, damaged, overtaken, or few at a time"
        ),
        FaultKind("stream", Aim.STREAM, True, "TCP streams through a proxy are slow, cut, reset or stalled"),
        FaultKind("kill", Aim.SERVERS, True, "a server's process dies by SIGKILL, and is started again"),
        FaultKind("pause", Aim.SERVERS, True, "a server's process is stopped by SIGSTOP, and goes on by SIGCONT"),
        FaultKind("restart", Aim.SERVERS, False, "a server's process ends by SIGTERM, and is started again at once"),
        FaultKind("crash-loop", Aim.SERVERS, True, "a server's process dies each time soon after it was started"),
        FaultKind("restart-storm", Aim.SERVERS, True, "servers' processes die at random moments, and start again"),
        FaultKind("rolling-restart", Aim.SERVERS, False, "servers restart one by one, each when the last serves"),
        FaultKind("slow-start", Aim.SERVERS, True, "a server's process dies, and its next start takes long"),
        FaultKind("limit", Aim.LIMIT, True, "a server's process gets little of the processor, or of memory", "limits"),
        FaultKind("clock", Aim.CLOCK, True, "a server's wall clock is wrong, jumps, or drifts", "clocks"),
        FaultKind("disk", Aim.DISK, True, "a server's disk is full, read-only, slow, or fails", "disks"),
        FaultKind("damage", Aim.DAMAGE, True, "a server dies, and finds its data damaged when it is started again"),
    )
}

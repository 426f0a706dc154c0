"""Cables, switches and NICs: how they are cut and parted, and what the kernel says of them."""

from __future__ import annotations

import msgspec


class LinkChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cut or restore one switch (all its ports lose their carrier) or one port of one switch."""

    switch: str
    #: None: the whole switch.
    host: str | None
    up: bool
    #: Of a whole switch: the hosts whose ports stay as they are.
    but: tuple[str, ...] = ()


class SetLinks(msgspec.Struct, frozen=True, tag=True):
    """Apply changes as one batch."""

    changes: tuple[LinkChange, ...]


class NicChange(msgspec.Struct, frozen=True):
    """Set one NIC of one host up or down, as its host does it."""

    host: str
    switch: str
    up: bool


class SetNics(msgspec.Struct, frozen=True, tag=True):
    """Apply changes as one batch; a NIC that was up before has its addresses and routes back afterwards."""

    changes: tuple[NicChange, ...]


class Split(msgspec.Struct, frozen=True):
    """A switch in islands of hosts. Whatever else is plugged into it is in the last one."""

    switch: str
    islands: tuple[tuple[str, ...], ...]

    def parts(self, switch: str, one: str, other: str) -> bool:
        """Whether it is between two hosts on a switch."""
        return switch == self.switch and not any(one in island and other in island for island in self.islands)


class SetSplits(msgspec.Struct, frozen=True, tag=True):
    """Let these splits hold, of all switches, and no others."""

    splits: tuple[Split, ...]


class GetLinks(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every switch and port as the kernel has it."""


class LinkState(msgspec.Struct, frozen=True):
    """One switch (`host` None) or one port, and whether it is up."""

    switch: str
    host: str | None
    up: bool


class Links(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetLinks."""

    links: tuple[LinkState, ...]


class GetNics(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every NIC on these switches, as its host's kernel has it."""

    switches: tuple[str, ...]


class NicState(msgspec.Struct, frozen=True):
    """A host's end of a cable; one of a container that does not run is as it will find it."""

    switch: str
    host: str
    #: Its interface index there, which a container's next NIC does not have again; 0 while there is none.
    index: int
    up: bool
    #: Whether there is somebody at the other end, and how often there was suddenly not.
    carrier: bool = False
    losses: int = 0


class Nics(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetNics."""

    nics: tuple[NicState, ...]

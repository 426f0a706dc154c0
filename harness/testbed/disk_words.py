"""What a disk is told, and what it and whoever tries it answer: a JSON object in a line, over a socket."""

from __future__ import annotations

from enum import StrEnum

import msgspec

#: Where a disk and its trial find their end of the socket; see `processes.CHANNEL_DESCRIPTOR`.
CHANNEL = 3


class Ailment(StrEnum):
    """What is the matter with a disk."""

    #: ENOSPC on whatever needs space: a write, a new name, a longer file. What is there can be read and removed.
    FULL = "full"
    #: EROFS on whatever would change something, on files that are open for writing, too.
    READ_ONLY = "read-only"
    #: EIO on writing and on forcing data to the disk.
    FAILING = "failing"
    #: Forcing data to the disk takes so much longer.
    SLOW = "slow"
    #: Whatever would change something, or force data to the disk, hangs.
    STUCK = "stuck"


class DiskState(msgspec.Struct, frozen=True):
    """How a disk is to be from now on."""

    ailment: Ailment | None = None
    #: Of `Ailment.SLOW`: by how much, milliseconds.
    slow_ms: float = 0.0


class Settled(msgspec.Struct, frozen=True):
    """It is so now: the answer to each `DiskState`. The first one, which nobody asked for: the disk is mounted."""


class Tried(msgspec.Struct, frozen=True):
    """What became of a scratch file that was made, written and forced to the disk."""

    #: The call that failed (`create`, `write`, `fsync`), or nothing.
    failed: str
    errno: int
    #: How long the last call took that was made, milliseconds.
    took_ms: float

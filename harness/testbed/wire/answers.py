"""What the agent says first, and of whatever it is asked to change."""

from __future__ import annotations

import msgspec


class Ready(msgspec.Struct, frozen=True, tag=True):
    """First message of the agent: it stands in its namespaces."""

    rootless: bool
    #: The Python that it runs in, and the PYTHONPATH that it was started with.
    python: str
    pythonpath: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """Carried out, between two monotonic instants in nanoseconds."""

    started: int
    ended: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The agent could not do it. The fields are those of `ZkChaosError`; `errno` as the kernel gave it."""

    kind: str
    what: str
    where: str = ""
    cause: str = ""
    next_step: str = ""
    errno: int = 0

"""streams: the grammar."""

from __future__ import annotations

from random import Random

from harness.topology.model import Topology


def is_role(target: str) -> bool:
    """Whether it contains a role."""
    raise NotImplementedError(target)


def check(target: str, topology: Topology) -> None:
    """Refuse what this topology does not have.

    Raises:
        ValueError: half a sentence.
    """
    raise NotImplementedError(target)


def resolve(target: str, topology: Topology, *, leader: int | None, rng: Random) -> str:
    """Roles become names."""
    raise NotImplementedError(target)

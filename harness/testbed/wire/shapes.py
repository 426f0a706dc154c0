"""What becomes of packets that pass a NIC."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Spread(StrEnum):
    """How delays are spread around their middle."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


class Chain(msgspec.Struct, frozen=True, gc=False):
    """Loss that comes in bursts (Gilbert and Elliott): a path is good or bad, and may change with each packet."""

    to_bad: float
    to_good: float
    lost_in_bad: float = 1.0
    lost_in_good: float = 0.0


class Effects(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What becomes of packets that pass a NIC. Shares are from 0 to 1."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    spread: Spread = Spread.UNIFORM
    #: How much of each delay's deviation is the one before it.
    correlation: float = 0.0
    loss: float = 0.0
    bursts: Chain | None = None
    duplicate: float = 0.0
    #: The share that is not delayed, and so overtakes.
    reorder: float = 0.0
    #: The share in which one bit is turned over.
    corrupt: float = 0.0
    #: Bits per second, of whole frames; 0: as many as may be.
    rate: int = 0


class Side(StrEnum):
    """Which way packets go through a NIC, as its host sees it."""

    OUT = "out"
    IN = "in"


class Shape(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What becomes of packets that go one way through one NIC."""

    host: str
    switch: str
    side: Side
    effects: Effects
    #: Only those to (`OUT`) or from (`IN`) this address; None: all others.
    peer: str | None = None


class SetShapes(msgspec.Struct, frozen=True, tag=True):
    """Let these shapes hold, on all NICs, and no others; at most one for a NIC, side and peer."""

    shapes: tuple[Shape, ...]


class GetLacking(msgspec.Struct, frozen=True, tag=True):
    """Try in an empty namespace what shapes are made of, and tell what the kernel refuses."""


class Lacking(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetLacking: what the kernel said, by the name of what it refused (`netem`, ...)."""

    refusals: dict[str, str]

"""What sch_netem is told: its options as the kernel reads them (`include/uapi/linux/pkt_sched.h`).

pyroute2 has a part of them; distributions, loss in bursts and delays in nanoseconds are not in it, so the options are
written here and sent in its messages. Distributions are tables of the quantiles of one standard deviation.
"""

from __future__ import annotations

import statistics
import struct
from functools import cache

from harness.testbed.wire import Effects, Spread

#: A table's value for one standard deviation (NETEM_DIST_SCALE), and how many values it has.
DIST_SCALE = 8192
_TABLE_SIZE = 4096
#: Packets that may wait; the kernel's own 1000 would lose packets of a fast path with half a second of delay.
_LIMIT = 100_000
_CORRELATION, _DISTRIBUTION, _REORDER, _CORRUPT, _LOSS, _RATE = 1, 2, 3, 4, 5, 6
_LATENCY_64, _JITTER_64 = 10, 11
#: In `_LOSS`: the model of Gilbert and Elliott.
_GILBERT_ELLIOTT = 2
_NESTED = 0x8000
_ALL = 2**32 - 1


def options(effects: Effects) -> bytes:
    """The whole of TCA_OPTIONS."""
    gap = 1 if effects.reorder else 0
    body = struct.pack("=6I", 0, _LIMIT, _share(effects.loss), gap, _share(effects.duplicate), 0)
    # all of them, always: a queue that is changed keeps what it is not told
    body += _attribute(_LATENCY_64, struct.pack("=q", round(effects.delay_ms * 1e6)))
    body += _attribute(_JITTER_64, struct.pack("=q", round(effects.jitter_ms * 1e6)))
    body += _attribute(_CORRELATION, struct.pack("=3I", _share(effects.correlation), 0, 0))
    body += _attribute(_REORDER, struct.pack("=2I", _share(effects.reorder), 0))
    body += _attribute(_CORRUPT, struct.pack("=2I", _share(effects.corrupt), 0))
    body += _attribute(_RATE, struct.pack("=IiIi", effects.rate // 8, 0, 0, 0))
    if effects.jitter_ms:
        body += _attribute(_DISTRIBUTION, struct.pack(f"={_TABLE_SIZE}h", *table(effects.spread)))
    if chain := effects.bursts:
        shares = (chain.to_bad, chain.to_good, 1 - chain.lost_in_bad, chain.lost_in_good)
        model = _attribute(_GILBERT_ELLIOTT, struct.pack("=4I", *map(_share, shares)))
        body += _attribute(_LOSS | _NESTED, model)
    return body


@cache
def table(spread: Spread) -> tuple[int, ...]:
    """Quantiles in units of 1/`DIST_SCALE` standard deviations, from the smallest to the largest.

    The formulas are those of iproute2's `netem/normal.c`, `pareto.c` (a = 3) and `paretonormal.c` (a quarter of the
    one and three quarters of the other).
    """
    shares = [(i + 0.5) / _TABLE_SIZE for i in range(_TABLE_SIZE)]
    normal = [statistics.NormalDist().inv_cdf(share) for share in shares]
    pareto = [((1 - share) ** (-1 / 3) - 1.5) * 4 / 3 for share in shares]
    match spread:
        case Spread.UNIFORM:
            values = [2 * share - 1 for share in shares]
        case Spread.NORMAL:
            values = normal
        case Spread.PARETO:
            values = pareto
        case Spread.PARETONORMAL:
            values = [(a + 3 * b) / 4 for a, b in zip(normal, pareto, strict=True)]
    return tuple(max(-32768, min(32767, round(value * DIST_SCALE))) for value in values)


def _share(share: float) -> int:
    return round(share * _ALL)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

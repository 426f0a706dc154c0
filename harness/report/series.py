"""Counts, percentiles and connections in bins of the time axis: numbers only, drawn elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.history.records import Operation, Outcome, Sample
from harness.report.axis import Bins, TimeAxis
from harness.report.material import Material
from harness.report.words import NANOSECONDS

#: A run with nothing in it still has an axis of this length, seconds.
LEAST_SPAN = 1.0


def time_axis(material: Material) -> TimeAxis:
    """The axis that holds every operation and every fault of a run, from the start of load to its collection."""
    load = material.phase("load")
    acted = _instants(material)
    phases = [p.at for p in material.phases]
    known = [*acted, *phases, *(s.at for s in material.samples)]
    origin = load.at if load else min(acted or known, default=0)
    closing = material.phase("collect") or material.phase("aborted") or material.phase("done")
    ends = [*acted, closing.at] if closing else known
    # What happened before the load, bringing the servers up, is told elsewhere; a fault or an operation never is.
    start = min([origin, *acted])
    seconds = (max([origin, *ends]) - origin) / NANOSECONDS
    left = (start - origin) / NANOSECONDS
    return TimeAxis(origin, left, max(seconds, left + LEAST_SPAN))


def _instants(material: Material) -> list[int]:
    calls = [o.call for o in material.operations]
    returns = [o.returned for o in material.operations if o.returned is not None]
    edges = [edge(times) for times in (calls, returns) for edge in (min, max) if times]
    return [*edges, *(f.at for f in material.faults)]


class Ending(StrEnum):
    """What became of an operation, for people: a refusal is an answer, and says more than a failure."""

    ACKNOWLEDGED = "acknowledged"
    #: The servers answered that they would not (BadVersion, NoNode, ...): the reply has a zxid of its own.
    REFUSED = "refused"
    #: It was sent, and no answer came.
    INDETERMINATE = "indeterminate"
    #: It was certainly not applied, and no quorum said so: it never left the client, for instance.
    FAILED = "failed"


def ending(operation: Operation) -> Ending:
    """Which of the four."""
    if operation.outcome is Outcome.OK:
        return Ending.ACKNOWLEDGED
    if operation.outcome is Outcome.INFO:
        return Ending.INDETERMINATE
    return Ending.REFUSED if operation.zxid is not None else Ending.FAILED


@dataclass(frozen=True)
class Throughput:
    """How many operations ended in each bin, by what became of them. Every operation is in exactly one bin."""

    bins: Bins
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    refused: tuple[int, ...]
    indeterminate: tuple[int, ...]
    failed: tuple[int, ...]

    def rate(self, counts: Sequence[int]) -> tuple[float, ...]:
        """Counts as operations per second."""
        return tuple(round(c / self.bins.covered(i), 1) for i, c in enumerate(counts))


def throughput(operations: Iterable[Operation], axis: TimeAxis, bins: Bins) -> Throughput:
    """Count operations by the bin of their return; one that never returned by the bin of its call."""
    reads, writes, refused, indeterminate, failed = ([0] * bins.count for _ in range(5))
    others = {Ending.REFUSED: refused, Ending.INDETERMINATE: indeterminate, Ending.FAILED: failed}
    for operation in operations:
        at = operation.call if operation.returned is None else operation.returned
        if operation.outcome is Outcome.OK:
            counts = writes if operation.function.is_write else reads
        else:
            counts = others[ending(operation)]
        counts[bins.index(axis.seconds(at))] += 1
    return Throughput(bins, tuple(reads), tuple(writes), tuple(refused), tuple(indeterminate), tuple(failed))


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time from call to return, seconds, for each bin; None where a bin is empty."""

    bins: Bins
    samples: tuple[int, ...]
    p50: tuple[float | None, ...]
    p95: tuple[float | None, ...]
    p99: tuple[float | None, ...]
    maximum: tuple[float | None, ...]


def latency(operations: Iterable[Operation], axis: TimeAxis, bins: Bins) -> Latency:
    """Latencies of acknowledged operations, by the bin of their call: what a caller of that moment had to wait."""
    times: list[list[int]] = [[] for _ in range(bins.count)]
    for operation in operations:
        if operation.outcome is Outcome.OK and operation.returned is not None:
            times[bins.index(axis.seconds(operation.call))].append(operation.returned - operation.call)
    for each in times:
        each.sort()
    return Latency(
        bins=bins,
        samples=tuple(len(t) for t in times),
        p50=tuple(percentile(t, 50) for t in times),
        p95=tuple(percentile(t, 95) for t in times),
        p99=tuple(percentile(t, 99) for t in times),
        maximum=tuple(percentile(t, 100) for t in times),
    )


def percentile(ascending: Sequence[int], percent: float) -> float | None:
    """The nearest-rank percentile of sorted nanoseconds, in seconds: the least value that so many do not exceed."""
    if not ascending:
        return None
    rank = max(1, math.ceil(percent / 100 * len(ascending) - 1e-9))
    return ascending[rank - 1] / NANOSECONDS


def connections(samples: Iterable[Sample], axis: TimeAxis, bins: Bins) -> dict[int, tuple[int | None, ...]]:
    """Each server's connections: the last sample of each bin, carried on into bins without one; None before any."""
    last: dict[int, list[int | None]] = {}
    for sample in sorted(samples, key=lambda s: s.at):
        row = last.setdefault(sample.server, [None] * bins.count)
        seconds = axis.seconds(sample.at)
        # A sample from before the axis says what the first bin began with.
        if seconds <= axis.end:
            row[bins.index(seconds)] = sample.connections
    return {server: _carried(last[server]) for server in sorted(last)}


def _carried(row: Sequence[int | None]) -> tuple[int | None, ...]:
    carried: list[int | None] = []
    for value in row:
        carried.append(value if value is not None else (carried[-1] if carried else None))
    return tuple(carried)

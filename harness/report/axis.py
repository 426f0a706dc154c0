"""The one time axis of a page: seconds since the start of load, as positions in percent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.report.words import NANOSECONDS, THIN

#: Distances between ticks, seconds. The page's script has the same list, for a zoomed axis.
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

#: Most ticks on the axis.
MAX_TICKS = 10


@dataclass(frozen=True)
class Tick:
    """One labelled place on an axis."""

    #: Percent of the axis' length.
    place: float
    label: str


@dataclass(frozen=True)
class TimeAxis:
    """From `start` to `end`, seconds after `origin`.

    Attributes:
        origin: the start of load, monotonic nanoseconds.
        start: the left edge, seconds; 0 or, where something to be shown came earlier, negative.
        end: the right edge, seconds; always later than `start`.
    """

    origin: int
    start: float
    end: float

    def __post_init__(self) -> None:
        if not self.end > self.start:
            raise ValueError(f"an axis from {self.start} to {self.end} has no length")

    @property
    def span(self) -> float:
        """Its length in seconds."""
        return self.end - self.start

    def seconds(self, at: int) -> float:
        """Seconds since the start of load at monotonic nanosecond `at`."""
        return (at - self.origin) / NANOSECONDS

    def percent(self, seconds: float) -> float:
        """The place of an instant, 0 to 100; what lies beyond an edge is put on the edge."""
        return round(min(max((seconds - self.start) / self.span, 0.0), 1.0) * 100, 3)

    def place(self, at: int) -> float:
        """The place, in percent, of monotonic nanosecond `at`."""
        return self.percent(self.seconds(at))

    def ticks(self) -> tuple[Tick, ...]:
        """At most `MAX_TICKS` round instants, with labels."""
        step = next((s for s in STEPS if self.span / s <= MAX_TICKS), self.span / MAX_TICKS)
        first = math.ceil(self.start / step - 1e-9)
        last = math.floor(self.end / step + 1e-9)
        return tuple(Tick(self.percent(k * step), tick_label(k * step, step)) for k in range(first, last + 1))


def tick_label(seconds: float, step: float) -> str:
    """A tick's label in the unit that suits the distance between ticks."""
    if step >= 3600:
        return f"{seconds / 3600:g}{THIN}h"
    if step >= 60:
        return f"{seconds / 60:g}{THIN}min"
    decimals = 1 if step < 1 else 0
    return f"{seconds:.{decimals}f}{THIN}s"


@dataclass(frozen=True)
class Bins:
    """Equal intervals over an axis; the last one, which ends where the axis does, is half to one and a half as wide."""

    start: float
    end: float
    width: float
    count: int

    def index(self, seconds: float) -> int:
        """The bin of an instant; instants beyond an edge belong to the bin at that edge, so that none is lost."""
        place = int((seconds - self.start) / self.width)
        return 0 if place < 0 else place if place < self.count else self.count - 1

    def left(self, index: int) -> float:
        """Where a bin begins, seconds."""
        return self.start + index * self.width

    def covered(self, index: int) -> float:
        """How long a bin is, seconds."""
        return self.width if index < self.count - 1 else self.end - self.left(index)


#: Most bins over an axis, whatever the length of the run.
MAX_BINS = 300

_WIDTHS = (0.1, 0.2, 0.25, 0.5, *STEPS[3:])


def bins(axis: TimeAxis, items: int) -> Bins:
    """Bins for `items` things spread over `axis`: not so many that the line is all noise, and never over `MAX_BINS`.

    A bin shall hold twenty items on average, as long as sixty bins are left to show a course with.
    """
    width = max(axis.span / MAX_BINS, min(20 * axis.span / max(items, 1), axis.span / 60))
    rounded = next((w for w in _WIDTHS if w >= width * (1 - 1e-9)), width)
    # A last bin that is a sliver would show an absurd rate, so the remainder is added to its neighbour.
    return Bins(axis.start, axis.end, rounded, max(1, math.floor(axis.span / rounded + 0.5)))

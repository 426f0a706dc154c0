"""Geometry of the charts: compact SVG paths in a box of 1000 by 100 that the page stretches to its width.

Strokes and labels are not stretched (`vector-effect`, labels outside of the box), so one drawing serves every
width of a window and every zoom of the time axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.axis import Bins, Tick
from harness.report.series import Latency, Throughput
from harness.report.words import count, duration

#: The box that paths are drawn in.
WIDTH = 1000.0
HEIGHT = 100.0


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        key: names its values in the page's script.
        style: names its colour and its dash in the style sheet.
        stroke: the path of its line; empty for a series of columns.
        fill: the path of the area below it; empty for a bare line.
        values: what it is at each bin, for the readout; None where there is nothing.
    """

    key: str
    style: str
    label: str
    stroke: str
    fill: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """One chart over the time axis."""

    key: str
    title: str
    unit: str
    #: What the chart shows, in a sentence or two, for those who read it and those who cannot see it.
    description: str
    lines: tuple[Line, ...]
    #: Places in percent from the top.
    ticks: tuple[Tick, ...]


def number(value: float) -> str:
    """A coordinate to a tenth, without needless characters."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


@dataclass(frozen=True)
class Grid:
    """Where bins lie in the box, and how values are put into it."""

    bins: Bins

    def left(self, index: int) -> float:
        """The left edge of a bin; of the one after the last, the right edge of the box."""
        if index >= self.bins.count:
            return WIDTH
        return index * self.bins.width / (self.bins.end - self.bins.start) * WIDTH

    def steps(self, heights: Sequence[float | None]) -> str:
        """A stepped line through `heights` (0 at the top), broken where one is None."""
        parts: list[str] = []
        previous: float | None = None
        for index, height in enumerate(heights):
            if height is not None and height != previous:
                x, y = number(self.left(index)), number(height)
                # The line runs on to this bin, then jumps.
                parts.append(f"M{x} {y}" if previous is None else f"H{x}V{y}")
            elif height is None and previous is not None:
                parts.append(f"H{number(self.left(index))}")
            previous = height
        if previous is not None:
            parts.append(f"H{number(WIDTH)}")
        return "".join(parts)

    def columns(self, heights: Sequence[float | None]) -> str:
        """Filled columns from the floor of the box up to `heights`; nothing where one is None or on the floor."""
        parts: list[str] = []
        floor = number(HEIGHT)
        open_at: float | None = None
        for index, height in enumerate([*heights, None]):
            standing = height if height is not None and height < HEIGHT else None
            if standing == open_at:
                continue
            x = number(self.left(index))
            if open_at is None:
                parts.append(f"M{x} {floor}V{number(standing or 0.0)}")
            elif standing is None:
                parts.append(f"H{x}V{floor}Z")
            else:
                parts.append(f"H{x}V{number(standing)}")
            open_at = standing
        return "".join(parts)


@dataclass(frozen=True)
class LinearScale:
    """From 0 at the floor to a round number above the greatest value at the top."""

    top: float

    @classmethod
    def over(cls, greatest: float) -> LinearScale:
        """The scale whose top is the least round number not below `greatest`."""
        if greatest < 1e-6:
            return cls(1.0)
        power = 10.0 ** math.floor(math.log10(greatest))
        return cls(next(m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * power >= greatest * (1 - 1e-9)))

    def height(self, value: float | None) -> float | None:
        """The place of a value, from the top of the box."""
        return None if value is None else HEIGHT * (1 - min(max(value / self.top, 0.0), 1.0))

    def ticks(self) -> tuple[Tick, ...]:
        """Floor, middle and top."""
        return tuple(Tick(100.0 - 50.0 * k, _axis_number(self.top * k / 2)) for k in (0, 1, 2))


def _axis_number(value: float) -> str:
    return count(round(value)) if value.is_integer() else f"{value:g}"


@dataclass(frozen=True)
class LogScale:
    """Whole decades of seconds, from `low` at the floor to `high` at the top (both powers of ten)."""

    low: int
    high: int

    @classmethod
    def over(cls, least: float, greatest: float) -> LogScale:
        """The decades that hold both values, at least two of them."""
        low = math.floor(math.log10(max(least, 1e-6)) + 1e-9)
        high = math.ceil(math.log10(max(greatest, 1e-6)) - 1e-9)
        return cls(low, max(high, low + 2))

    def height(self, value: float | None) -> float | None:
        """The place of a value, from the top of the box."""
        if value is None:
            return None
        share = (math.log10(max(value, 1e-6)) - self.low) / (self.high - self.low)
        return HEIGHT * (1 - min(max(share, 0.0), 1.0))

    def ticks(self) -> tuple[Tick, ...]:
        """One a decade."""
        decades = self.high - self.low
        return tuple(
            Tick(round(100.0 - 100.0 * k / decades, 2), duration(10.0 ** (self.low + k)).replace(".0", ""))
            for k in range(decades + 1)
        )


def throughput_chart(data: Throughput, load_end: float) -> Chart:
    """Answers as lines; operations without one as columns; nothing after the load's end."""
    rates = {
        "reads": data.rate(data.reads),
        "writes": data.rate(data.writes),
        "refused": data.rate(data.refused),
        "failed": data.rate(data.failed),
        "lost": data.rate(data.indeterminate),
    }
    # The columns are stacked: those of failed operations reach above, and are painted before, the indeterminate ones.
    drawn = rates | {"failed": data.rate([a + b for a, b in zip(data.failed, data.indeterminate, strict=True)])}
    scale = LinearScale.over(max(max(values) for values in drawn.values()))
    grid = Grid(data.bins)
    lines = []
    for key, values in drawn.items():
        heights = [scale.height(v) if v or data.bins.left(i) < load_end else None for i, v in enumerate(values)]
        stroke = grid.steps(heights) if key in ("reads", "writes", "refused") else ""
        fill = grid.columns(heights) if key != "refused" else ""
        lines.append(Line(key, key, "indeterminate" if key == "lost" else key, stroke, fill, rates[key]))
    return Chart(
        key="throughput",
        title="Throughput",
        unit="/s",
        description=(
            "Operations per second by the time of their return. Answers are lines: acknowledged reads and writes, and "
            "requests that the servers refused (such as a set of an outdated version). Columns are indeterminate "
            "operations (sent, and no answer came) and failed ones (certainly never applied). "
            f"One bin is {duration(data.bins.width)}."
        ),
        lines=tuple(lines),
        ticks=scale.ticks(),
    )


def latency_chart(data: Latency) -> Chart:
    """Percentiles as stepped lines over a logarithmic scale."""
    # From the highest line to the lowest: the order of the legend is that of the picture, and the median is on top.
    series = {"max": data.maximum, "p99": data.p99, "p95": data.p95, "p50": data.p50}
    known = [v for values in series.values() for v in values if v is not None]
    scale = LogScale.over(min(known, default=1e-3), max(known, default=1e-1))
    grid = Grid(data.bins)
    lines = tuple(
        Line(
            key=key,
            style=key,
            label="median" if key == "p50" else key,
            stroke=grid.steps([scale.height(v) for v in values]),
            fill="",
            values=tuple(None if v is None else round(v * 1e3, 2) for v in values),
        )
        for key, values in series.items()
    )
    return Chart(
        key="latency",
        title="Latency",
        unit="ms",
        description=(
            "How long acknowledged operations took, by the time of their call: median, 95th and 99th percentile "
            "(nearest rank) and maximum, on a logarithmic scale. Operations that got no answer are not in it."
        ),
        lines=lines,
        ticks=scale.ticks(),
    )


def connection_charts(rows: dict[int, tuple[int | None, ...]], bins: Bins) -> tuple[tuple[Chart, ...], str]:
    """One small chart a server, all on the same scale, so that they can be compared by eye; and its top."""
    greatest = max((v for row in rows.values() for v in row if v is not None), default=0)
    scale = LinearScale.over(float(max(greatest, 1)))
    grid = Grid(bins)
    charts = []
    for server, row in rows.items():
        heights = [scale.height(v) for v in row]
        line = Line(
            f"connections-zk{server}", "connections", "connections", grid.steps(heights), grid.columns(heights), row
        )
        charts.append(
            Chart(
                key=f"connections-zk{server}",
                title=f"zk{server}",
                unit="",
                description=f"Client connections of server zk{server}; at most {greatest} on any server.",
                lines=(line,),
                ticks=(),
            )
        )
    return tuple(charts), _axis_number(scale.top)

"""Everything over the one time axis: fault bars, lanes, witness marks, charts, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from harness.check.verdict import Verdict, Witness
from harness.report.axis import Bins, Tick, TimeAxis, bins
from harness.report.charts import Chart, connection_charts, latency_chart, throughput_chart
from harness.report.faults import FaultStory
from harness.report.lanes import MAX_CLIENTS, ClientLane, Segment, client_lanes, role_lanes
from harness.report.material import Material
from harness.report.series import connections, latency, throughput
from harness.report.words import instant, shorten

#: Witnesses of one verdict that are listed, and of all that are marked.
MAX_WITNESSES = 20
MAX_MARKS = 40
#: Rows of fault bars that are drawn; where more faults overlap, the further ones are bands only.
MAX_BAR_ROWS = 6
#: Most faults that are drawn.
MAX_BARS = 300
#: How wide a character of a lane's label is at most, and how wide the axis is in the narrowest layout, in a wide
#: window, and when it is enlarged by some factor that is still of use.
PIXELS = 8
ROOMS = {"always": 540, "wide": 880, "zoomed": 10_000}
#: How wide a character of a fault's label is, in percent of the axis in the narrowest layout.
CHARACTER = 1.25
#: The roles that a lane may show, in the order of the legend.
ROLES = ("leader", "follower", "observer", "standalone", "looking", "down", "paused")


@dataclass(frozen=True)
class FaultBar:
    """A fault on the time axis; places in percent."""

    number: int
    label: str
    title: str
    left: float
    width: float
    row: int
    #: Whether the label ends at the bar's right end, for want of room behind its left one.
    at_end: bool
    healed: bool


@dataclass(frozen=True)
class Span:
    """A stretch of a lane, in percent."""

    left: float
    width: float
    state: str
    title: str
    #: Where its label fits without a script: `always`, in a `wide` window, or only when `zoomed`; empty if nowhere.
    room: str = ""


@dataclass(frozen=True)
class Lane:
    """One row."""

    name: str
    spans: tuple[Span, ...]
    description: str


@dataclass(frozen=True)
class Mark:
    """A witness on the time axis, in percent."""

    left: float
    width: float
    title: str
    anchor: str


@dataclass(frozen=True)
class Timeline:
    """What the timeline's template draws."""

    ticks: tuple[Tick, ...]
    bars: tuple[FaultBar, ...]
    bar_rows: int
    marks: tuple[Mark, ...]
    servers: tuple[Lane, ...]
    clients: tuple[Lane, ...]
    clients_left_out: int
    roles: tuple[str, ...]
    charts: tuple[Chart, ...]
    connections: tuple[Chart, ...]
    connections_top: str
    #: The numbers as JSON that may stand inside of a script element.
    data: str


def build_timeline(
    material: Material, verdicts: Iterable[Verdict], faults: Sequence[FaultStory], axis: TimeAxis
) -> Timeline:
    """Aggregate, lay out and bound."""
    shared = bins(axis, len(material.operations))
    lanes = role_lanes(material.samples, faults, axis)
    clients = client_lanes(material.sessions, axis)
    charts: tuple[Chart, ...] = ()
    if material.operations:
        counted = throughput(material.operations, axis, shared)
        charts = (
            throughput_chart(counted, _load_end(material, axis)),
            latency_chart(latency(material.operations, axis, shared)),
        )
    connected, connections_top = connection_charts(connections(material.samples, axis, shared), shared)
    bars = fault_bars(faults[:MAX_BARS], axis)
    return Timeline(
        ticks=axis.ticks(),
        bars=bars,
        bar_rows=min(max((b.row + 1 for b in bars), default=0), MAX_BAR_ROWS),
        marks=_marks(verdicts, axis),
        servers=tuple(_lane(f"zk{s}", segments, axis) for s, segments in lanes.items()),
        clients=tuple(_client_lane(c, axis) for c in clients[:MAX_CLIENTS]),
        clients_left_out=max(0, len(clients) - MAX_CLIENTS),
        roles=tuple(r for r in ROLES if any(s.state == r for lane in lanes.values() for s in lane)),
        charts=charts,
        connections=connected,
        connections_top=connections_top,
        data=_data(axis, shared, (*charts, *connected), lanes),
    )


def _load_end(material: Material, axis: TimeAxis) -> float:
    """After this instant nobody was asked to do anything, so no operation there is no outage."""
    quiesce = material.phase("quiesce")
    return axis.seconds(quiesce.at) if quiesce else axis.end


def fault_bars(faults: Sequence[FaultStory], axis: TimeAxis) -> tuple[FaultBar, ...]:
    """Lay the bars into rows so that neither they nor their labels overlap."""
    free_from: list[float] = []
    bars = []
    for number, fault in enumerate(faults, start=1):
        left = axis.place(fault.began)
        right = axis.place(fault.healed) if fault.healed is not None else 100.0
        length = (len(fault.name) + 2) * CHARACTER
        at_end = left + length > 100 and right >= length
        begin = min(left, right - length) if at_end else left
        row = next((i for i, free in enumerate(free_from) if free <= begin), len(free_from))
        free_from[row : row + 1] = [(right if at_end else max(right, left + length)) + 0.5]
        end = f"to {instant(axis.seconds(fault.healed))}" if fault.healed is not None else "and never healed"
        bars.append(
            FaultBar(
                number=number,
                label=shorten(fault.name, 60),
                title=f"{fault.name}: {instant(axis.seconds(fault.began))} {end}",
                left=left,
                width=round(right - left, 3),
                row=row,
                at_end=at_end,
                healed=fault.healed is not None,
            )
        )
    return tuple(bars)


def listed_witnesses(verdict: Verdict) -> tuple[tuple[str, Witness], ...]:
    """The witnesses that are shown, each with the name of its place on the page."""
    shown = verdict.witnesses[:MAX_WITNESSES]
    return tuple((f"witness-{verdict.guarantee}-{place}", witness) for place, witness in enumerate(shown, start=1))


def _marks(verdicts: Iterable[Verdict], axis: TimeAxis) -> tuple[Mark, ...]:
    marks = []
    for verdict in verdicts:
        for anchor, witness in listed_witnesses(verdict):
            if witness.start is not None:
                left = axis.place(witness.start)
                right = axis.place(witness.end if witness.end is not None else witness.start)
                marks.append(Mark(left, round(right - left, 3), shorten(witness.text, 200), anchor))
    return tuple(marks[:MAX_MARKS])


def _lane(name: str, segments: Sequence[Segment], axis: TimeAxis) -> Lane:
    spans = tuple(_span(name, s, axis) for s in segments)
    return Lane(name, spans, f"{name}: " + "; ".join(_told(s) for s in segments[:12]))


def _told(segment: Segment) -> str:
    return f"{segment.state} {instant(segment.start)} to {instant(segment.end)}"


def _span(name: str, segment: Segment, axis: TimeAxis) -> Span:
    left, right = axis.percent(segment.start), axis.percent(segment.end)
    width = round(right - left, 3)
    needed = len(segment.state) * PIXELS + 10
    fitting = (room for room, axis_pixels in ROOMS.items() if width / 100 * axis_pixels >= needed)
    return Span(left, width, segment.state, f"{name}: {_told(segment)}", next(fitting, ""))


def _client_lane(client: ClientLane, axis: TimeAxis) -> Lane:
    spans = tuple(_span(client.process, gap, axis) for gap in client.gaps)
    told = "; ".join(_told(g) for g in client.gaps[:6]) or "connected all the time"
    return Lane(client.process, spans, f"{client.process}: {told}")


class SeriesData(msgspec.Struct, frozen=True):
    """One line's values, one for each bin."""

    key: str
    unit: str
    values: tuple[float | None, ...]


class LaneData(msgspec.Struct, frozen=True):
    """One server's roles as `[start, end, role]`, seconds."""

    name: str
    segments: tuple[tuple[float, float, str], ...]


class TimelineData(msgspec.Struct, frozen=True):
    """The numbers behind the drawings, for the crosshair and the zoom."""

    start: float
    end: float
    #: Of a bin, seconds.
    width: float
    series: tuple[SeriesData, ...]
    lanes: tuple[LaneData, ...]


def _data(axis: TimeAxis, shared: Bins, charts: Sequence[Chart], lanes: Mapping[int, Sequence[Segment]]) -> str:
    data = TimelineData(
        start=axis.start,
        end=axis.end,
        width=shared.width,
        series=tuple(SeriesData(line.key, chart.unit, line.values) for chart in charts for line in chart.lines),
        lanes=tuple(
            LaneData(f"zk{s}", tuple((round(g.start, 2), round(g.end, 2), g.state) for g in segments))
            for s, segments in lanes.items()
        ),
    )
    # A "<" would let a recorded string end the script element.
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")

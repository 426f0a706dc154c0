"""Everything that the page says, ready to be filled into the templates: bounded, in order, not yet HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from harness.check.recovery import FaultRecovery
from harness.check.verdict import Figure, Finding, Judgement, Overall, Verdict, Witness
from harness.history.folder import RunFolder
from harness.history.records import Measurement, Outcome, ProbeEvent
from harness.history.scenario import Scenario, ServerSoftware
from harness.report.axis import Bins, Tick, TimeAxis, bins
from harness.report.charts import Chart, connection_charts, latency_chart, throughput_chart
from harness.report.faults import STAGES, FaultStory, fault_stories
from harness.report.files import RawFile, raw_files
from harness.report.headline import Headline, headline
from harness.report.lanes import MAX_CLIENTS, ClientLane, Segment, client_lanes, role_lanes
from harness.report.logs import ServerLog, read_log
from harness.report.material import Material, Resolution
from harness.report.network import Drawing, draw
from harness.report.series import connections, latency, throughput, time_axis
from harness.report.words import count, duration, instant, shorten

MAX_WITNESSES = 20
MAX_WITNESS_MARKS = 40
MAX_FAULTS = 40
MAX_FIGURES = 8
MAX_MEASUREMENTS = 12
MAX_NOTES = 20
MAX_TEXT = 600
MAX_SOURCE = 6000
#: Rows of fault bars that are labelled; further overlapping ones are bands only.
MAX_BAR_ROWS = 6
#: How wide a character of a label is, in percent of the narrowest axis that the page is laid out for (560 pixels).
CHARACTER = 1.25


@dataclass(frozen=True)
class FaultBar:
    """A fault on the time axis."""

    number: int
    label: str
    title: str
    left: float
    width: float
    row: int
    #: Whether the label is put before the bar's right end instead of after its left one.
    at_end: bool
    healed: bool


@dataclass(frozen=True)
class Span:
    """A stretch of a lane, in percent."""

    left: float
    width: float
    state: str
    title: str


@dataclass(frozen=True)
class Lane:
    """One row of the timeline."""

    name: str
    spans: tuple[Span, ...]
    description: str


@dataclass(frozen=True)
class Mark:
    """A witness on the time axis."""

    left: float
    width: float
    title: str
    anchor: str
    label: str


@dataclass(frozen=True)
class MeasuredRow:
    """One measured fact at the three stages; None where it was not measured."""

    what: str
    found: tuple[Measurement | None, ...]


@dataclass(frozen=True)
class Proof:
    """A fault with its probes."""

    fault: FaultStory
    number: int
    began: str
    healed: str
    #: How long writes stopped, and when the last client was back; empty where that was not measured.
    outage: str
    recovery: str
    stages: tuple[tuple[str, ProbeEvent | None], ...]
    rows: tuple[MeasuredRow, ...]
    left_out: int


@dataclass(frozen=True)
class Promise:
    """A verdict, bounded."""

    verdict: Verdict
    figures: tuple[Figure, ...]
    witnesses: tuple[tuple[str, Witness, str], ...]
    left_out: int


@dataclass(frozen=True)
class Ending:
    """How many operations ended in one way."""

    outcome: str
    error: str
    number: int


@dataclass(frozen=True)
class Software:
    """Servers that ran the same."""

    servers: str
    what: ServerSoftware


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    name: str
    started: str
    first_witness: str
    headline: Headline
    overall: str
    scenario: Scenario | None
    meta: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str], ...]
    predictions: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    promises: tuple[Promise, ...]
    axis: TimeAxis
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
    drawing: Drawing | None
    proofs: tuple[Proof, ...]
    faults_left_out: int
    endings: tuple[Ending, ...]
    operations: int
    resolution: Resolution
    logs: tuple[ServerLog, ...]
    environment: tuple[tuple[str, str], ...]
    software: tuple[Software, ...]
    files: tuple[RawFile, ...]
    files_left_out: int
    harness_version: str
    series: str


def assemble(folder: RunFolder, material: Material, judgement: Judgement) -> Page:
    """Aggregate, choose and bound everything that is shown."""
    axis = time_axis(material)
    faults = fault_stories(material.faults, material.probes)
    shared = bins(axis, len(material.operations))
    lanes = role_lanes(material.samples, faults, axis)
    clients = client_lanes(material.sessions, axis)
    # Samples are taken on a clock of their own, so the connections have finer bins than the operations may have.
    charts = (
        throughput_chart(throughput(material.operations, axis, shared), _load_end(material, axis)),
        latency_chart(latency(material.operations, axis, shared)),
    )
    connected, connections_top = connection_charts(connections(material.samples, axis, shared), shared)
    said = headline(material, judgement, faults, axis)
    bars, bar_rows = _bars(faults, axis)
    listed, files_left_out = raw_files(folder)
    promises = _promises(judgement, axis)
    return Page(
        title=_title(said, material.scenario, folder),
        name=material.scenario.name if material.scenario else folder.root.name,
        started=_started(material.scenario),
        first_witness=next((p.witnesses[0][0] for p in promises if p.witnesses), ""),
        headline=said,
        overall=judgement.overall.value,
        scenario=material.scenario,
        meta=_meta(material, judgement),
        sources=_sources(material.scenario),
        predictions=_predictions(judgement),
        problems=tuple(shorten(p, MAX_TEXT) for p in material.problems[:MAX_NOTES]),
        notes=_notes(material, judgement),
        promises=promises,
        axis=axis,
        ticks=axis.ticks(),
        bars=bars,
        bar_rows=bar_rows,
        marks=_marks(promises, axis),
        servers=tuple(_lane(f"zk{s}", segments, axis) for s, segments in lanes.items()),
        clients=tuple(_client_lane(c, axis) for c in clients[:MAX_CLIENTS]),
        clients_left_out=max(0, len(clients) - MAX_CLIENTS),
        roles=tuple(r for r in ROLES if any(s.state == r for lane in lanes.values() for s in lane)),
        charts=charts if material.operations else (),
        connections=connected,
        connections_top=connections_top,
        drawing=draw(material.topology, faults, axis) if material.topology else None,
        proofs=tuple(_proof(n, f, _recovery(f, material), axis) for n, f in enumerate(faults[:MAX_FAULTS], start=1)),
        faults_left_out=max(0, len(faults) - MAX_FAULTS),
        endings=_endings(material),
        operations=len(material.operations),
        resolution=material.resolution,
        logs=_logs(folder),
        environment=_environment(material),
        software=_software(material),
        files=listed,
        files_left_out=files_left_out,
        harness_version=judgement.harness_version,
        series=_series(axis, shared, (*charts, *connected) if material.operations else connected, lanes),
    )


def _load_end(material: Material, axis: TimeAxis) -> float:
    """After this instant nobody was asked to do anything, so no operation there is no outage."""
    quiesce = material.phase("quiesce")
    return axis.seconds(quiesce.at) if quiesce else axis.end


#: The roles that a lane may show, in the order of the legend.
ROLES = ("leader", "follower", "observer", "standalone", "looking", "down", "paused")


def _title(said: Headline, scenario: Scenario | None, folder: RunFolder) -> str:
    name = f"{scenario.name} on {scenario.topology}, seed {scenario.seed}" if scenario else folder.root.name
    return f"{said.word}: {name}"


def _started(scenario: Scenario | None) -> str:
    return shorten(scenario.started.replace("T", " ").replace("Z", " UTC"), 40) if scenario else ""


def _meta(material: Material, judgement: Judgement) -> tuple[tuple[str, str], ...]:
    scenario = material.scenario
    if scenario is None:
        return ()
    versions = sorted({s.zookeeper for s in material.environment.servers} if material.environment else ())
    rows = [
        ("Topology", scenario.topology),
        ("Fault plan", scenario.plan or "by hand"),
        ("Seed", str(scenario.seed)),
        ("ZooKeeper", ", ".join(versions) or scenario.version or "not recorded"),
        ("Load", f"{count(scenario.load.clients)} clients, {scenario.load.rate:g} operations/s"),
        ("Duration of load", duration(scenario.duration_s)),
        ("Harness", scenario.harness_version or judgement.harness_version or "not recorded"),
    ]
    if scenario.multi_address is not None:
        rows.insert(4, ("Multi-address", "on" if scenario.multi_address else "off"))
    return tuple((name, shorten(value, 120)) for name, value in rows)


def _notes(material: Material, judgement: Judgement) -> tuple[str, ...]:
    """Remarks of the run, and the reasons why it is broken, without the one that the headline says."""
    said = judgement.broken[:1] if judgement.overall is Overall.BROKEN else ()
    texts = dict.fromkeys((*judgement.broken, *(n.text for n in material.notes)))
    return tuple(shorten(t, MAX_TEXT) for t in texts if t not in said)[:MAX_NOTES]


def _sources(scenario: Scenario | None) -> tuple[tuple[str, str], ...]:
    if scenario is None:
        return ()
    pairs = (
        (f"Fault plan {scenario.plan}", scenario.plan_source),
        (f"Topology {scenario.topology}", scenario.topology_source),
    )
    return tuple((name, shorten(text, MAX_SOURCE)) for name, text in pairs if text.strip())


def _promises(judgement: Judgement, axis: TimeAxis) -> tuple[Promise, ...]:
    worst_first = (Finding.VIOLATED, Finding.UNKNOWN, Finding.VALID)
    ordered = sorted(judgement.verdicts, key=lambda v: worst_first.index(v.finding))
    return tuple(
        Promise(
            verdict,
            _figures(verdict),
            tuple(
                (f"witness-{verdict.guarantee}-{n}", w, "" if w.start is None else instant(axis.seconds(w.start)))
                for n, w in enumerate(verdict.witnesses[:MAX_WITNESSES], start=1)
            ),
            max(0, len(verdict.witnesses) - MAX_WITNESSES),
        )
        for verdict in ordered
    )


def _figures(verdict: Verdict) -> tuple[Figure, ...]:
    """A verdict's figures by their plain names; those of single faults are told with the fault."""
    plain = (f for f in verdict.figures if not f.name.startswith("fault "))
    return tuple(Figure(f.name.removesuffix("_s").replace("_", " "), f.value, f.unit) for f in plain)[:MAX_FIGURES]


def _predictions(judgement: Judgement) -> tuple[str, ...]:
    """What the topology predicts of a violated promise: then the violation is the expected end of an experiment."""
    notes = (n for v in judgement.violated() for n in v.notes)
    return tuple(n for n in notes if "the topology predicts" in n)[:1]


def _bars(faults: Sequence[FaultStory], axis: TimeAxis) -> tuple[tuple[FaultBar, ...], int]:
    """Lay the faults' bars into rows so that neither they nor their labels overlap."""
    free_from: list[float] = []
    bars = []
    for number, fault in enumerate(faults, start=1):
        left = axis.place(fault.began)
        right = axis.place(fault.healed) if fault.healed is not None else 100.0
        label = fault.name
        length = (len(label) + 2) * CHARACTER
        at_end = left + length > 100 and right - length >= 0
        reach = (
            right - length if at_end and right - length < left else left,
            right if at_end else max(right, left + length),
        )
        row = next((i for i, free in enumerate(free_from) if free <= reach[0]), len(free_from))
        if row < MAX_BAR_ROWS:
            free_from[row : row + 1] = [reach[1] + 0.5]
        bars.append(
            FaultBar(
                number,
                label,
                _bar_title(fault, axis),
                left,
                round(right - left, 3),
                row,
                at_end,
                fault.healed is not None,
            )
        )
    return tuple(bars), len(free_from)


def _bar_title(fault: FaultStory, axis: TimeAxis) -> str:
    end = f"to {instant(axis.seconds(fault.healed))}" if fault.healed is not None else "and never healed"
    return f"{fault.name}: {instant(axis.seconds(fault.began))} {end}"


def _marks(promises: Sequence[Promise], axis: TimeAxis) -> tuple[Mark, ...]:
    marks = []
    for promise in promises:
        for place, (anchor, witness, _) in enumerate(promise.witnesses, start=1):
            if witness.start is not None:
                left = axis.place(witness.start)
                right = axis.place(witness.end if witness.end is not None else witness.start)
                marks.append(Mark(left, round(right - left, 3), shorten(witness.text, 200), anchor, str(place)))
    return tuple(marks[:MAX_WITNESS_MARKS])


def _lane(name: str, segments: Sequence[Segment], axis: TimeAxis) -> Lane:
    spans = tuple(_span(name, s, axis) for s in segments)
    return Lane(name, spans, f"{name}: " + "; ".join(_told(s) for s in segments[:12]))


def _told(segment: Segment) -> str:
    return f"{segment.state} {instant(segment.start)} to {instant(segment.end)}"


def _span(name: str, segment: Segment, axis: TimeAxis) -> Span:
    left, right = axis.percent(segment.start), axis.percent(segment.end)
    return Span(left, round(right - left, 3), segment.state, f"{name}: {_told(segment)}")


def _client_lane(client: ClientLane, axis: TimeAxis) -> Lane:
    spans = tuple(_span(client.process, gap, axis) for gap in client.gaps)
    told = "; ".join(_told(g) for g in client.gaps[:6]) or "connected all the time"
    return Lane(client.process, spans, f"{client.process}: {told}")


def _recovery(fault: FaultStory, material: Material) -> FaultRecovery | None:
    return next((r for r in material.recoveries if r.fault.id == fault.id), None)


def _outage(recovery: FaultRecovery | None) -> str:
    if recovery is None:
        return ""
    if recovery.outage is not None and recovery.outage.end is None:
        return "until the load ended"
    return f"for {duration(recovery.write_outage_s)}"


def _back(recovery: FaultRecovery | None) -> str:
    if recovery is None:
        return ""
    if recovery.unrecovered:
        return f"{count(len(recovery.unrecovered))} not before the load ended"
    disturbed = len({d.process for d in (*recovery.during, *recovery.after)})
    if not disturbed:
        return "none was disturbed"
    return f"after {duration(max(recovery.recovery_s, recovery.heal_s))} ({count(disturbed)} of them disturbed)"


def _proof(number: int, fault: FaultStory, recovery: FaultRecovery | None, axis: TimeAxis) -> Proof:
    stages = tuple((stage, fault.probes.get(stage)) for stage in STAGES)
    rows: dict[str, list[Measurement | None]] = {}
    for place, (_, probe) in enumerate(stages):
        for measurement in probe.measurements if probe else ():
            rows.setdefault(shorten(measurement.what, 160), [None, None, None])[place] = measurement
    # What the fault changed is the proof, so it comes first.
    ordered = sorted(rows.items(), key=lambda item: len({m.healthy for m in item[1] if m}) < 2)
    shown = tuple(MeasuredRow(what, tuple(found)) for what, found in ordered[:MAX_MEASUREMENTS])
    return Proof(
        fault=fault,
        number=number,
        began=instant(axis.seconds(fault.injected or fault.began)),
        healed="" if fault.healed is None else instant(axis.seconds(fault.healed)),
        outage=_outage(recovery),
        recovery=_back(recovery),
        stages=stages,
        rows=shown,
        left_out=max(0, len(rows) - MAX_MEASUREMENTS),
    )


def _endings(material: Material) -> tuple[Ending, ...]:
    numbers = Counter((o.outcome, shorten(o.error or "", 60)) for o in material.operations)
    order = {Outcome.OK: 0, Outcome.INFO: 1, Outcome.FAIL: 2}
    ranked = sorted(numbers.items(), key=lambda item: (order[item[0][0]], -item[1]))
    words = {Outcome.OK: "acknowledged", Outcome.INFO: "indeterminate", Outcome.FAIL: "failed"}
    return tuple(Ending(words[outcome], error, number) for (outcome, error), number in ranked[:MAX_NOTES])


def _logs(folder: RunFolder) -> tuple[ServerLog, ...]:
    logs = []
    for server in folder.server_ids():
        paths = sorted(folder.server(server).logs.glob("*.log"), key=lambda p: (p.name != "server.log", p.name))[:2]
        logs.extend(read_log(path, server, path.relative_to(folder.root).as_posix()) for path in paths)
    return tuple(log for log in logs if log.lines)


def _environment(material: Material) -> tuple[tuple[str, str], ...]:
    found = material.environment
    if found is None:
        return ()
    return (
        ("Kernel", f"{found.kernel} ({found.machine})"),
        ("Processors, memory", f"{found.cpus}, {count(found.memory_mb)} MB"),
        ("Testbed", f"{found.testbed}, {'rootless' if found.rootless else 'as root'}"),
        ("Java", f"{found.java} (from {found.java_source})"),
        ("Python", found.python),
        ("zk-chaos-harness", found.harness),
    )


def _software(material: Material) -> tuple[Software, ...]:
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[ServerSoftware]] = {}
    for server in material.environment.servers if material.environment else ():
        groups.setdefault((server.zookeeper, server.source, tuple(sorted(server.jars.items()))), []).append(server)
    return tuple(Software(", ".join(f"zk{s.server}" for s in group), group[0]) for group in groups.values())


# --- what the page's script needs ---------------------------------------------------------------------------------


class SeriesData(msgspec.Struct, frozen=True):
    """One line's values, a bin each."""

    key: str
    label: str
    unit: str
    values: tuple[float | None, ...]


class LaneData(msgspec.Struct, frozen=True):
    """One server's roles as `[start, end, role]`, seconds."""

    name: str
    segments: tuple[tuple[float, float, str], ...]


class PageData(msgspec.Struct, frozen=True):
    """The numbers behind the drawings, for the crosshair and the zoom."""

    start: float
    end: float
    width: float
    series: tuple[SeriesData, ...]
    lanes: tuple[LaneData, ...]


def _series(axis: TimeAxis, shared: Bins, charts: Sequence[Chart], lanes: dict[int, tuple[Segment, ...]]) -> str:
    """The numbers as JSON that may stand inside of a script element: no `<` in it."""
    data = PageData(
        start=axis.start,
        end=axis.end,
        width=shared.width,
        series=tuple(
            SeriesData(chart.key if line.key == "connections" else line.key, line.label, chart.unit, line.values)
            for chart in charts
            for line in chart.lines
        ),
        lanes=tuple(
            LaneData(f"zk{s}", tuple((round(g.start, 2), round(g.end, 2), g.state) for g in segments))
            for s, segments in lanes.items()
        ),
    )
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")

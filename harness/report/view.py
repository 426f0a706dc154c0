"""Everything that the page says, ready to be filled into the templates: bounded, in order, not yet HTML."""

from __future__ import annotations

from dataclasses import dataclass

from harness.check.verdict import Judgement, Overall
from harness.history.folder import RunFolder
from harness.history.scenario import Scenario
from harness.report.axis import TimeAxis
from harness.report.faults import fault_stories
from harness.report.files import RawFile, raw_files
from harness.report.headline import Headline, headline
from harness.report.logs import ServerLog, WallClock, server_logs
from harness.report.material import Material, Resolution
from harness.report.network import Drawing, draw
from harness.report.series import time_axis
from harness.report.tables import (
    EXPECTED,
    EndingRow,
    Promise,
    Proof,
    Software,
    endings,
    machine,
    promises,
    proof,
    software,
)
from harness.report.timeline import Timeline, build_timeline
from harness.report.words import count, duration, listing, shorten

MAX_FAULTS = 40
MAX_NOTES = 20
MAX_TEXT = 600
MAX_SOURCE = 6000


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    name: str
    started: str
    headline: Headline
    overall: str
    #: What the topology predicts of a violated promise: then the violation is the expected end of an experiment.
    predictions: tuple[str, ...]
    #: The place of the first witness on the page, empty if there is none.
    first_witness: str
    #: The command that repeats the run.
    repeat: str
    meta: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    promises: tuple[Promise, ...]
    timeline: Timeline
    drawing: Drawing | None
    proofs: tuple[Proof, ...]
    faults_left_out: int
    endings: tuple[EndingRow, ...]
    operations: int
    resolution: Resolution
    logs: tuple[ServerLog, ...]
    #: Whether the times of log lines are those of the axis.
    logs_on_axis: bool
    machine: tuple[tuple[str, str], ...]
    software: tuple[Software, ...]
    #: The texts of the plan and of the topology, with their titles.
    sources: tuple[tuple[str, str], ...]
    files: tuple[RawFile, ...]
    files_left_out: int
    harness_version: str


def assemble(folder: RunFolder, material: Material, judgement: Judgement) -> Page:
    """Aggregate, choose and bound everything that is shown."""
    axis = time_axis(material)
    faults = fault_stories(material.faults, material.probes)
    recoveries = {r.fault.id: r for r in material.recoveries}
    said = headline(material, judgement, faults, axis)
    judged = promises(judgement, axis)
    scenario, environment = material.scenario, material.environment
    files, files_left_out = raw_files(folder)
    clock = _wall_clock(material, axis)
    return Page(
        title=_title(said, scenario, folder),
        name=shorten(scenario.name, 120) if scenario else folder.root.name,
        started=_started(scenario),
        headline=said,
        overall=judgement.overall.value,
        predictions=_predictions(judgement),
        first_witness=next((p.witnesses[0].anchor for p in judged if p.witnesses), ""),
        repeat=scenario.repeat if scenario else "",
        meta=_meta(material) if scenario else (),
        problems=_problems(folder, material),
        notes=_notes(material, judgement),
        promises=judged,
        timeline=build_timeline(material, (p.verdict for p in judged), faults, axis),
        drawing=draw(material.topology, faults, axis) if material.topology else None,
        proofs=tuple(
            proof(n, f, recoveries.get(f.id), scenario.expected.get(f.id) if scenario else None, axis)
            for n, f in enumerate(faults[:MAX_FAULTS], start=1)
        ),
        faults_left_out=max(0, len(faults) - MAX_FAULTS),
        endings=endings(material.operations),
        operations=len(material.operations),
        resolution=material.resolution,
        logs=server_logs(folder, clock, material.faults),
        logs_on_axis=clock is not None,
        machine=machine(environment) if environment else (),
        software=software(environment) if environment else (),
        sources=_sources(scenario),
        files=files,
        files_left_out=files_left_out,
        harness_version=judgement.harness_version,
    )


def _wall_clock(material: Material, axis: TimeAxis) -> WallClock | None:
    """How to read the servers' wall clocks; None where the run did not record it."""
    offset = material.environment.wall_offset_ns if material.environment else None
    if offset is None:
        return None
    return WallClock(offset, min((p.at for p in material.phases), default=axis.origin), axis.origin)


def _title(said: Headline, scenario: Scenario | None, folder: RunFolder) -> str:
    name = f"{scenario.name} on {scenario.topology}, seed {scenario.seed}" if scenario else folder.root.name
    return f"{said.word}: {shorten(name, 200)}"


def _started(scenario: Scenario | None) -> str:
    if scenario is None:
        return ""
    return shorten(scenario.started.replace("T", " ").replace("Z", " UTC").replace("+00:00", " UTC"), 40)


def _predictions(judgement: Judgement) -> tuple[str, ...]:
    notes = (note for verdict in judgement.violated() for note in verdict.notes)
    return tuple(note for note in notes if "the topology predicts" in note)[:1]


def _meta(material: Material) -> tuple[tuple[str, str], ...]:
    scenario = material.scenario
    if scenario is None:
        return ()
    versions = sorted({s.zookeeper for s in material.environment.servers} if material.environment else ())
    zookeeper = material.topology.zookeeper if material.topology else None
    rows = [
        ("Topology", scenario.topology),
        ("Fault plan", scenario.plan or "by hand"),
        ("Seed", str(scenario.seed)),
        ("ZooKeeper", ", ".join(versions) or scenario.version or "not recorded"),
        ("Multi-address", "" if zookeeper is None else "on" if zookeeper.multi_address else "off"),
        ("Load", f"{count(scenario.load.clients)} clients, {scenario.load.rate:g}/s"),
        ("Duration of load", duration(scenario.duration_s)),
        ("Expected", listing(list(dict.fromkeys(map(EXPECTED.__getitem__, scenario.expected.values()))))),
        ("Harness", scenario.harness_version),
    ]
    return tuple((name, shorten(value, 120)) for name, value in rows if value)


def _problems(folder: RunFolder, material: Material) -> tuple[str, ...]:
    """What could not be read; its place without the folder's own, which means nothing to a reader elsewhere."""
    own = str(folder.root)
    texts = (p.replace(f"{own}/", "").replace(f"{own}: ", "") for p in material.problems[:MAX_NOTES])
    return tuple(shorten(text, MAX_TEXT) for text in texts)


def _notes(material: Material, judgement: Judgement) -> tuple[str, ...]:
    """Remarks of the run, and the reasons why it is broken, without the one that the headline says."""
    said = judgement.broken[:1] if judgement.overall is Overall.BROKEN else ()
    texts = dict.fromkeys((*judgement.broken, *(n.text for n in material.notes)))
    return tuple(shorten(t, MAX_TEXT) for t in texts if t not in said)[:MAX_NOTES]


def _sources(scenario: Scenario | None) -> tuple[tuple[str, str], ...]:
    if scenario is None:
        return ()
    texts = {
        f"Fault plan {scenario.plan}": scenario.plan_source,
        f"Topology {scenario.topology}": scenario.topology_source,
    }
    return tuple((shorten(name, 120), shorten(text, MAX_SOURCE)) for name, text in texts.items() if text.strip())

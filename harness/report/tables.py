"""The tables of the page: promises, proofs of faults, how operations ended, what was run. All bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.check.recovery import FaultRecovery
from harness.check.verdict import Figure, Finding, Judgement, Verdict, Witness
from harness.history.records import Measurement, Operation, ProbeEvent
from harness.history.scenario import Environment, ServerSoftware, Service
from harness.report.axis import TimeAxis
from harness.report.faults import STAGES, FaultStory
from harness.report.series import Ending, ending
from harness.report.timeline import listed_witnesses
from harness.report.words import count, duration, instant, shorten

MAX_FIGURES = 8
MAX_MEASUREMENTS = 12
MAX_ENDINGS = 20


@dataclass(frozen=True)
class ListedWitness:
    """One witness with its place on the page and on the time axis (empty where it has none)."""

    anchor: str
    when: str
    witness: Witness


@dataclass(frozen=True)
class Promise:
    """A verdict, bounded."""

    verdict: Verdict
    figures: tuple[Figure, ...]
    witnesses: tuple[ListedWitness, ...]
    left_out: int


def promises(judgement: Judgement, axis: TimeAxis) -> tuple[Promise, ...]:
    """All verdicts, violated ones first, then unknown ones."""
    worst_first = (Finding.VIOLATED, Finding.UNKNOWN, Finding.VALID)
    return tuple(_promise(v, axis) for v in sorted(judgement.verdicts, key=lambda v: worst_first.index(v.finding)))


def _promise(verdict: Verdict, axis: TimeAxis) -> Promise:
    witnesses = tuple(
        ListedWitness(anchor, "" if w.start is None else instant(axis.seconds(w.start)), w)
        for anchor, w in listed_witnesses(verdict)
    )
    # Figures of single faults are told with the fault.
    plain = (f for f in verdict.figures if not f.name.startswith("fault "))
    named = tuple(Figure(f.name.removesuffix("_s").replace("_", " "), f.value, f.unit) for f in plain)
    return Promise(verdict, named[:MAX_FIGURES], witnesses, len(verdict.witnesses) - len(witnesses))


@dataclass(frozen=True)
class MeasuredRow:
    """One measured fact at the three stages; None where it was not measured."""

    what: str
    found: tuple[Measurement | None, ...]


@dataclass(frozen=True)
class Proof:
    """A fault with its probes and with what it did."""

    fault: FaultStory
    number: int
    began: str
    healed: str
    #: How long writes stopped, and when the last client was back; empty where that was not measured.
    outage: str
    recovery: str
    #: What is expected of the service while it is on; empty where nothing is.
    expected: str
    stages: tuple[tuple[str, ProbeEvent | None], ...]
    rows: tuple[MeasuredRow, ...]
    left_out: int


def proof(
    number: int, fault: FaultStory, recovery: FaultRecovery | None, expected: Service | None, axis: TimeAxis
) -> Proof:
    """Put the measurements of the three stages beside each other."""
    stages = tuple((stage, fault.probes.get(stage)) for stage in STAGES)
    rows: dict[str, list[Measurement | None]] = {}
    for place, (_, probe) in enumerate(stages):
        for measurement in probe.measurements if probe else ():
            rows.setdefault(measurement.what, [None, None, None])[place] = measurement
    # What the fault changed is the proof, so it comes first.
    ordered = sorted(rows.items(), key=lambda item: len({m.healthy for m in item[1] if m}) < 2)
    return Proof(
        fault=fault,
        number=number,
        began=instant(axis.seconds(fault.injected or fault.began)),
        healed="" if fault.healed is None else instant(axis.seconds(fault.healed)),
        outage=_outage(recovery) if recovery else "",
        recovery=_back(recovery) if recovery else "",
        expected=EXPECTED[expected] if expected else "",
        stages=stages,
        rows=tuple(MeasuredRow(shorten(what, 160), tuple(found)) for what, found in ordered[:MAX_MEASUREMENTS]),
        left_out=max(0, len(rows) - MAX_MEASUREMENTS),
    )


#: What is expected of the service, in the words of the page.
EXPECTED = {Service.SURVIVES: "the service survives", Service.STOPS: "the service stops"}


def _outage(recovery: FaultRecovery) -> str:
    if recovery.outage is not None and recovery.outage.end is None:
        return "until the load ended"
    return f"for {duration(recovery.write_outage_s)}"


def _back(recovery: FaultRecovery) -> str:
    if recovery.unrecovered:
        return f"{count(len(recovery.unrecovered))} not before the load ended"
    disturbed = len({d.process for d in (*recovery.during, *recovery.after)})
    if not disturbed:
        return "none was disturbed"
    since = " of the healing" if recovery.stops else ""
    return f"after {duration(max(recovery.recovery_s, recovery.heal_s))}{since} ({count(disturbed)} were disturbed)"


@dataclass(frozen=True)
class EndingRow:
    """How many operations ended in one way."""

    ending: Ending
    error: str
    number: int


def endings(operations: Iterable[Operation]) -> tuple[EndingRow, ...]:
    """What became of all operations, with their errors, the most frequent ones of each ending first."""
    numbers = Counter((ending(o), o.error or "") for o in operations)
    order = list(Ending)
    ranked = sorted(numbers.items(), key=lambda item: (order.index(item[0][0]), -item[1]))
    return tuple(EndingRow(kind, shorten(error, 60), number) for (kind, error), number in ranked[:MAX_ENDINGS])


def machine(environment: Environment) -> tuple[tuple[str, str], ...]:
    """What the run was done on."""
    return (
        ("Kernel", f"{environment.kernel} ({environment.machine})"),
        ("Processors, memory", f"{environment.cpus}, {count(environment.memory_mb)} MB"),
        ("Testbed", f"{environment.testbed}, {'rootless' if environment.rootless else 'as root'}"),
        ("Java", f"{environment.java} (from {environment.java_source})"),
        ("Python", environment.python),
        ("zk-chaos-harness", environment.harness),
    )


@dataclass(frozen=True)
class Software:
    """Servers that ran the same."""

    servers: str
    what: ServerSoftware


def software(environment: Environment) -> tuple[Software, ...]:
    """One entry for each different set of jars."""
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[ServerSoftware]] = {}
    for server in environment.servers:
        groups.setdefault((server.zookeeper, server.source, tuple(sorted(server.jars.items()))), []).append(server)
    return tuple(Software(", ".join(f"zk{s.server}" for s in group), group[0]) for group in groups.values())

"""What there is to tell of a run: its evidence, or, where even the scenario is unreadable, what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.check.evidence import Evidence, load_evidence
from harness.check.recovery import FaultRecovery, measure
from harness.errors import ZkChaosError
from harness.history.folder import RunFolder
from harness.history.records import FaultEvent, Note, Operation, Phase, ProbeEvent, Sample, SessionEvent
from harness.history.scenario import Environment, Scenario
from harness.topology.model import Topology


@dataclass(frozen=True)
class Resolution:
    """What the servers' logs say of the writes whose answers were lost."""

    happened: int
    not_happened: int
    still_open: int

    @property
    def total(self) -> int:
        """How many there are."""
        return self.happened + self.not_happened + self.still_open


@dataclass(frozen=True)
class Material:
    """One run, as far as it can be read.

    Attributes:
        root: the run folder.
        scenario: what was asked for; None where scenario.json cannot be read.
        environment: on what it was done; None where environment.json was not written.
        recoveries: what each fault did to the clients, by the fault's id.
        problems: what could not be read, a sentence each.
    """

    root: Path
    scenario: Scenario | None = None
    environment: Environment | None = None
    topology: Topology | None = None
    operations: Sequence[Operation] = ()
    sessions: Sequence[SessionEvent] = ()
    phases: Sequence[Phase] = ()
    faults: Sequence[FaultEvent] = ()
    probes: Sequence[ProbeEvent] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[Note] = ()
    recoveries: Sequence[FaultRecovery] = ()
    resolution: Resolution = Resolution(0, 0, 0)
    problems: tuple[str, ...] = ()

    def phase(self, name: str) -> Phase | None:
        """The first phase of that name, or None if the run never entered it."""
        return next((p for p in self.phases if p.name == name), None)


def gather(folder: RunFolder, evidence: Evidence | None) -> Material:
    """Everything of a run folder that can be told. Raises nothing: what is missing becomes a `problem`.

    Args:
        folder: the run folder.
        evidence: what was judged; None to read it here.
    """
    problems: list[str] = []
    if evidence is None:
        try:
            evidence = load_evidence(folder)
        except ZkChaosError as problem:
            return Material(folder.root, problems=(str(problem),))
    environment: Environment | None = None
    try:
        environment = folder.environment()
    except (ZkChaosError, OSError) as problem:
        problems.append(str(problem))
    lost = evidence.lost_replies
    return Material(
        root=folder.root,
        scenario=evidence.scenario,
        environment=environment,
        topology=evidence.topology,
        operations=evidence.operations,
        sessions=evidence.sessions,
        phases=evidence.phases,
        faults=evidence.faults,
        probes=evidence.probes,
        samples=evidence.of_kind(Sample),
        notes=evidence.notes,
        recoveries=measure(evidence),
        resolution=Resolution(len(lost.happened), len(lost.not_happened), len(lost.still_open)),
        problems=(*problems, *(d.text for d in evidence.damage)),
    )

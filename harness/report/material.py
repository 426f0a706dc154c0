"""What a run folder holds, gathered for telling: a damaged, aborted or empty one is told too, never refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import ZkChaosError
from harness.history.folder import RunFolder
from harness.history.records import (
    ClientRecord,
    Complete,
    Event,
    FaultEvent,
    Invoke,
    Note,
    Operation,
    Outcome,
    Phase,
    ProbeEvent,
    ProcessEvent,
    Sample,
    SessionEvent,
)
from harness.history.scenario import Environment, Scenario

T = TypeVar("T")


@dataclass(frozen=True)
class Material:
    """The evidence of one run, as far as it can be read.

    Attributes:
        root: the run folder.
        scenario: what was asked for; None where scenario.json cannot be read.
        environment: on what it was done; None where environment.json was not written.
        operations: every operation, in no particular order.
        problems: what could not be read, a sentence each.
    """

    root: Path
    scenario: Scenario | None = None
    environment: Environment | None = None
    operations: Sequence[Operation] = ()
    sessions: Sequence[SessionEvent] = ()
    phases: Sequence[Phase] = ()
    faults: Sequence[FaultEvent] = ()
    probes: Sequence[ProbeEvent] = ()
    samples: Sequence[Sample] = ()
    processes: Sequence[ProcessEvent] = ()
    notes: Sequence[Note] = ()
    problems: tuple[str, ...] = ()

    def phase(self, name: str) -> Phase | None:
        """The first phase of that name, or None if the run never entered it."""
        return next((p for p in self.phases if p.name == name), None)

    @property
    def servers(self) -> tuple[int, ...]:
        """The ids of the servers that were sampled, started or left a folder, ascending."""
        return tuple(sorted({*(s.server for s in self.samples), *(p.server for p in self.processes)}))


def gather(folder: RunFolder) -> Material:
    """Read everything of a run folder that can be read. Raises nothing: what is missing becomes a `problem`."""
    problems: list[str] = []
    scenario = _attempt(folder.scenario, problems)
    environment = _attempt(folder.environment, problems)
    events: Sequence[Event] = _attempt(folder.events, problems) or ()
    records: Sequence[ClientRecord] = _attempt(folder.client_records, problems) or ()
    return Material(
        root=folder.root,
        scenario=scenario,
        environment=environment,
        operations=_join(records),
        sessions=[r for r in records if isinstance(r, SessionEvent)],
        phases=[e for e in events if isinstance(e, Phase)],
        faults=[e for e in events if isinstance(e, FaultEvent)],
        probes=[e for e in events if isinstance(e, ProbeEvent)],
        samples=[e for e in events if isinstance(e, Sample)],
        processes=[e for e in events if isinstance(e, ProcessEvent)],
        notes=[e for e in events if isinstance(e, Note)],
        problems=tuple(problems),
    )


def _attempt(read: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return read()
    except (ZkChaosError, OSError) as problem:
        problems.append(str(problem))
        return None


def _join(records: Sequence[ClientRecord]) -> list[Operation]:
    """Operations from calls and returns; a call without a return is indeterminate."""
    returns = {(r.process, r.index): r for r in records if isinstance(r, Complete)}
    return [_operation(r, returns.get((r.process, r.index))) for r in records if isinstance(r, Invoke)]


def _operation(call: Invoke, end: Complete | None) -> Operation:
    return Operation(
        process=call.process,
        index=call.index,
        function=call.function,
        path=call.path,
        call=call.at,
        returned=end.at if end else None,
        outcome=end.outcome if end else Outcome.INFO,
        written=call.value,
        expected_version=call.version,
        session=end.session if end else 0,
        cxid=end.cxid if end else None,
        server=end.server if end else None,
        zxid=end.zxid if end else None,
        read=end.value if end else None,
        stat=end.stat if end else None,
        error=end.error if end else None,
    )

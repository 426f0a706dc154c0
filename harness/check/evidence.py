"""All that a run folder says, joined and ready to be judged.

Nothing here judges, and nothing here raises because a piece of evidence is damaged: what cannot be read is listed
in `Evidence.damage`, and judges answer `unknown` where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.check.collector import no_collection
from harness.check.committed import CommittedLog, ServerLog, merge_logs
from harness.check.lost_replies import LostReplies, resolve_lost_replies
from harness.check.replay import Replay, replay
from harness.errors import HistoryError, RunFolderError, TopologyError
from harness.history.damaged import asides, left_damaged, sha256_of
from harness.history.folder import RunFolder, ServerFolder, read_lines
from harness.history.records import (
    Barrier,
    ClientRecord,
    Complete,
    Event,
    FaultEvent,
    FinalRead,
    Function,
    Invoke,
    Note,
    Operation,
    Outcome,
    Phase,
    ProbeEvent,
    SessionEvent,
)
from harness.history.scenario import Scenario
from harness.topology.loader import parse_topology, with_overrides
from harness.topology.model import Topology
from harness.zookeeper.txnlog import Replicas, log_files, read_log, read_logs, snapshot_zxids

R = TypeVar("R")
E = TypeVar("E", bound=Event)

#: The functions that write.
WRITES = frozenset(function for function in Function if function.is_write)

_CLIENT_RECORDS: msgspec.json.Decoder[ClientRecord] = msgspec.json.Decoder(ClientRecord)


@dataclass(frozen=True)
class Damage:
    """A piece of evidence that could not be read."""

    #: `events`, `clients`, or `server 2`.
    part: str
    #: One sentence: what, where.
    text: str


@dataclass(frozen=True)
class Evidence:
    """What a run left behind. Derived views are computed once, when first asked for."""

    folder: Path
    scenario: Scenario
    #: None if the scenario's topology cannot be parsed any more.
    topology: Topology | None
    #: In the order of their calls.
    operations: tuple[Operation, ...]
    sessions: tuple[SessionEvent, ...]
    #: All events, in the order of their times.
    events: tuple[Event, ...]
    #: Every server that left a folder, with its log, if that could be read.
    logs: Mapping[int, ServerLog]
    servers: tuple[int, ...]
    damage: tuple[Damage, ...] = field(default=())

    def of_kind(self, kind: type[E]) -> tuple[E, ...]:
        """The events of one kind."""
        return tuple(event for event in self.events if isinstance(event, kind))

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The run's phases."""
        return self.of_kind(Phase)

    @cached_property
    def faults(self) -> tuple[FaultEvent, ...]:
        """The steps in the lives of all faults."""
        return self.of_kind(FaultEvent)

    @cached_property
    def probes(self) -> tuple[ProbeEvent, ...]:
        """What the faults' probes found."""
        return self.of_kind(ProbeEvent)

    @cached_property
    def final_reads(self) -> tuple[FinalRead, ...]:
        """Each path as each server had it after healing."""
        return self.of_kind(FinalRead)

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """What the run had to say."""
        return self.of_kind(Note)

    @cached_property
    def barrier(self) -> Barrier | None:
        """The last barrier; None if the run did not come that far."""
        barriers = self.of_kind(Barrier)
        return barriers[-1] if barriers else None

    @cached_property
    def start(self) -> int:
        """When the load began, as on the page and in the plan; where it never did, the first event or operation.

        Times in sentences count from here.
        """
        if (load := self.phase_at("load")) is not None:
            return load
        first_events = [event.at for event in self.events[:1]]
        first_calls = [operation.call for operation in self.operations[:1]]
        return min(first_events + first_calls, default=0)

    @cached_property
    def load_end(self) -> int:
        """When the load ended; a test may load the ensemble several times, and the last load's end is the end of all.

        Where it never did, the last write or fault.
        """
        quiesced = [phase.at for phase in self.phases if phase.name == "quiesce"]
        return max(
            quiesced or [op.call for op in self.writes] or [fault.at for fault in self.faults], default=self.start
        )

    @cached_property
    def quorum(self) -> int:
        """How many voting servers are a majority."""
        return self.topology.quorum_size if self.topology is not None else len(self.servers) // 2 + 1

    @cached_property
    def committed(self) -> CommittedLog:
        """The one history that the servers' logs add up to."""
        voters = {s.id for s in self.topology.participants} if self.topology is not None else set(self.servers)
        return merge_logs(self.logs, frozenset(voters), self.quorum)

    @cached_property
    def replay(self) -> Replay:
        """Every znode's versions, from the committed history."""
        return replay(self.committed.txns)

    @cached_property
    def lost_replies(self) -> LostReplies:
        """What became of each write without an answer."""
        complete = self.barrier is not None and not self.damaged("server") and not self.committed.missing
        return resolve_lost_replies(self.writes, self.committed, complete=complete)

    @cached_property
    def writes(self) -> tuple[Operation, ...]:
        """All creates, sets and deletes, in the order of their calls."""
        return tuple([op for op in self.operations if op.function in WRITES])

    @cached_property
    def acknowledged_writes(self) -> tuple[Operation, ...]:
        """The writes that were answered with success."""
        ok = Outcome.OK
        return tuple([op for op in self.writes if op.outcome is ok])

    @cached_property
    def answered_reads(self) -> tuple[Operation, ...]:
        """The reads that were answered: with a Stat, or with the certainty that there is no such znode."""
        ok, fail = Outcome.OK, Outcome.FAIL
        return tuple(
            [
                op
                for op in self.operations
                if op.function not in WRITES
                and op.zxid is not None
                and (op.outcome is ok or (op.outcome is fail and op.error == "NoNode"))
            ]
        )

    def damaged(self, part: str) -> tuple[Damage, ...]:
        """The damage in `events`, `clients`, or any `server`."""
        return tuple(d for d in self.damage if d.part.startswith(part))

    def phase_at(self, name: str) -> int | None:
        """When a phase was entered first, or None."""
        return next((phase.at for phase in self.phases if phase.name == name), None)


def load_evidence(folder: RunFolder) -> Evidence:
    """Read a run folder.

    Raises:
        RunFolderError: there is no readable scenario.json, so it is not known what was asked for.
    """
    scenario = folder.scenario()
    damage: list[Damage] = []
    with no_collection():
        operations, sessions = _client_history(folder, damage)
        events = _attempt("events", folder.events, damage) or []
        logs = _server_logs(folder, damage)
    return Evidence(
        folder=folder.root,
        scenario=scenario,
        topology=_topology(scenario),
        operations=operations,
        sessions=sessions,
        events=tuple(sorted(events, key=_at)),
        logs=logs,
        servers=folder.server_ids(),
        damage=tuple(damage),
    )


def _at(event: Event | SessionEvent) -> int:
    return event.at


def _call(operation: Operation) -> int:
    return operation.call


def _attempt(part: str, read: Callable[[], R], damage: list[Damage]) -> R | None:
    try:
        return read()
    except (HistoryError, RunFolderError) as problem:
        damage.append(Damage(part, str(problem)))
    except OSError as problem:
        damage.append(Damage(part, f"cannot be read: {problem}"))
    return None


def _client_history(folder: RunFolder, damage: list[Damage]) -> tuple[tuple[Operation, ...], tuple[SessionEvent, ...]]:
    operations: list[Operation] = []
    sessions: list[SessionEvent] = []
    for path in sorted(folder.clients_folder.glob("*.jsonl")):
        records = _attempt("clients", partial(read_lines, path, _CLIENT_RECORDS), damage)
        join_records(records or [], operations, sessions)
    operations.sort(key=_call)
    sessions.sort(key=_at)
    return tuple(operations), tuple(sessions)


def join_records(records: list[ClientRecord], operations: list[Operation], sessions: list[SessionEvent]) -> None:
    """Join calls and returns, appending to `operations` and `sessions`. A call without a return is indeterminate."""
    calls: dict[str, dict[int, Invoke]] = {}
    append = operations.append
    for record in records:
        if type(record) is Complete:
            open_calls = calls.get(record.process)
            invoke = open_calls.pop(record.index, None) if open_calls else None
            if invoke is not None:
                append(
                    Operation(
                        record.process,
                        record.index,
                        invoke.function,
                        invoke.path,
                        invoke.at,
                        record.at,
                        record.outcome,
                        invoke.value,
                        invoke.version,
                        record.session,
                        record.cxid,
                        record.server,
                        record.zxid,
                        record.value,
                        record.stat,
                        record.error,
                    )
                )
        elif type(record) is Invoke:
            calls.setdefault(record.process, {})[record.index] = record
        elif type(record) is SessionEvent:
            sessions.append(record)
    for open_calls in calls.values():
        for invoke in open_calls.values():
            append(
                Operation(
                    invoke.process,
                    invoke.index,
                    invoke.function,
                    invoke.path,
                    invoke.at,
                    None,
                    Outcome.INFO,
                    invoke.value,
                    invoke.version,
                )
            )


def _server_logs(folder: RunFolder, damage: list[Damage]) -> dict[int, ServerLog]:
    replicas = Replicas()
    logs: dict[int, ServerLog] = {}
    for server in folder.server_ids():
        place = folder.server(server)
        log = _attempt(f"server {server}", partial(_whole_log, place, replicas), damage)
        snapshots = _attempt(f"server {server}", partial(_snapshots, place), damage)
        if log is not None:
            logs[server] = replace(log, snapshots=snapshots or ())
    return logs


def _whole_log(place: ServerFolder, replicas: Replicas) -> ServerLog | None:
    """All that a server has logged, also what was put aside before a fault took it away or damaged it.

    None: it never logged.
    """
    aside = asides(place)
    spoilt = left_damaged(place)
    folders = [a.txnlog for a in aside]
    files = [file for folder in (*folders, place.txnlog) for file in log_files(folder)] if spoilt else []
    passed_over = [file for file in files if sha256_of(file) in spoilt]
    log = read_logs(place.txnlog, replicas, aside=folders, but=passed_over)
    lasts = [file for folder in folders for file in log_files(folder)[-1:] if file not in passed_over]
    cuts = tuple(txns[-1].zxid for file in lasts if (txns := read_log(file, replicas).txns))
    return ServerLog(log.txns, torn=len(log.torn), cuts=cuts) if log.files else None


def _snapshots(place: ServerFolder) -> tuple[int, ...]:
    """The zxids of all snapshots that a server has made or been given."""
    folders = [*(a.snapshot for a in asides(place)), place.snapshot]
    return tuple(sorted({zxid for folder in folders for zxid in snapshot_zxids(folder)}))


def _topology(scenario: Scenario) -> Topology | None:
    try:
        topology = parse_topology(scenario.topology_source, scenario.topology)
        return with_overrides(topology, version=scenario.version, multi_address=scenario.multi_address)
    except TopologyError:
        return None

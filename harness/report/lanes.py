"""Lanes of the timeline: what each server was, and which clients had no session, over the time axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.history.records import Sample, SessionEvent, SessionState
from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory, targets
from harness.report.words import NANOSECONDS

#: Most segments of a lane. A lane with more is drawn on a grid of that many columns, the worst role winning each.
MAX_SEGMENTS = 300

#: Roles from the most telling to the least, for lanes too fine to be drawn whole.
_WORST_FIRST = ("expired", "suspended", "down", "paused", "looking", "leader", "standalone", "observer", "follower")


@dataclass(frozen=True)
class Segment:
    """A stretch of time in one state. Times in seconds on the axis."""

    start: float
    end: float
    state: str


def role_lanes(
    samples: Iterable[Sample], faults: Sequence[FaultStory], axis: TimeAxis
) -> dict[int, tuple[Segment, ...]]:
    """For each server its roles, equal neighbours merged, from its first sample to its last (or the axis' edges).

    A paused server answers nobody, so its samples say `down`; a pause that was injected is told as `paused`.
    """
    by_server: dict[int, list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s.at):
        by_server.setdefault(sample.server, []).append(sample)
    lanes: dict[int, tuple[Segment, ...]] = {}
    for server in sorted(by_server):
        segments = _merge(_segments(by_server[server], axis))
        for start, end in _pauses(server, faults, axis):
            segments = _merge(_overlay(segments, start, end))
        lanes[server] = _coarse(segments, axis)
    return lanes


def _segments(samples: Sequence[Sample], axis: TimeAxis) -> list[Segment]:
    segments = []
    for sample, following in zip(samples, [*samples[1:], None], strict=True):
        start = max(axis.seconds(sample.at), axis.start)
        # The last sample holds for as long as the one before it did.
        end = axis.seconds(following.at) if following else start + _last_interval(samples)
        if min(end, axis.end) > start:
            segments.append(Segment(start, min(end, axis.end), sample.role))
    return segments


def _last_interval(samples: Sequence[Sample]) -> float:
    return (samples[-1].at - samples[-2].at) / NANOSECONDS if len(samples) > 1 else 0.5


def _merge(segments: Iterable[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for segment in segments:
        if merged and merged[-1].state == segment.state and segment.start - merged[-1].end < 1e-6:
            merged[-1] = replace(merged[-1], end=segment.end)
        else:
            merged.append(segment)
    return merged


def _pauses(server: int, faults: Sequence[FaultStory], axis: TimeAxis) -> list[tuple[float, float]]:
    return [
        (axis.seconds(f.injected), axis.seconds(f.healed) if f.healed is not None else axis.end)
        for f in faults
        if f.kind == "pause" and f.injected is not None and f"zk{server}" in targets(f.target)
    ]


def _overlay(segments: Sequence[Segment], start: float, end: float) -> list[Segment]:
    """Say `paused` where a `down` lies within a pause."""
    parts: list[Segment] = []
    for segment in segments:
        inner_start, inner_end = max(segment.start, start), min(segment.end, end)
        if segment.state != "down" or inner_start >= inner_end:
            parts.append(segment)
            continue
        pieces = (
            Segment(segment.start, inner_start, "down"),
            Segment(inner_start, inner_end, "paused"),
            Segment(inner_end, segment.end, "down"),
        )
        parts.extend(p for p in pieces if p.end - p.start > 1e-9)
    return parts


def _coarse(segments: Sequence[Segment], axis: TimeAxis, most: int = MAX_SEGMENTS) -> tuple[Segment, ...]:
    if len(segments) <= most:
        return tuple(segments)
    width = axis.span / most
    columns: list[str | None] = [None] * most
    for segment in segments:
        first = min(int((segment.start - axis.start) / width), most - 1)
        last = min(int((segment.end - axis.start) / width), most - 1)
        for column in range(first, last + 1):
            columns[column] = _worse(columns[column], segment.state)
    drawn = (
        Segment(axis.start + i * width, axis.start + (i + 1) * width, state)
        for i, state in enumerate(columns)
        if state is not None
    )
    return tuple(_merge(drawn))


def _worse(one: str | None, other: str) -> str:
    if one is None:
        return other
    rank = {role: place for place, role in enumerate(_WORST_FIRST)}
    return min(one, other, key=lambda role: rank.get(role, len(rank)))


@dataclass(frozen=True)
class ClientLane:
    """One client process and the stretches in which it had no connection."""

    process: str
    gaps: tuple[Segment, ...]


#: Most clients with a lane of their own, and most gaps in each.
MAX_CLIENTS = 32
MAX_GAPS = 60


def client_lanes(events: Iterable[SessionEvent], axis: TimeAxis) -> tuple[ClientLane, ...]:
    """The clients' gaps: from `suspended` or `expired` to the next `connected`, or to the end of the axis."""
    by_process: dict[str, list[SessionEvent]] = {}
    for event in sorted(events, key=lambda e: e.at):
        by_process.setdefault(event.process, []).append(event)
    return tuple(ClientLane(process, _gaps(by_process[process], axis)) for process in sorted(by_process, key=_natural))


def _natural(process: str) -> tuple[tuple[int, str], ...]:
    """`c1.2` before `c1.10`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in process.replace(".", " . ").split())


def _gaps(events: Sequence[SessionEvent], axis: TimeAxis) -> tuple[Segment, ...]:
    states = {SessionState.SUSPENDED: "suspended", SessionState.EXPIRED: "expired"}
    gaps = []
    for event, following in zip(events, [*events[1:], None], strict=True):
        state = states.get(event.state)
        start = max(axis.seconds(event.at), axis.start)
        end = min(axis.seconds(following.at), axis.end) if following else axis.end
        if state and end > start:
            gaps.append(Segment(start, end, state))
    return _coarse(gaps, axis, MAX_GAPS)

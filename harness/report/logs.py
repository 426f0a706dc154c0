"""The lines of a server's log that tell something: changes of role, warnings, errors; bounded and without repeats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.history.folder import RunFolder
from harness.history.records import FaultEvent
from harness.report.words import NANOSECONDS, instant, shorten

#: Most lines of a server, and most characters of a line.
MAX_LINES = 40
MAX_LENGTH = 300
#: Of a long log the last so many bytes are read.
MAX_BYTES = 8 * 1024 * 1024

_LEVEL = re.compile(r"\b(FATAL|ERROR|WARN)\b")
#: What ZooKeeper's QuorumPeer, Leader and main class say when a server's role changes. Of the stages of following
#: and leading only the last one, in which clients are served, is told.
_ROLE = re.compile(
    r"- (?:LOOKING|LEADING|FOLLOWING|OBSERVING)$|ELECTION TOOK|Starting quorum peer|Peer state changed: .*broadcast"
)
#: Connections of the harness' own admin words and probes, which open no session.
_OUR_OWN = re.compile(r"Close of session 0x0$")
_TIME = re.compile(r"(?:(\d{4}-\d{2}-\d{2})[ T])?(\d{2}:\d{2}:\d{2})[.,](\d{3})")
#: `[thread] WARN org.apache.Logger - message` or `WARN  [thread] org.apache.Logger - message`, the layouts that the
#: harness gives to the servers.
_LAYOUT = re.compile(r"(?:\[.*\] )?\b(?P<level>[A-Z]+)\s+(?:\[.*\] )?(?:[\w$]+\.)*(?P<logger>[\w$]+) - (?P<message>.*)")
_DIGITS = re.compile(r"\d+")
#: The kind of fault that sets servers' clocks wrong.
_CLOCK = "clock"
#: Time zones differ by multiples of this, seconds.
_ZONE_STEP = 900


@dataclass(frozen=True)
class WallClock:
    """Puts wall-clock times of a server's log on the time axis.

    Attributes:
        offset: the wall clock (UTC) minus CLOCK_MONOTONIC, nanoseconds.
        start: when the servers were started, monotonic nanoseconds; tells the time zone of a log by its first line.
        origin: the start of load, monotonic nanoseconds.
    """

    offset: int
    start: int
    origin: int

    def zone(self, first: datetime) -> float:
        """Seconds between UTC and the zone that a log is written in."""
        ahead = first.timestamp() - (self.start + self.offset) / NANOSECONDS
        return round(ahead / _ZONE_STEP) * _ZONE_STEP

    def seconds(self, at: datetime, zone: float) -> float:
        """Where a time lies on the axis."""
        return at.timestamp() - zone - (self.origin + self.offset) / NANOSECONDS


@dataclass(frozen=True)
class LogLine:
    """One line, or several that differ only in their numbers."""

    number: int
    #: `3.2 s` on the time axis or, where that is not known, `10:15:06.912` as the server wrote it.
    when: str
    #: `10:15:06.912`.
    wall: str
    #: `role`, `warn` or `error`.
    kind: str
    text: str
    repeats: int = 1


@dataclass(frozen=True)
class ServerLog:
    """What is shown of one log file.

    Attributes:
        path: relative to the run folder.
        left_out: how many telling lines are not shown.
        own_clock: whether a fault set the server's clock wrong, so that its times say nothing of the time axis.
    """

    server: int
    path: str
    lines: tuple[LogLine, ...]
    left_out: int
    warnings: int
    errors: int
    own_clock: bool = False


def server_logs(folder: RunFolder, clock: WallClock | None, faults: Iterable[FaultEvent] = ()) -> tuple[ServerLog, ...]:
    """What each server's logs tell; of a server with several files, its main log and one more.

    Args:
        folder: the run folder.
        clock: puts their times on the axis; None where that cannot be known.
        faults: what was done to the servers; a log that was written by a clock set wrong is not put on the axis.
    """
    wrong = {host for event in faults if event.fault == _CLOCK for host in event.target.partition(":")[0].split(",")}
    logs: list[ServerLog] = []
    for server in folder.server_ids():
        own = f"zk{server}" in wrong
        paths = sorted(folder.server(server).logs.glob("*.log"), key=lambda p: (p.name != "server.log", p.name))[:2]
        read = (
            read_log(path, server, path.relative_to(folder.root).as_posix(), None if own else clock) for path in paths
        )
        logs.extend(replace(log, own_clock=own) for log in read)
    return tuple(log for log in logs if log.lines)


def read_log(path: Path, server: int, relative: str, clock: WallClock | None = None) -> ServerLog:
    """Read and pick. A file that cannot be read has no lines."""
    lines = _collapse(_telling(_tail(path), clock))
    shown = _pick(lines)
    return ServerLog(
        server=server,
        path=relative,
        lines=shown,
        left_out=len(lines) - len(shown),
        warnings=sum(line.repeats for line in lines if line.kind == "warn"),
        errors=sum(line.repeats for line in lines if line.kind == "error"),
    )


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            length = stream.seek(0, 2)
            stream.seek(max(0, length - MAX_BYTES))
            return stream.read(MAX_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _telling(lines: Iterable[str], clock: WallClock | None) -> Iterator[LogLine]:
    zone: float | None = None
    for number, line in enumerate(lines, start=1):
        text = line[: 4 * MAX_LENGTH].rstrip()
        time = _TIME.search(text[:40])
        # A line without a time belongs to a stack trace or a banner.
        if time is None:
            continue
        at = _moment(time) if clock else None
        if clock and at and zone is None:
            zone = clock.zone(at)
        level = _LEVEL.search(text[:200])
        role = _ROLE.search(text)
        if (level is None and role is None) or _OUR_OWN.search(text):
            continue
        kind = "role" if role else "warn" if level and level.group() == "WARN" else "error"
        wall = f"{time.group(2)}.{time.group(3)}"
        when = instant(clock.seconds(at, zone), 2) if clock and at and zone is not None else wall
        yield LogLine(number, when, wall, kind, _message(text[time.end() :].strip()))


def _moment(time: re.Match[str]) -> datetime | None:
    """A line's time as if it were in UTC; None where the line has no date, or one that does not exist."""
    if time.group(1) is None:
        return None
    try:
        return datetime.fromisoformat(f"{time.group(1)} {time.group(2)}.{time.group(3)}").replace(tzinfo=UTC)
    except ValueError:
        return None


def _message(text: str) -> str:
    """The level, the logger's short name and the message; the thread, which is long, is left to the file."""
    layout = _LAYOUT.fullmatch(text)
    if layout is not None:
        text = f"{layout['level']} {layout['logger']}: {layout['message']}"
    return shorten(text, MAX_LENGTH)


def _collapse(lines: Iterable[LogLine]) -> list[LogLine]:
    """Merge neighbours that differ only in their numbers: a server says the same of every peer, many times."""
    merged: list[LogLine] = []
    for line in lines:
        last = merged[-1] if merged else None
        if last and last.kind == line.kind and _shape(last.text) == _shape(line.text):
            merged[-1] = replace(last, repeats=last.repeats + 1)
        else:
            merged.append(line)
    return merged


def _shape(text: str) -> str:
    return _DIGITS.sub("0", text)


def _pick(lines: list[LogLine]) -> tuple[LogLine, ...]:
    """At most `MAX_LINES`, in their order; of each kind the first and the last ones.

    Changes of role may take two fifths of the room and errors two fifths; warnings, of which there are most, take
    what is left.
    """
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    chosen: list[LogLine] = []
    for kind, share in (("role", 2 / 5), ("error", 2 / 5), ("warn", 1.0)):
        candidates = [line for line in lines if line.kind == kind]
        chosen.extend(_ends(candidates, min(MAX_LINES - len(chosen), int(MAX_LINES * share))))
    return tuple(sorted(chosen, key=lambda line: line.number))


def _ends(lines: list[LogLine], room: int) -> list[LogLine]:
    if len(lines) <= room:
        return lines
    first = (room + 1) // 2
    return lines[:first] + lines[len(lines) - (room - first) :]

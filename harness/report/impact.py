"""What the faults did to those who used the service: how long writes stopped, and when the clients were back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.history.records import Operation, Outcome, SessionEvent, SessionState
from harness.report.words import NANOSECONDS


@dataclass(frozen=True)
class Pause:
    """The longest time without the return of an acknowledged write.

    Attributes:
        start: the last return before it, or the first call of all, monotonic nanoseconds.
        end: the first return after it; where there is none, the end of the load.
        ended: whether there was one.
    """

    start: int
    end: int
    ended: bool

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start) / NANOSECONDS


def longest_write_pause(operations: Iterable[Operation], since: int, load_end: int | None) -> Pause | None:
    """The longest pause that was not over when the first fault was begun (`since`); None without any write.

    Args:
        operations: all of them.
        since: pauses that ended before this instant do not count.
        load_end: when the clients were told to stop; None where that is not known, then nothing is said of a pause
            that lasts until the end.
    """
    writes = [o for o in operations if o.function.is_write]
    if not writes:
        return None
    returns = sorted(o.returned for o in writes if o.outcome is Outcome.OK and o.returned is not None)
    edges = [min(o.call for o in writes), *returns]
    pauses = [Pause(a, b, True) for a, b in zip(edges, edges[1:], strict=False) if b > since]
    if load_end is not None and load_end > edges[-1]:
        pauses.append(Pause(edges[-1], load_end, False))
    return max(pauses, key=lambda p: p.seconds, default=None)


@dataclass(frozen=True)
class Comeback:
    """What became of the clients' connections after an instant.

    Attributes:
        clients: how many client processes there were.
        disturbed: how many of them lost their connection.
        missing: how many had none at the end.
        back: when the last of the disturbed ones was connected again; None if none was.
    """

    clients: int
    disturbed: int
    missing: int
    back: int | None


def comeback(events: Sequence[SessionEvent], since: int) -> Comeback:
    """Follow each client from `since` on; a session that was closed on purpose is no loss."""
    by_process: dict[str, list[SessionEvent]] = {}
    for event in sorted(events, key=lambda e: e.at):
        by_process.setdefault(event.process, []).append(event)
    disturbed = missing = 0
    back: int | None = None
    for own in by_process.values():
        lost = [e for e in own if e.at >= since and e.state in (SessionState.SUSPENDED, SessionState.EXPIRED)]
        if not lost:
            continue
        disturbed += 1
        returned = [e.at for e in own if e.at > lost[-1].at and e.state is SessionState.CONNECTED]
        if returned:
            back = max(returned[0], back or 0)
        elif own[-1].state is not SessionState.CLOSED:
            missing += 1
    return Comeback(len(by_process), disturbed, missing, back)

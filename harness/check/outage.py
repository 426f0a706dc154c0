"""How long clients waited for their writes: the measurement behind `recovery`.

**Waiting** is what hurts, not silence: a client that asks nothing misses nothing. So between two consecutive answers
a client waits only from the moment on at which it wants something: it has a write on its way, tries one in vain, or
has lost its connection. The same definition over all clients together gives the outage of the service: the longest
time in which somebody wanted a write done and nobody's was. It does not depend on the rate of the load, except that
an outage cannot be seen before somebody asks.

A refused write (BadVersion and the like) is an answer: the whole quorum took part in refusing it.

A **stall** is a wait well beyond those before the first fault. Stalls with less than a second of calm between them
are one **disturbance**: a client that got one answer and then lost its server again has not recovered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import itemgetter

import msgspec

from harness.history.records import Operation, Outcome, SessionEvent, SessionState

SECOND = 1_000_000_000
#: A client has recovered when it is served without a stall for this long.
CALM = SECOND
#: A wait is a stall from this factor over the 99th percentile before the first fault, within these bounds.
STALL_FACTOR = 5
SHORTEST_STALL = SECOND // 4
LONGEST_STALL = SECOND


class Wait(msgspec.Struct, frozen=True, gc=False):
    """From `start` until `end` somebody wanted a write done, and none was; `end` is None if it never ended."""

    start: int
    end: int | None
    #: The last answer before and the first after; None at the begin and the end of the history.
    before: Operation | None
    after: Operation | None
    #: Of a wait that never ended: the last moment at which anybody still wanted something.
    given_up: int = 0

    @property
    def until(self) -> int:
        """Its end, or when the last one gave up."""
        return self.end if self.end is not None else self.given_up

    @property
    def length(self) -> int:
        """Nanoseconds."""
        return self.until - self.start


#: A client wanted a write: until when, from when, and the answered operation, if there was an answer.
Attempt = tuple[int, int, Operation | None]


def attempts_by_client(
    writes: Iterable[Operation], sessions: Iterable[SessionEvent], load_end: int
) -> dict[str, list[Attempt]]:
    """`attempts_of` each client that ever tried to write, by its name."""
    found: dict[str, tuple[list[Operation], list[SessionEvent]]] = {}
    for op in writes:
        found.setdefault(op.process, ([], []))[0].append(op)
    for event in sessions:
        if event.process in found:
            found[event.process][1].append(event)
    return {name: attempts_of(*mine, load_end) for name, mine in found.items()}


def attempts_of(writes: Sequence[Operation], sessions: Iterable[SessionEvent], load_end: int) -> list[Attempt]:
    """When one client wanted a write done, in the order of the ends.

    Args:
        writes: the client's writes, in the order of their calls.
        sessions: the changes of its session, in order; it wants to write all the time that it is disconnected.
        load_end: nobody waits any longer than until then for an answer that never comes.
    """
    ok, fail = Outcome.OK, Outcome.FAIL
    attempts: list[Attempt] = [
        (op.returned, op.call, op)
        for op in writes
        if op.returned is not None and (op.outcome is ok or (op.outcome is fail and op.zxid is not None))
    ]
    if len(attempts) < len(writes):
        calls = [call for _until, call, _op in attempts]
        first_answers = list(accumulate((until for until, _call, _op in reversed(attempts)), min))[::-1]
        for op in writes:
            if op.returned is None or not (op.outcome is ok or (op.outcome is fail and op.zxid is not None)):
                # Nobody waits any longer for a lost write once a later one is answered.
                given_up = load_end if op.returned is None else min(op.returned, load_end)
                later = bisect_right(calls, op.call)
                if later < len(first_answers):
                    given_up = min(given_up, first_answers[later])
                attempts.append((max(given_up, op.call), op.call, None))
    attempts += _disconnected(sessions, load_end)
    attempts.sort(key=itemgetter(0))
    return attempts


def _disconnected(sessions: Iterable[SessionEvent], load_end: int) -> Iterator[Attempt]:
    since: int | None = None
    for event in sessions:
        if event.state is SessionState.SUSPENDED and since is None:
            since = event.at
        elif event.state in (SessionState.CONNECTED, SessionState.CLOSED) and since is not None:
            yield (event.at, since, None)
            since = None
    if since is not None and since < load_end:
        yield (load_end, since, None)


def waits(attempts: Sequence[Attempt], at_least: int = 0) -> list[Wait]:
    """The waits between consecutive answers, in the order of time.

    Args:
        attempts: of one client or of several, in the order of their ends.
        at_least: leave out waits shorter than this, nanoseconds.
    """
    found: list[Wait] = []
    # Backwards, so that the earliest call of all attempts that end later is known at each answer.
    earliest: int | None = None
    end: int | None = None
    after: Operation | None = None
    for until, call, answer in reversed(attempts):
        if answer is not None:
            if earliest is not None:
                start = until if until > earliest else earliest
                if end is None or end - start >= at_least:
                    found.append(Wait(start, end, answer, after, attempts[-1][0]))
            end, after = until, answer
        if earliest is None or call < earliest:
            earliest = call
    if earliest is not None:
        found.append(Wait(earliest, end, None, after, attempts[-1][0]))
    found.reverse()
    return [wait for wait in found if wait.length >= at_least]


def stall_threshold(normal: list[Wait]) -> int:
    """From which length on a wait is a stall, given those of undisturbed clients (nanoseconds)."""
    lengths = sorted(wait.end - wait.start for wait in normal if wait.end is not None)
    if not lengths:
        return LONGEST_STALL
    usual = lengths[min(len(lengths) - 1, len(lengths) * 99 // 100)]
    return min(LONGEST_STALL, max(SHORTEST_STALL, STALL_FACTOR * usual))


def disturbances(found: list[Wait], threshold: int) -> list[Wait]:
    """One client's stalls, those with little calm between them merged.

    Args:
        found: from `waits`.
        threshold: from `stall_threshold`.
    """
    merged: list[Wait] = []
    for wait in found:
        if wait.length < threshold:
            continue
        last = merged[-1] if merged else None
        if last is not None and last.end is not None and wait.start - last.end < CALM:
            merged[-1] = Wait(last.start, wait.end, last.before, wait.after, wait.given_up)
        else:
            merged.append(wait)
    return merged

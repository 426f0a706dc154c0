"""Each session sees one advancing history: its answers in order, its own writes, and every read a true snapshot.

Every reply header carries a zxid: a write's own, and for a read the state that it saw. So for each session, in the
order of its requests' xids (which go on over reconnects):

* zxids never go back, and each write's zxid is above everything answered before it (FIFO, monotonic reads, own writes);
* a read finds exactly what the committed history makes of its znode at that zxid.

A write whose reply was lost, but that happened, must come after all earlier answers and writes of its session; a
later *read* on another server may still be without it, since nobody acknowledged it.

Reads may lag behind other sessions: ZooKeeper never promised otherwise. Nor does `sync` promise it, as it does not go
through a quorum (ZOOKEEPER-1675, ZOOKEEPER-2136). So stale reads are counted, and are no violation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import attrgetter, itemgetter

from harness.check.evidence import Evidence
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.linearizable_writes import logs_lacking
from harness.check.replay import State
from harness.check.verdict import Figure, Verdict, Witness
from harness.check.words import Words, zx
from harness.history.records import Function, Operation, Outcome

GUARANTEE = Guarantee(
    "session-order",
    "Each session sees one history that only advances: its requests in order, its own writes, and true snapshots.",
    ("NR-09", "SE-02"),
)

_cxid = attrgetter("cxid")


def check(evidence: Evidence) -> Verdict:
    """Judge."""
    words = Words(evidence.start)
    reads = [op for op in evidence.operations if op.zxid is not None and not op.function.is_write and answered(op)]
    problems = list(_order(evidence, words))
    unjudged = 0
    for op in reads:
        verdict = _wrong_read(op, evidence, words)
        if verdict is None:
            continue
        if isinstance(verdict, Problem):
            problems.append(verdict)
        else:
            unjudged += 1
    stale, synced, lag = _staleness(evidence, reads)
    figures = (
        Figure("reads checked", len(reads) - unjudged, ""),
        Figure("reads that lagged behind another session", lag, ""),
        Figure("reads after a sync", synced, ""),
        Figure("stale reads after a sync", stale, ""),
    )
    notes: tuple[str, ...] = ()
    if stale:
        notes = (
            f"{count(stale, 'read')} after a sync missed a write acknowledged before: a known limitation of sync, "
            "which does not go through a quorum (ZOOKEEPER-1675, ZOOKEEPER-2136), and no violation.",
        )
    kept = f"{count(len(reads), 'read')} saw true snapshots, in order, and each session its own writes."
    return GUARANTEE.judged(problems, _doubts(evidence, reads, unjudged), kept, figures, notes)


def answered(op: Operation) -> bool:
    """Whether a read was answered: with a Stat, or with the certainty that its znode does not exist."""
    return op.outcome is Outcome.OK or (op.outcome is Outcome.FAIL and op.error == "NoNode")


def _doubts(evidence: Evidence, reads: list[Operation], unjudged: int) -> list[str]:
    doubts = [f"Not all operations can be read: {damage.text}." for damage in evidence.damaged("clients")]
    if not evidence.acknowledged_writes or not reads:
        missing = "write was acknowledged" if not evidence.acknowledged_writes else "read was answered"
        doubts.append(f"No {missing}, so there is no order to judge.")
    elif not evidence.committed.enough_logs:
        doubts.append(logs_lacking(evidence))
    elif unjudged:
        doubts.append(f"{count(unjudged, 'read')} saw states beyond what the servers' logs tell for certain.")
    return doubts


def _order(evidence: Evidence, words: Words) -> Iterator[Problem]:
    sessions: dict[int, list[tuple[int, int, Operation]]] = {}
    info, ok = Outcome.INFO, Outcome.OK
    for op in evidence.operations:
        if op.cxid is not None and op.zxid is not None and op.outcome is not info and (op.outcome is ok or op.error):
            sessions.setdefault(op.session, []).append((op.cxid, op.zxid, op))
    for op, txn in evidence.lost_replies.happened:
        if op.cxid is not None:
            sessions.setdefault(op.session, []).append((op.cxid, txn.zxid, op))
    for replies in sessions.values():
        replies.sort(key=itemgetter(0))
        yield from _session(replies, words)


def _session(replies: list[tuple[int, int, Operation]], words: Words) -> Iterator[Problem]:
    """One session's answers and lost writes, in the order of their requests."""
    info = Outcome.INFO
    high, high_op = -1, None
    write, write_op = -1, None
    for _cxid, zxid, op in replies:
        if op.function.is_write:
            if write_op is not None and zxid <= write:
                yield _out_of_order(write_op, op, "was sent after it and took effect before it", words)
            elif high_op is not None and zxid <= high:
                yield _out_of_order(high_op, op, "was sent after it, and is ordered before what it had seen", words)
            if zxid > write:
                write, write_op = zxid, op
        elif high_op is not None and zxid < high:
            own = "does not see that session's own write" if high_op.function.is_write else "went back in time"
            yield _out_of_order(high_op, op, own, words)
        if op.outcome is not info and zxid > high:
            high, high_op = zxid, op


def _out_of_order(earlier: Operation, later: Operation, what: str, words: Words) -> Problem:
    return Problem(
        f"{later.name} {what}: it follows {earlier.name} on the same session.",
        (words.operation(earlier), words.operation(later)),
    )


def _wrong_read(op: Operation, evidence: Evidence, words: Words) -> Problem | bool | None:
    """None if a read is right, a problem if it is wrong, True if the logs do not tell."""
    committed = evidence.committed
    zxid = op.zxid or 0
    if zxid in committed.discarded:
        return Problem(
            f"{op.name} saw the state at {zx(zxid)}, which was never committed.",
            (words.operation(op), words.txn(committed.discarded[zxid], "one server's log")),
        )
    if not committed.knows(zxid):
        return True
    chain = evidence.replay.chains.get(op.path)
    state = chain.at(zxid) if chain is not None else None
    if _saw(op, state):
        return None
    witnesses: list[Witness] = [words.operation(op), words.state(op.path, zxid, state)]
    if op.stat is not None and (state is None or op.stat.mzxid != state.mzxid):
        source = committed.by_zxid.get(op.stat.mzxid)
        if source is not None:
            witnesses.append(words.txn(source))
    return Problem(f"{op.name} did not find what {op.path} was at the zxid that it was told.", tuple(witnesses))


def _saw(op: Operation, state: State | None) -> bool:
    stat = op.stat
    if stat is None or state is None:
        return stat is None and state is None
    return (
        stat.mzxid == state.mzxid
        and stat.version == state.version
        and stat.czxid == state.czxid
        and stat.data_length == state.length
        and stat.ephemeral_owner == state.owner
        and (op.function is Function.EXISTS or op.read == state.value)
    )


def _staleness(evidence: Evidence, reads: list[Operation]) -> tuple[int, int, int]:
    """Stale reads after a sync, all reads after a sync, and plain reads behind an acknowledged write."""
    writes = [(op.returned or 0, op.zxid or 0) for op in evidence.acknowledged_writes]
    writes.sort()
    returns = [returned for returned, _zxid in writes]
    newest = list(accumulate((zxid for _returned, zxid in writes), max))
    stale = synced = lag = 0
    sync_get = Function.SYNC_GET
    for op in reads:
        before = bisect_left(returns, op.call)
        behind = before > 0 and (op.zxid or 0) < newest[before - 1]
        if op.function is sync_get:
            synced += 1
            stale += behind
        else:
            lag += behind
    return stale, synced, lag

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

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter

from harness.check.evidence import WRITES, Evidence
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.linearizable_writes import logs_lacking
from harness.check.replay import Chain, State
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
    reads = evidence.answered_reads
    wrong, unjudged = _wrong_reads(evidence)
    problems = [*_order(evidence, words), *(_wrong_read(op, evidence, words) for op in wrong)]
    stale, synced, lag = _staleness(evidence)
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
    return GUARANTEE.judged(problems, _doubts(evidence, unjudged), kept, figures, notes)


def _doubts(evidence: Evidence, unjudged: int) -> list[str]:
    doubts = [f"Not all operations can be read: {damage.text}." for damage in evidence.damaged("clients")]
    if not evidence.acknowledged_writes or not evidence.answered_reads:
        missing = "write was acknowledged" if not evidence.acknowledged_writes else "read was answered"
        doubts.append(f"No {missing}, so there is no order to judge.")
    elif not evidence.committed.enough_logs:
        doubts.append(logs_lacking(evidence))
    elif unjudged:
        doubts.append(f"{count(unjudged, 'read')} saw states beyond what the servers' logs tell for certain.")
    return doubts


def _order(evidence: Evidence, words: Words) -> Iterator[Problem]:
    lost = {op.name: txn.zxid for op, txn in evidence.lost_replies.happened}
    if _all_in_order(evidence.operations, lost):
        return
    sessions: dict[int, list[Operation]] = {}
    for op in evidence.operations:
        if op.cxid is not None and (op.name in lost if op.outcome is Outcome.INFO else op.zxid is not None):
            sessions.setdefault(op.session, []).append(op)
    for operations in sessions.values():
        operations.sort(key=_cxid)
        yield from _session(operations, lost, words)


def _all_in_order(operations: Iterable[Operation], lost: dict[str, int]) -> bool:
    """Whether every session is in order; fast, as they mostly are. Which operations are not, `_session` tells.

    Args:
        operations: in the order of their calls, which is that of their xids in a client that counts them up.
        lost: the zxids of lost writes that happened.
    """
    info, writes = Outcome.INFO, WRITES
    #: Of each session: the last xid, the highest zxid answered, the zxid of the last write.
    sessions: dict[int, list[int]] = {}
    for op in operations:
        cxid, zxid = op.cxid, op.zxid
        lost_one = op.outcome is info
        if lost_one:
            zxid = lost.get(op.name)
        if cxid is None or zxid is None:
            continue
        if op.session not in sessions:
            sessions[op.session] = [-1, -1, -1]
        session = sessions[op.session]
        write = op.function in writes
        if cxid <= session[0] or (zxid <= session[1] or zxid <= session[2] if write else zxid < session[1]):
            return False
        session[0] = cxid
        if not lost_one:
            session[1] = zxid
        if write:
            session[2] = zxid
    return True


def _session(operations: list[Operation], lost: dict[str, int], words: Words) -> Iterator[Problem]:
    """One session's answered operations and lost writes that happened, in the order of their requests."""
    info, writes = Outcome.INFO, WRITES
    high, high_op = -1, None
    write, write_op = -1, None
    for op in operations:
        answered = op.outcome is not info
        zxid = (op.zxid if answered else lost[op.name]) or 0
        if op.function in writes:
            if zxid <= write and write_op is not None:
                yield _out_of_order(
                    "{1} took effect before {0}, which its session had sent first.", write_op, op, words
                )
            elif zxid <= high and high_op is not None:
                yield _out_of_order("{1} is ordered before what its session had seen with {0}.", high_op, op, words)
            if zxid > write:
                write, write_op = zxid, op
        elif zxid < high and high_op is not None:
            own = high_op.function.is_write
            text = "{1} does not see {0}, an" if own else "{1} sees an older state than {0}, an"
            yield _out_of_order(text + " earlier operation of its own session.", high_op, op, words)
        if answered and zxid > high:
            high, high_op = zxid, op


def _out_of_order(text: str, earlier: Operation, later: Operation, words: Words) -> Problem:
    return Problem(text.format(earlier.name, later.name), (words.operation(earlier), words.operation(later)))


def _wrong_reads(evidence: Evidence) -> tuple[list[Operation], int]:
    """The reads that did not find what the history says, and how many cannot be judged."""
    committed, chains = evidence.committed, evidence.replay.chains
    last, doubtful = committed.last, committed.doubtful_from
    known_below = 0 if not committed.enough_logs else last + 1 if doubtful is None else min(doubtful, last + 1)
    discarded, exists = committed.discarded, Function.EXISTS
    wrong: list[Operation] = []
    unjudged = 0
    nothing = Chain()
    for op in evidence.answered_reads:
        zxid = op.zxid or 0
        if zxid >= known_below and not committed.knows(zxid):
            if zxid in discarded:
                wrong.append(op)
            else:
                unjudged += 1
            continue
        chain = chains.get(op.path, nothing)
        place = bisect_right(chain.zxids, zxid)
        state = chain.states[place - 1] if place else None
        stat = op.stat
        if stat is None or state is None:
            if stat is not None or state is not None:
                wrong.append(op)
        elif (
            stat.mzxid != state.mzxid
            or stat.version != state.version
            or stat.czxid != state.czxid
            or stat.data_length != state.length
            or stat.ephemeral_owner != state.owner
            or (op.read != state.value and op.function is not exists)
            or zxid in discarded
        ):
            wrong.append(op)
    return wrong, unjudged


def _wrong_read(op: Operation, evidence: Evidence, words: Words) -> Problem:
    committed, zxid = evidence.committed, op.zxid or 0
    if zxid in committed.discarded:
        return Problem(
            f"{op.name} saw the state at {zx(zxid)}, which was never committed.",
            (words.operation(op), words.txn(committed.discarded[zxid], "one server's log")),
        )
    state = evidence.replay.at(op.path, zxid)
    witnesses: list[Witness] = [words.operation(op), words.state(op.path, zxid, state)]
    if op.stat is not None and (state is None or op.stat.mzxid != state.mzxid):
        source = committed.by_zxid.get(op.stat.mzxid)
        if source is not None:
            witnesses.append(words.txn(source))
    wrong = f" ({_difference(op, state)})" if op.stat is not None and state is not None else ""
    return Problem(f"{op.name} did not find what {op.path} was at the zxid that it was told{wrong}.", tuple(witnesses))


def _difference(op: Operation, state: State) -> str:
    """The first thing in which a read differs from the state of its znode."""
    stat = op.stat
    if stat is None or (op.read != state.value and op.function is not Function.EXISTS):
        return "other data"
    fields = (
        ("mzxid", stat.mzxid, state.mzxid),
        ("version", stat.version, state.version),
        ("czxid", stat.czxid, state.czxid),
        ("ephemeral owner", stat.ephemeral_owner, state.owner),
        ("data length", stat.data_length, state.length),
    )
    return next((f"{name} {found} instead of {right}" for name, found, right in fields if found != right), "")


def _staleness(evidence: Evidence) -> tuple[int, int, int]:
    """Stale reads after a sync, all reads after a sync, and plain reads behind an acknowledged write."""
    writes = sorted([(op.returned or 0, op.zxid or 0) for op in evidence.acknowledged_writes])
    writes.append((1 << 64, 0))
    stale = synced = lag = newest = place = 0
    returned, zxid = writes[0]
    sync_get = Function.SYNC_GET
    for op in evidence.answered_reads:  # in the order of their calls
        while returned < op.call:
            if zxid > newest:  # noqa: PLR1730  # max() takes several times as long, for each write of a run
                newest = zxid
            place += 1
            returned, zxid = writes[place]
        behind = (op.zxid or 0) < newest
        if op.function is sync_get:
            synced += 1
            stale += behind
        else:
            lag += behind
    return stale, synced, lag

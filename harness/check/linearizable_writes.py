"""Writes are linearizable: one order, that of their zxids, respects real time and explains every answer.

ZooKeeper hands the order over: a write's reply carries its own zxid. So no search is needed. It suffices that no
write returned before another one with a *lower* zxid was called (one sweep, keeping the latest call so far), that
zxids are unique, that the servers' logs have the same request under the same zxid, and that replaying the log gives
each answer: success or the very error, and the resulting version, czxid and mzxid.

Refused writes take part: they go through the leader and take a zxid like any other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import attrgetter, itemgetter

from harness.check.evidence import Evidence
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.lost_replies import matches
from harness.check.replay import Chain, Replay, State
from harness.check.verdict import Figure, Verdict
from harness.check.words import Words, zx
from harness.history.records import Function, Operation, Outcome
from harness.zookeeper.txnlog import DELETES, ERROR_CODES, Txn, TxnKind

GUARANTEE = Guarantee(
    "linearizable-writes",
    "Writes take effect one after the other, in an order that respects real time, and each answer fits that order.",
    ("NR-09", "SE-01"),
)

#: Later than every moment, and above every zxid.
_NEVER = 1 << 64

_zxid = attrgetter("zxid")


def check(evidence: Evidence) -> Verdict:
    """Judge."""
    words = Words(evidence.start)
    answered = _answered(evidence)
    acknowledged = evidence.acknowledged_writes
    lost = evidence.lost_replies
    problems = [
        *_real_time(answered, evidence, words),
        *_log_agrees(answered, evidence, words),
        *_applied_twice(evidence, words),
        *_log_explains(evidence, words),
    ]
    unmatched = len([op for op in answered if op.zxid not in evidence.committed.by_zxid])
    figures = (
        Figure("acknowledged writes", len(acknowledged), ""),
        Figure("refused writes", len(answered) - len(acknowledged), ""),
        Figure("lost replies", lost.total, ""),
        Figure("lost replies that had happened", len(lost.happened), ""),
        Figure("lost replies that had not happened", len(lost.not_happened), ""),
        Figure("lost replies still open", len(lost.still_open), ""),
    )
    notes: tuple[str, ...] = ()
    if lost.still_open:
        operation, reason = lost.still_open[0]
        notes = (
            f"What became of {count(len(lost.still_open), 'lost write')} is open, {operation.name} first: {reason}.",
        )
    kept = (
        f"All {count(len(answered), 'answered write')} and {count(len(lost.happened), 'lost one')} that had happened "
        "fit one order."
    )
    return GUARANTEE.judged(problems, _doubts(evidence, unmatched), kept, figures, notes)


def _doubts(evidence: Evidence, unmatched: int) -> list[str]:
    doubts = [f"Not all operations can be read: {damage.text}." for damage in evidence.damaged("clients")]
    doubtful = evidence.committed.doubtful_from
    if not evidence.acknowledged_writes:
        doubts.append("No write was acknowledged, so there is nothing to judge.")
    elif not evidence.committed.enough_logs:
        doubts.append(logs_lacking(evidence))
    elif unmatched:
        doubts.append(f"{count(unmatched, 'answered write')} cannot be found in the servers' logs.")
    elif doubtful is not None and any((op.zxid or 0) >= doubtful for op in evidence.acknowledged_writes):
        doubts.append(f"From {zx(doubtful)} on the servers' logs are incomplete, so later answers cannot be replayed.")
    return doubts


def logs_lacking(evidence: Evidence) -> str:
    """The sentence for too few transaction logs."""
    reasons = "".join(f" {damage.part.capitalize()}: {damage.text}." for damage in evidence.damaged("server"))
    return (
        f"Transaction logs of {len(evidence.logs)} of {len(evidence.servers)} servers can be read, "
        f"and a majority is needed to know what was committed.{reasons}"
    )


def _answered(evidence: Evidence) -> list[Operation]:
    """All writes that were answered with a zxid, by zxid."""
    info = Outcome.INFO
    answered = [op for op in evidence.writes if op.zxid is not None and op.outcome is not info]
    answered.sort(key=_zxid)
    return answered


def _real_time(answered: list[Operation], evidence: Evidence, words: Words) -> Iterator[Problem]:
    """The sweep. Lost writes that happened have a call, but no return."""
    lost = [(txn.zxid, op) for op, txn in evidence.lost_replies.happened]
    if _respects_real_time(answered, lost):
        return
    everything = sorted([*((op.zxid or 0, op) for op in answered), *lost], key=itemgetter(0))
    info = Outcome.INFO
    returns = [_NEVER if op.outcome is info else op.returned or 0 for _zxid, op in everything]
    latest_call, latest = -1, None
    previous_zxid, previous = -1, None
    for (zxid, op), returned in zip(everything, returns, strict=True):
        if zxid == previous_zxid and previous is not None:
            yield Problem(
                f"Two writes were given the same zxid {zx(zxid)}.", (words.operation(previous), words.operation(op))
            )
        if returned < latest_call and latest is not None:
            yield Problem(
                f"{op.name} returned before {latest.name} was called, and yet is ordered after it.",
                (words.operation(op), words.operation(latest)),
            )
        if op.call > latest_call:
            latest_call, latest = op.call, op
        previous_zxid, previous = zxid, op


def _respects_real_time(answered: list[Operation], lost: list[tuple[int, Operation]]) -> bool:
    """Whether the sweep has nothing to tell; fast, as it hardly ever has."""
    latest_call, previous = -1, -1
    for op in answered:
        zxid, call = op.zxid or 0, op.call
        if zxid == previous or (op.returned or 0) < latest_call:
            return False
        if call > latest_call:  # noqa: PLR1730  # max() takes several times as long, for each operation of a run
            latest_call = call
        previous = zxid
    if not lost:
        return True
    zxids = [op.zxid or 0 for op in answered]
    earliest_returns = list(accumulate((op.returned or 0 for op in reversed(answered)), min))[::-1]
    for zxid, op in lost:
        after = bisect_left(zxids, zxid)
        if after < len(zxids) and (zxids[after] == zxid or earliest_returns[after] < op.call):
            return False
    return len({zxid for zxid, _op in lost}) == len(lost)


def _log_agrees(answered: list[Operation], evidence: Evidence, words: Words) -> Iterator[Problem]:
    """Each answer against the record in the logs under its zxid, and against the replayed history."""
    by_zxid, chains = evidence.committed.by_zxid, evidence.replay.chains
    doubtful = evidence.committed.doubtful_from
    certain_below = _NEVER if doubtful is None else doubtful
    ok, error, codes, nothing = Outcome.OK, TxnKind.ERROR, ERROR_CODES, Chain()
    unmatched: list[Operation] = []
    for op in answered:
        zxid = op.zxid or 0
        txn = by_zxid.get(zxid)
        acknowledged = op.outcome is ok
        if txn is None:
            unmatched.append(op)
        elif txn.session != op.session or txn.cxid != op.cxid:
            yield Problem(
                f"{op.name} was told zxid {zx(zxid)}, under which the servers logged another request.",
                (words.operation(op), words.txn(txn)),
            )
        elif (
            not matches(op, txn) if acknowledged else (txn.kind is not error or txn.error != codes.get(op.error or ""))
        ):
            told = "acknowledged" if acknowledged else f"refused with {op.error}"
            yield Problem(
                f"{op.name} was {told}, and the servers logged something else for it.",
                (words.operation(op), words.txn(txn)),
            )
        elif zxid < certain_below:
            chain = chains.get(op.path, nothing)
            # The znode's version right before this write, and for a success the one that it made.
            place = bisect_left(chain.zxids, zxid)
            before = chain.states[place - 1] if place else None
            if acknowledged:
                made = chain.states[place] if place < len(chain.zxids) else None
                wrong = _wrong_success(op, zxid, txn, before, made)
            else:
                wrong = _wrong_error(op, before)
            if wrong is not None:
                yield _contradicted(op, zxid, wrong, evidence.replay, words)
    yield from _logged_elsewhere(unmatched, evidence, words)


def _contradicted(op: Operation, zxid: int, wrong: str, replayed: Replay, words: Words) -> Problem:
    before = replayed.at(op.path, zxid - 1)
    return Problem(f"{op.name} {wrong}.", (words.operation(op), words.state(op.path, zxid - 1, before)))


def _wrong_success(op: Operation, zxid: int, txn: Txn, before: State | None, made: State | None) -> str | None:
    """What is wrong with a success, or None. `txn` is its record; `before` and `made` are the znode's versions."""
    stat, expected, version = op.stat, op.expected_version, txn.version or 0
    if expected is not None and expected != -1 and before is not None and before.version != expected:
        return f"insisted on version {expected}, and the znode had version {before.version}"
    if stat is None:
        return None
    if stat.mzxid != zxid:
        return f"has mzxid {zx(stat.mzxid)} in its answer, but zxid {zx(zxid)} in the answer's header"
    if stat.version != version:
        return f"was told version {stat.version}, and made version {version}"
    if made is not None and (stat.czxid != made.czxid or stat.data_length != made.length):
        return f"was told czxid {zx(stat.czxid)} and {stat.data_length} bytes of data, which is not what it made"
    return None


def _wrong_error(op: Operation, before: State | None) -> str | None:
    """What is wrong with a refusal, or None. `before` is the znode's version right before it."""
    error = op.error
    if error == "NodeExists":
        return None if before is not None else "was refused with NodeExists, and the znode did not exist"
    if error == "NoNode":
        # A create is refused with NoNode for want of its parent, which is another znode's story.
        wrong = before is not None and op.function is not Function.CREATE
        return "was refused with NoNode, and the znode existed" if wrong else None
    return _wrong_bad_version(op, before) if error == "BadVersion" else None


def _wrong_bad_version(op: Operation, before: State | None) -> str | None:
    if op.expected_version is None or op.expected_version == -1:
        return "was refused with BadVersion, and had not insisted on one"
    if before is None:
        return "was refused with BadVersion, and the znode did not exist"
    if before.version == op.expected_version:
        return f"was refused with BadVersion, and the znode had version {before.version}"
    return None


def _logged_elsewhere(unmatched: list[Operation], evidence: Evidence, words: Words) -> Iterator[Problem]:
    """Of the answered writes whose zxid is in no log: those whose request is there under another zxid."""
    if not unmatched:
        return
    wanted = {(op.session, op.cxid): op for op in unmatched}
    for txn in evidence.committed.txns:
        op = wanted.get((txn.session, txn.cxid))
        if op is None:
            continue
        if matches(op, txn) if op.outcome is Outcome.OK else txn.error_name == op.error:
            yield Problem(
                f"{op.name} was told zxid {zx(op.zxid or 0)}, and the servers logged it under {zx(txn.zxid)}.",
                (words.operation(op), words.txn(txn)),
            )


def _applied_twice(evidence: Evidence, words: Words) -> Iterator[Problem]:
    """The same request, or the same value of a client, twice in the history."""
    changes = [txn for txn in evidence.committed.txns if txn.path is not None]
    data = [txn.data for txn in changes if txn.data is not None]
    if len(set(data)) < len(data):
        written = {op.written.encode(): op.path for op in evidence.writes if op.written is not None}
        yield from _repeated([t for t in changes if t.data is not None and written.get(t.data) == t.path], words)
    sessions = {op.session for op in evidence.writes if op.cxid is not None}
    yield from _repeated([txn for txn in changes if txn.kind in DELETES and txn.session in sessions], words)


def _repeated(changes: list[Txn], words: Words) -> Iterator[Problem]:
    """Those that write what an earlier one wrote, or delete for the same request."""
    earlier: dict[tuple[str | None, bytes | tuple[int, int]], Txn] = {}
    for txn in changes:
        first = earlier.setdefault((txn.path, txn.data if txn.data is not None else (txn.session, txn.cxid)), txn)
        if first is not txn:
            yield _twice(first, txn, words)


def _twice(first: Txn, second: Txn, words: Words) -> Problem:
    return Problem(
        f"One request was applied twice, at {zx(first.zxid)} and at {zx(second.zxid)}.",
        (words.txn(first), words.txn(second)),
    )


def _log_explains(evidence: Evidence, words: Words) -> Iterator[Problem]:
    """Transactions that cannot follow from those before them."""
    doubtful = evidence.committed.doubtful_from
    for contradiction in evidence.replay.contradictions:
        txn = contradiction.txn
        if doubtful is not None and txn.zxid >= doubtful:
            continue
        before = evidence.replay.change_before(contradiction.path, txn.zxid - 1)
        witnesses = [words.txn(txn)]
        if before is not None:
            witnesses.append(words.txn(evidence.committed.by_zxid[before]))
        yield Problem(
            f"The committed history contradicts itself on {contradiction.path}: {zx(txn.zxid)} {contradiction.text}.",
            tuple(witnesses),
        )

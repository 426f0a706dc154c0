"""No acknowledged write is lost: it is in the committed history, and the final state is what that history makes.

A transaction log holds more than was committed (see `committed.py`): a write that a deposed leader logged, and that
was overwritten, is lost although it can still be read in that one log.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.check.evidence import Evidence
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.linearizable_writes import logs_lacking
from harness.check.replay import State
from harness.check.verdict import Figure, Verdict, Witness
from harness.check.words import Words, zx
from harness.history.records import FinalRead, Operation
from harness.zookeeper.txnlog import Txn

GUARANTEE = Guarantee(
    "durability",
    "No acknowledged write is ever lost, and the state after healing is what the acknowledged writes made of it.",
    ("NR-09", "SZ-01"),
)


def check(evidence: Evidence) -> Verdict:
    """Judge."""
    words = Words(evidence.start)
    suspects = [op for op in evidence.acknowledged_writes if not _is_committed(op, evidence)]
    problems: list[Problem] = []
    unclear: list[tuple[Operation, str]] = []
    for op in suspects:
        verdict = _lost(op, evidence, words)
        if isinstance(verdict, Problem):
            problems.append(verdict)
        else:
            unclear.append((op, verdict))
    unjudged_reads = 0
    for read in evidence.final_reads:
        at = read.zxid or evidence.committed.last
        if evidence.committed.knows(at):
            problems.extend(_wrong_final(read, at, evidence, words))
        else:
            unjudged_reads += 1
    figures = (
        Figure("acknowledged writes", len(evidence.acknowledged_writes), ""),
        Figure("acknowledged writes found in the logs", len(evidence.acknowledged_writes) - len(suspects), ""),
        Figure("final reads", len(evidence.final_reads), ""),
        Figure("logged, but overwritten before commit", len(evidence.committed.discarded), "transactions"),
    )
    kept = (
        f"All {count(len(evidence.acknowledged_writes), 'acknowledged write')} are in the servers' logs, and "
        f"{count(len(evidence.final_reads), 'final read')} found what these make."
    )
    return GUARANTEE.judged(problems, _doubts(evidence, unclear, unjudged_reads), kept, figures)


def _doubts(evidence: Evidence, unclear: list[tuple[Operation, str]], unjudged_reads: int) -> list[str]:
    doubts = [f"Not all operations can be read: {damage.text}." for damage in evidence.damaged("clients")]
    if not evidence.acknowledged_writes:
        doubts.append("No write was acknowledged, so none can be lost.")
    elif not evidence.committed.enough_logs:
        doubts.append(logs_lacking(evidence))
        return doubts
    if unclear:
        op, reason = unclear[0]
        doubts.append(
            f"Whether {count(len(unclear), 'acknowledged write')} survived is not known; {op.name} first: {reason}."
        )
    unread = {op.path for op in evidence.acknowledged_writes} - {read.path for read in evidence.final_reads}
    if evidence.acknowledged_writes and not evidence.final_reads:
        doubts.append("The run ended before the final state was read.")
    elif unread:
        doubts.append(f"The final state of {count(len(unread), 'znode')} was not read, {min(unread)} among them.")
    if unjudged_reads:
        doubts.append(f"{count(unjudged_reads, 'final read')} lie beyond what the servers' logs tell for certain.")
    return doubts


def _is_committed(op: Operation, evidence: Evidence) -> bool:
    txn = evidence.committed.by_zxid.get(op.zxid) if op.zxid is not None else None
    return txn is not None and txn.cxid == op.cxid and txn.session == op.session


def _lost(op: Operation, evidence: Evidence, words: Words) -> Problem | str:
    """How an acknowledged write that is not in the committed history was lost, or why that is not known."""
    committed, zxid = evidence.committed, op.zxid
    if zxid is None:
        return "its answer carried no zxid"
    said = words.operation(op)
    if zxid in committed.discarded:
        holders = [server for server, log in evidence.logs.items() if log.has(zxid)]
        return Problem(
            f"{op.name} was acknowledged and then overwritten: only server {holders[0]} still has it in its log.",
            (said, words.txn(committed.discarded[zxid], f"server {holders[0]}'s log"), *_passed_over(zxid, evidence)),
        )
    other = committed.by_zxid.get(zxid)
    if other is not None:
        return Problem(
            f"{op.name} was acknowledged, and the servers' logs have another request in its place.",
            (said, words.txn(other)),
        )
    if zxid in committed.undecided or not committed.enough_logs:
        return "too few servers logged it, and the others do not say whether it was committed"
    refuters = _passed_over(zxid, evidence)
    barrier = evidence.barrier
    if refuters or (barrier is not None and zxid <= barrier.zxid and not _within_snapshots(zxid, evidence)):
        return Problem(f"{op.name} was acknowledged, and no server has it in its log.", (said, *refuters))
    return "the servers' logs end before it or skip it by a snapshot"


def _passed_over(zxid: int, evidence: Evidence) -> tuple[Witness, ...]:
    """The servers whose log goes on beyond a zxid without it, at most two."""
    refuters = [s for s, log in evidence.logs.items() if not log.has(zxid) and log.refutes(zxid)]
    return tuple(Witness(text=_around(server, zxid, evidence)) for server in refuters[:2])


def _around(server: int, zxid: int, evidence: Evidence) -> str:
    zxids = evidence.logs[server].zxids
    before = max((z for z in zxids if z < zxid), default=None)
    after = min((z for z in zxids if z > zxid), default=None)
    begin = f"goes from {zx(before)}" if before is not None else "begins"
    return (
        f"server {server}'s log {begin} {'to' if before is not None else 'with'} {zx(after or 0)}, without {zx(zxid)}"
    )


def _within_snapshots(zxid: int, evidence: Evidence) -> bool:
    """Whether some server's snapshot may hold a transaction that no log has."""
    return any(snapshot >= zxid for log in evidence.logs.values() for snapshot in log.snapshots)


def _wrong_final(read: FinalRead, at: int, evidence: Evidence, words: Words) -> Iterator[Problem]:
    expected = evidence.replay.at(read.path, at)
    if same_state(read, expected):
        return
    witnesses = [words.final(read), words.state(read.path, at, expected)]
    maker = _maker(read.path, at, evidence)
    writer = next((op for op in evidence.acknowledged_writes if maker and op.zxid == maker.zxid), None)
    if writer is not None:
        witnesses.append(words.operation(writer))
    elif maker is not None:
        witnesses.append(words.txn(maker))
    yield Problem(
        f"After healing, server {read.server} does not have of {read.path} what the last write made of it.",
        tuple(witnesses),
    )


def _maker(path: str, zxid: int, evidence: Evidence) -> Txn | None:
    change = evidence.replay.change_before(path, zxid)
    return evidence.committed.by_zxid.get(change) if change is not None else None


def same_state(read: FinalRead, state: State | None) -> bool:
    """Whether a final read found this state."""
    stat = read.stat
    if stat is None or state is None:
        return stat is None and state is None
    return (stat.czxid, stat.mzxid, stat.version, stat.ephemeral_owner, stat.data_length, read.value) == (
        state.czxid,
        state.mzxid,
        state.version,
        state.owner,
        state.length,
        state.value,
    )

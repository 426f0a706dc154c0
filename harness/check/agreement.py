"""The servers agree: one transaction per zxid in every log, none skipped, and one final state.

Allowed, because ZooKeeper works so: a gap that a snapshot fills, a log that ends early because its server was down,
and proposals at the end of an epoch that were never committed (see `committed.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.check.evidence import Evidence
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.linearizable_writes import logs_lacking
from harness.check.verdict import Figure, Verdict, Witness
from harness.check.words import Words, zx
from harness.history.records import FinalRead, Stat
from harness.zookeeper.txnlog import Txn

GUARANTEE = Guarantee(
    "agreement",
    "After healing, all servers have the same history and the same state.",
    ("NR-09",),
)


def check(evidence: Evidence) -> Verdict:
    """Judge."""
    words = Words(evidence.start)
    committed, logs = evidence.committed, evidence.logs
    problems = [
        *_forks(evidence, words),
        *_skipped(evidence, words),
        *_backwards(evidence, words),
        *_final_states(evidence, words),
    ]
    compared = committed.in_several_logs
    figures = (
        Figure("servers", len(logs), ""),
        Figure("transactions in more than one log", compared, ""),
        Figure("never committed", len(committed.discarded), "transactions"),
        Figure("final reads", len(evidence.final_reads), ""),
    )
    kept = (
        f"The logs of {len(logs)} servers agree in all {count(compared, 'transaction')} that they share, "
        f"and so do {count(len(evidence.final_reads), 'final read')}."
    )
    return GUARANTEE.judged(problems, _doubts(evidence), kept, figures, _notes(evidence))


def _doubts(evidence: Evidence) -> list[str]:
    doubts: list[str] = []
    barrier = evidence.barrier
    if not evidence.committed.enough_logs:
        doubts.append(logs_lacking(evidence))
    elif len(evidence.logs) < 2:
        doubts.append("There is only one server's log, so there is nothing to compare.")
    else:
        doubts += [f"{damage.part.capitalize()}: {damage.text}." for damage in evidence.damaged("server")]
    if evidence.committed.missing:
        first, last = evidence.committed.missing[0]
        which = zx(first) if first == last else f"{zx(first)} to {zx(last)}"
        doubts.append(f"No server's log has {which}, and zxids have no gaps within an epoch.")
    if barrier is None:
        doubts.append("The run ended before the servers had caught up with each other (it has no barrier).")
    else:
        lacking = sorted(set(barrier.servers) - set(evidence.logs))
        if lacking and not evidence.damaged("server"):
            doubts.append(f"Server {lacking[0]} took part, and left no log.")
    readers = {read.server for read in evidence.final_reads}
    if len(readers) < 2:
        doubts.append("The final state was read on fewer than two servers.")
    elif barrier is not None and not readers >= set(barrier.servers):
        absent = min(set(barrier.servers) - readers)
        doubts.append(f"The final state was not read on server {absent}.")
    return doubts


def _notes(evidence: Evidence) -> tuple[str, ...]:
    notes: list[str] = []
    barrier = evidence.barrier
    for server, log in evidence.logs.items():
        if log.torn:
            notes.append(f"Server {server}'s log ends with a torn record: it was killed while it wrote.")
        if barrier is not None and server in barrier.servers and log.zxids and log.zxids[-1] < barrier.zxid:
            notes.append(f"Server {server}'s log ends at {zx(log.zxids[-1])}, before the barrier {zx(barrier.zxid)}.")
    if barrier is not None:
        absent = sorted(set(evidence.servers) - set(barrier.servers))
        notes += [f"Server {server} was not up at the end, so only its log is compared." for server in absent]
    if evidence.committed.discarded:
        first = min(evidence.committed.discarded)
        notes.append(
            f"{count(len(evidence.committed.discarded), 'transaction')} from {zx(first)} on were logged by a leader "
            "that lost its quorum, and were never committed."
        )
    return tuple(notes)


def _forks(evidence: Evidence, words: Words) -> Iterator[Problem]:
    for fork in evidence.committed.forks:
        yield Problem(
            f"Servers {fork.server} and {fork.other_server} have different transactions under {zx(fork.zxid)}.",
            (
                words.txn(fork.txn, f"server {fork.server}'s log"),
                words.txn(fork.other_txn, f"server {fork.other_server}'s log"),
            ),
        )


def _skipped(evidence: Evidence, words: Words) -> Iterator[Problem]:
    for skipped in evidence.committed.skipped:
        zxids = evidence.logs[skipped.server].zxids
        after = next(z for z in zxids if z > skipped.txn.zxid)
        yield Problem(
            f"Server {skipped.server} skipped {zx(skipped.txn.zxid)}, which server {skipped.holder} has.",
            (
                words.txn(skipped.txn, f"server {skipped.holder}'s log"),
                Witness(
                    text=f"server {skipped.server}'s log goes on at {zx(after)} without it, and no snapshot of that "
                    "server lies between"
                ),
            ),
        )


def _backwards(evidence: Evidence, words: Words) -> Iterator[Problem]:
    for server, log in evidence.logs.items():
        for txn in log.backwards:
            yield Problem(
                f"Server {server}'s log goes back to {zx(txn.zxid)} after a higher zxid.",
                (words.txn(_before(log.txns, txn), f"server {server}'s log"), words.txn(txn, "right after it")),
            )


def _before(txns: list[Txn], txn: Txn) -> Txn:
    return txns[max(0, next(i for i, other in enumerate(txns) if other is txn) - 1)]


def _final_states(evidence: Evidence, words: Words) -> Iterator[Problem]:
    first: dict[str, FinalRead] = {}
    for read in evidence.final_reads:
        other = first.setdefault(read.path, read)
        if other is not read and (other.value, _identity(other.stat)) != (read.value, _identity(read.stat)):
            yield Problem(
                f"Servers {other.server} and {read.server} differ in {read.path} after healing.",
                (words.final(other), words.final(read)),
            )


def _identity(stat: Stat | None) -> tuple[int, int, int] | None:
    return (stat.czxid, stat.mzxid, stat.version) if stat is not None else None

"""What became of each write without an answer: the servers' logs say.

A transaction's header names the session and the xid of its request. Our load client never uses an xid twice within
a session (plain kazoo does, after each reconnect), but this is verified, not believed: a record counts only if its
path and data are those of the operation, and what stays ambiguous stays open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.check.committed import CommittedLog
from harness.history.records import Function, Operation, Outcome
from harness.zookeeper.txnlog import CREATES, DELETES, SETS, Txn, TxnKind


@dataclass(frozen=True)
class LostReplies:
    """The writes without an answer, by what became of them."""

    happened: tuple[tuple[Operation, Txn], ...]
    #: Never reached the log, was refused there, or was overwritten before it was committed.
    not_happened: tuple[Operation, ...]
    #: With the reason why the logs do not tell.
    still_open: tuple[tuple[Operation, str], ...]

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.happened) + len(self.not_happened) + len(self.still_open)


_KINDS = {Function.CREATE: CREATES, Function.SET: SETS, Function.DELETE: DELETES}


def matches(operation: Operation, txn: Txn) -> bool:
    """Whether a transaction does what a write asked for: kind, path and data."""
    if txn.kind not in _KINDS[operation.function] or txn.path != operation.path:
        return False
    if operation.function is Function.DELETE:
        return True
    return (txn.data or b"") == (operation.written or "").encode()


def resolve_lost_replies(writes: Iterable[Operation], committed: CommittedLog, *, complete: bool) -> LostReplies:
    """Resolve every indeterminate write.

    Args:
        writes: all writes of the history.
        committed: the merged logs.
        complete: whether every committed transaction is certainly in some log (there is a barrier, and no log is
            damaged), so that what no log has did not happen.
    """
    info = Outcome.INFO
    lost = [op for op in writes if op.outcome is info]
    index = _Index(lost, committed) if lost else None
    happened: list[tuple[Operation, Txn]] = []
    not_happened: list[Operation] = []
    still_open: list[tuple[Operation, str]] = []
    for operation in lost:
        found = index.find(operation) if index is not None else "there is no log"
        if isinstance(found, Txn) and found.kind is not TxnKind.ERROR:
            happened.append((operation, found))
        elif isinstance(found, str):
            still_open.append((operation, found))
        elif found is None and not complete:
            still_open.append((operation, "no log has it, but the logs may be incomplete"))
        else:
            not_happened.append(operation)
    return LostReplies(tuple(happened), tuple(not_happened), tuple(still_open))


class _Index:
    """The transactions that may belong to lost operations, by request and by data."""

    def __init__(self, lost: list[Operation], committed: CommittedLog) -> None:
        self._committed = committed
        requests = {(op.session, op.cxid) for op in lost if op.cxid is not None}
        cxids = {cxid for _session, cxid in requests}
        values = {op.written.encode() for op in lost if op.cxid is None and op.written is not None}
        self._by_request: dict[tuple[int, int], list[Txn]] = {}
        self._by_data: dict[bytes, list[Txn]] = {}
        for txns in (committed.txns, committed.undecided.values(), committed.discarded.values()):
            for txn in txns:
                if txn.cxid in cxids and (txn.session, txn.cxid) in requests:
                    self._by_request.setdefault((txn.session, txn.cxid), []).append(txn)
                if values and txn.data in values and txn.data is not None:
                    self._by_data.setdefault(txn.data, []).append(txn)

    def find(self, operation: Operation) -> Txn | str | None:
        """Its committed transaction (an error, where it was refused), None if there is none, or why it stays open."""
        if operation.cxid is not None:
            candidates = self._by_request.get((operation.session, operation.cxid), [])
        elif operation.written is not None:
            candidates = self._by_data.get(operation.written.encode(), [])
        else:
            return "the client died, and a delete without its xid cannot be told from another client's"
        fitting = [txn for txn in candidates if txn.kind is TxnKind.ERROR or matches(operation, txn)]
        fitting = [txn for txn in fitting if txn.zxid not in self._committed.discarded]
        if len(fitting) > 1 and len({txn.kind for txn in fitting}) > 1:
            return "its session used one xid for several requests"
        if not fitting:
            if any(txn.zxid not in self._committed.discarded for txn in candidates):
                return "the log has another request under its xid"
            return None
        if fitting[0].zxid in self._committed.undecided:
            return "one server logged it, and the others do not say whether it was committed"
        return fitting[0]

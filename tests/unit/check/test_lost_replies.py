"""Lost replies are resolved from the logs, and stay open where the logs are ambiguous."""

from dataclasses import dataclass

import pytest

from harness.check.committed import ServerLog, merge_logs
from harness.check.lost_replies import LostReplies, resolve_lost_replies
from harness.history.records import Function, Operation, Outcome
from harness.zookeeper.txnlog import Txn, TxnKind

SESSION = 0x100000000000001
ZXID = (1 << 32) + 1


def lost(function: Function = Function.SET, cxid: int | None = 5, written: str | None = "v") -> Operation:
    session = SESSION if cxid is not None else 0
    return Operation("c1.0", 0, function, "/r", 10, 20, Outcome.INFO, written, session=session, cxid=cxid)


def logged(kind: TxnKind = TxnKind.SET_DATA, data: bytes | None = b"v", cxid: int = 5, zxid: int = ZXID) -> Txn:
    if kind is TxnKind.ERROR:
        return Txn(SESSION, cxid, zxid, 0, kind, error=-103, raw=b"%d" % zxid)
    return Txn(SESSION, cxid, zxid, 0, kind, "/r", data, 1 if kind is TxnKind.SET_DATA else None, raw=b"%d" % zxid)


@dataclass(frozen=True)
class Case:
    operation: Operation
    txns: tuple[Txn, ...]
    complete: bool = True


def resolve(case: Case) -> LostReplies:
    log = ServerLog(list(case.txns), (0,))
    return resolve_lost_replies(
        [case.operation], merge_logs({1: log, 2: log}, frozenset({1, 2}), 2), complete=case.complete
    )


@pytest.mark.parametrize(
    "case",
    [
        Case(lost(), (logged(),)),
        Case(lost(Function.CREATE), (logged(TxnKind.CREATE2),)),
        Case(lost(Function.DELETE, written=None), (logged(TxnKind.DELETE, None),)),
        Case(lost(), (logged(),), complete=False),
        Case(lost(cxid=None), (logged(),)),
    ],
    ids=["set", "create", "delete", "even in incomplete logs", "by its data, as the client died"],
)
def test_it_happened(case: Case) -> None:
    found = resolve(case)
    assert [(op, txn.zxid) for op, txn in found.happened] == [(case.operation, ZXID)]
    assert found.total == 1


@pytest.mark.parametrize(
    "case",
    [
        Case(lost(), (logged(cxid=6, data=b"w"),)),
        Case(lost(), (logged(TxnKind.ERROR),)),
        Case(lost(cxid=None), (logged(data=b"w"),)),
    ],
    ids=["not in the log", "refused", "its data is not in the log"],
)
def test_it_did_not_happen(case: Case) -> None:
    assert resolve(case).not_happened == (case.operation,)


@pytest.mark.parametrize(
    "case",
    [
        Case(lost(), (logged(cxid=6, data=b"w"),), complete=False),
        Case(lost(), (logged(data=b"another request"),)),
        Case(lost(), (logged(), logged(TxnKind.ERROR, zxid=ZXID + 1))),
        Case(lost(Function.DELETE, cxid=None, written=None), (logged(TxnKind.DELETE, None),)),
    ],
    ids=["the log may be incomplete", "another request's xid", "the xid was used twice", "whose delete was it"],
)
def test_it_stays_open(case: Case) -> None:
    found = resolve(case)
    assert [op for op, _reason in found.still_open] == [case.operation]
    assert found.still_open[0][1]


def test_a_reused_xid_does_no_harm_where_the_data_tells() -> None:
    """Plain kazoo counts from 1 again after a reconnect."""
    case = Case(lost(), (logged(data=b"before the reconnect"), logged(zxid=ZXID + 1)))
    assert [txn.zxid for _op, txn in resolve(case).happened] == [ZXID + 1]


def test_an_overwritten_proposal_did_not_happen() -> None:
    common = [logged(cxid=1, data=b"first")]
    old_leader = ServerLog([*common, logged(zxid=ZXID + 1)], (0,))
    new = ServerLog([*common, logged(cxid=9, data=b"new", zxid=(2 << 32) + 1)], (0,))
    history = merge_logs({1: old_leader, 2: new, 3: new}, frozenset({1, 2, 3}), 2)
    found = resolve_lost_replies([lost()], history, complete=True)
    assert len(found.not_happened) == 1


def test_a_proposal_that_nobody_decides_stays_open() -> None:
    common = [logged(cxid=1, data=b"first")]
    leader, other = ServerLog([*common, logged(zxid=ZXID + 1)], (0,)), ServerLog(common, (0,))
    history = merge_logs({1: leader, 2: other, 3: other}, frozenset({1, 2, 3}), 2)
    assert len(resolve_lost_replies([lost()], history, complete=True).still_open) == 1

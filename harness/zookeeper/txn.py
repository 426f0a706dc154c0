"""One transaction of ZooKeeper's log, typed. Its binary form is in `txn_codec.py`."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class TxnKind(IntEnum):
    """The type in a transaction's header; the numbers are `ZooDefs.OpCode`'s."""

    CREATE = 1
    DELETE = 2
    SET_DATA = 5
    SET_ACL = 7
    CHECK = 13
    MULTI = 14
    CREATE2 = 15
    RECONFIG = 16
    CREATE_CONTAINER = 19
    DELETE_CONTAINER = 20
    CREATE_TTL = 21
    CREATE_SESSION = -10
    CLOSE_SESSION = -11
    #: The request was refused; it took a zxid and changed nothing.
    ERROR = -1


CREATES = frozenset({TxnKind.CREATE, TxnKind.CREATE2, TxnKind.CREATE_CONTAINER, TxnKind.CREATE_TTL})
DELETES = frozenset({TxnKind.DELETE, TxnKind.DELETE_CONTAINER})
SETS = frozenset({TxnKind.SET_DATA, TxnKind.RECONFIG})

#: `KeeperException.Code` to the names that clients use.
ERROR_NAMES = {
    -2: "RuntimeInconsistency",
    -5: "Marshalling",
    -6: "Unimplemented",
    -8: "BadArguments",
    -13: "NewConfigNoQuorum",
    -14: "ReconfigInProgress",
    -101: "NoNode",
    -102: "NoAuth",
    -103: "BadVersion",
    -108: "NoChildrenForEphemerals",
    -110: "NodeExists",
    -111: "NotEmpty",
    -112: "SessionExpired",
    -114: "InvalidACL",
    -115: "AuthFailed",
    -118: "SessionMoved",
    -120: "EphemeralOnLocalSession",
    -123: "ReconfigDisabled",
    -125: "QuotaExceeded",
}
ERROR_CODES = {name: code for code, name in ERROR_NAMES.items()}


class Txn(msgspec.Struct, frozen=True, gc=False):
    """One transaction, or one part of a multi (a part repeats its multi's header)."""

    #: Session id, signed as in Java and kazoo.
    session: int
    #: The request's xid within its session.
    cxid: int
    zxid: int
    #: The leader's wall clock, milliseconds since 1970.
    time_ms: int
    kind: TxnKind
    path: str | None = None
    #: What a create or set writes; None is ZooKeeper's null, not b"".
    data: bytes | None = None
    #: The version that a set or setACL results in; for a check the version it insists on, plus one.
    version: int | None = None
    #: Of an error: `KeeperException.Code`, negative. 0 for a part of a multi that was rolled back.
    error: int = 0
    #: Of a create: the znode belongs to the session.
    ephemeral: bool = False
    #: Of a createSession, milliseconds.
    timeout_ms: int = 0
    parts: tuple[Txn, ...] = ()
    #: Of a closeSession: the ephemeral znodes that went with it; None before 3.6, which did not log them.
    deleted: tuple[str, ...] | None = None
    #: The leader's hash of the whole tree after this transaction; None before 3.6, and for errors.
    digest: int | None = None
    #: The payload without its digest: equal on two servers if and only if the transaction is.
    raw: bytes = b""

    @property
    def error_name(self) -> str | None:
        """`NoNode` and so on; None if this is no error."""
        return ERROR_NAMES.get(self.error, f"error {self.error}") if self.kind is TxnKind.ERROR else None

    @property
    def failed_multi(self) -> bool:
        """Whether this multi was rolled back. It then keeps the bodies of the parts that would have succeeded."""
        return any(part.kind is TxnKind.ERROR for part in self.parts)

"""Replays a committed history: what every znode was, at every zxid.

The rules are those of `DataTree.processTxn`: a create begins at version 0 with czxid = mzxid, a set raises the
version by one and moves mzxid, the end of a session deletes its ephemeral znodes, a multi does all of its parts at
one zxid or, if one is refused, none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from harness.zookeeper.txnlog import CREATES, DELETES, SETS, Txn, TxnKind

#: Znodes that exist from the start, without a transaction that made them.
_BUILT_IN = "/zookeeper"


class State(msgspec.Struct, frozen=True, gc=False):
    """One version of one znode. `value` is its data as the history's clients write it down."""

    value: str
    version: int
    czxid: int
    mzxid: int
    owner: int
    length: int


@dataclass
class Chain:
    """The versions of one znode: from `zxids[i]` on it is `states[i]`, None where it does not exist."""

    zxids: list[int] = field(default_factory=list)
    states: list[State | None] = field(default_factory=list)

    def at(self, zxid: int) -> State | None:
        """Its state once everything up to and including `zxid` is applied."""
        place = bisect_right(self.zxids, zxid)
        return self.states[place - 1] if place else None

    def change_before(self, zxid: int) -> int | None:
        """The zxid of its last change up to and including `zxid`, or None."""
        place = bisect_right(self.zxids, zxid)
        return self.zxids[place - 1] if place else None


@dataclass(frozen=True)
class Contradiction:
    """A transaction that cannot follow from those before it."""

    txn: Txn
    path: str
    text: str


@dataclass(frozen=True)
class Replay:
    """Every znode's versions, and the transactions that do not fit."""

    chains: dict[str, Chain]
    contradictions: tuple[Contradiction, ...]

    def at(self, path: str, zxid: int) -> State | None:
        """A znode's state at `zxid`, None if it did not exist."""
        chain = self.chains.get(path)
        return chain.at(zxid) if chain is not None else None

    def change_before(self, path: str, zxid: int) -> int | None:
        """The zxid of a znode's last change up to and including `zxid`, or None."""
        chain = self.chains.get(path)
        return chain.change_before(zxid) if chain is not None else None


def replay(txns: Iterable[Txn]) -> Replay:
    """Replay transactions in the order given, from an empty tree."""
    replayer = _Replayer()
    error = TxnKind.ERROR
    for txn in txns:
        if txn.kind is not error:
            replayer.apply(txn)
    return Replay(replayer.chains, tuple(replayer.contradictions))


class _Replayer:
    def __init__(self) -> None:
        self.chains: dict[str, Chain] = {}
        self.contradictions: list[Contradiction] = []
        self._owned: dict[int, set[str]] = {}

    def apply(self, txn: Txn) -> None:
        kind = txn.kind
        if kind in SETS:
            self._set(txn)
        elif kind in CREATES:
            self._create(txn)
        elif kind in DELETES:
            self._delete(txn)
        elif kind is TxnKind.MULTI:
            if not txn.failed_multi:
                for part in txn.parts:
                    self.apply(part)
        elif kind is TxnKind.CLOSE_SESSION:
            self._close(txn)

    def _create(self, txn: Txn) -> None:
        path = txn.path or ""
        chain = self.chains.get(path)
        if chain is None:
            chain = self.chains[path] = Chain()
        elif chain.states[-1] is not None:
            self._contradict(txn, path, "creates it although it exists")
        data = txn.data or b""
        owner = txn.session if txn.ephemeral else 0
        if owner:
            self._owned.setdefault(owner, set()).add(path)
        chain.zxids.append(txn.zxid)
        chain.states.append(State(data.decode(errors="replace"), 0, txn.zxid, txn.zxid, owner, len(data)))

    def _set(self, txn: Txn) -> None:
        path = txn.path or ""
        if path.startswith(_BUILT_IN):
            return
        chain = self.chains.setdefault(path, Chain())
        before = chain.states[-1] if chain.states else None
        data = txn.data or b""
        version = txn.version or 0
        if before is None:
            self._contradict(txn, path, f"sets it to version {version} although it does not exist")
            state = State(data.decode(errors="replace"), version, txn.zxid, txn.zxid, 0, len(data))
        else:
            if version != before.version + 1:
                self._contradict(txn, path, f"makes version {version} of it out of version {before.version}")
            state = State(data.decode(errors="replace"), version, before.czxid, txn.zxid, before.owner, len(data))
        chain.zxids.append(txn.zxid)
        chain.states.append(state)

    def _delete(self, txn: Txn) -> None:
        path = txn.path or ""
        chain = self.chains.setdefault(path, Chain())
        before = chain.states[-1] if chain.states else None
        if before is None:
            self._contradict(txn, path, "deletes it although it does not exist")
        elif before.owner:
            self._owned.get(before.owner, set()).discard(path)
        chain.zxids.append(txn.zxid)
        chain.states.append(None)

    def _close(self, txn: Txn) -> None:
        for path in sorted(self._owned.pop(txn.session, set())):
            self.chains[path].zxids.append(txn.zxid)
            self.chains[path].states.append(None)

    def _contradict(self, txn: Txn, path: str, text: str) -> None:
        self.contradictions.append(Contradiction(txn, path, text))

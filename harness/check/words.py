"""How judges put operations and transactions into words: one sentence each, times counted from the run's begin."""

from __future__ import annotations

from dataclasses import dataclass

from harness.check.committed import counter
from harness.check.replay import State
from harness.check.verdict import Witness
from harness.history.records import FinalRead, Function, Operation, Outcome, Stat
from harness.zookeeper.txnlog import CREATES, DELETES, SETS, Txn, TxnKind


def zx(zxid: int) -> str:
    """A zxid as ZooKeeper's own logs write it."""
    return f"0x{zxid:x}"


def data(value: str | bytes | None) -> str:
    """Data for a sentence, shortened."""
    if value is None:
        return "nothing"
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}..."'


@dataclass(frozen=True)
class Words:
    """Speaks of one run, which began at `start` (monotonic nanoseconds)."""

    start: int

    def at(self, moment: int) -> str:
        """`12.304 s`: seconds since the run began."""
        return f"{(moment - self.start) / 1e9:.3f} s"

    def operation(self, op: Operation) -> Witness:
        """An operation and its end."""
        return Witness(
            text=f"{op.process} {self._did(op)}",
            start=op.call,
            end=op.returned,
            operation=op.name,
        )

    def _did(self, op: Operation) -> str:
        if op.function.is_write:
            return f"{_asked(op)}: sent at {self.at(op.call)}, {self._answer(op)}"
        at = self.at(op.returned if op.returned is not None else op.call)
        zxid = f", zxid {zx(op.zxid)}" if op.zxid is not None else ""
        verb = "looked at" if op.function is Function.EXISTS else "read"
        if op.stat is None:
            return f"found no {op.path} at {at} ({op.function.value}{zxid})"
        value = "" if op.function is Function.EXISTS else f" = {data(op.read)}"
        return f"{verb} {op.path}{value} at {at} ({stat(op.stat)}{zxid})"

    def _answer(self, op: Operation) -> str:
        if op.returned is None or op.outcome is Outcome.INFO:
            return "no answer came" + (f" ({op.error} at {self.at(op.returned)})" if op.error and op.returned else "")
        zxid = f", zxid {zx(op.zxid)}" if op.zxid is not None else ""
        if op.outcome is Outcome.FAIL:
            return f"refused at {self.at(op.returned)} ({op.error}{zxid})"
        details = f" ({stat(op.stat)}{zxid})" if op.stat else f" ({zxid.removeprefix(', ')})" if zxid else ""
        return f"acknowledged at {self.at(op.returned)}{details}"

    def txn(self, txn: Txn, where: str = "the servers' logs") -> Witness:
        """A transaction in some log."""
        return Witness(text=f"{where} at {zx(txn.zxid)}: {deed(txn)}{_request(txn)}")

    def state(self, path: str, zxid: int, state: State | None) -> Witness:
        """What the committed history says of a path."""
        if state is None:
            return Witness(text=f"by the servers' logs, {path} did not exist at {zx(zxid)}")
        return Witness(
            text=f"by the servers' logs, {path} was {data(state.value)} at {zx(zxid)} "
            f"(version {state.version}, mzxid {zx(state.mzxid)}, czxid {zx(state.czxid)})"
        )

    def final(self, read: FinalRead) -> Witness:
        """A final read."""
        found = "does not exist" if read.stat is None else f"is {data(read.value)} ({stat(read.stat)})"
        return Witness(
            text=f"after healing, on server {read.server}: {read.path} {found}, zxid {zx(read.zxid)}",
            start=read.at,
            end=read.at,
        )


def stat(value: Stat) -> str:
    """The parts of a Stat that judges look at."""
    return f"version {value.version}, mzxid {zx(value.mzxid)}, czxid {zx(value.czxid)}"


def _asked(op: Operation) -> str:
    insisting = "" if op.expected_version is None else f" if its version is {op.expected_version}"
    if op.function is Function.CREATE:
        return f"create {op.path} = {data(op.written)}"
    if op.function is Function.SET:
        return f"set {op.path} to {data(op.written)}{insisting}"
    return f"delete {op.path}{insisting}"


def deed(txn: Txn) -> str:
    """What a transaction does."""
    if txn.kind in CREATES:
        return f"create {txn.path} = {data(txn.data)}"
    if txn.kind in SETS:
        return f"set {txn.path} to {data(txn.data)}, version {txn.version}"
    if txn.kind in DELETES:
        return f"delete {txn.path}"
    if txn.kind is TxnKind.ERROR:
        return f"a request refused with {txn.error_name}"
    if txn.kind is TxnKind.MULTI:
        return f"a multi of {len(txn.parts)} parts" + (", rolled back" if txn.failed_multi else "")
    names = {TxnKind.CREATE_SESSION: "a session begins", TxnKind.CLOSE_SESSION: "a session ends"}
    return names.get(txn.kind, txn.kind.name.lower())


def _request(txn: Txn) -> str:
    return f" (request {txn.cxid} of session 0x{txn.session & 0xFFFFFFFFFFFFFFFF:x})"


def place(zxid: int) -> str:
    """A zxid with its epoch and counter, for sentences about leaders."""
    return f"{zx(zxid)} (epoch {zxid >> 32}, number {counter(zxid)})"

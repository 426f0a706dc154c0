"""One client process's session: carries out generated operations at a rate and records each of them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from kazoo.client import KazooState
from kazoo.exceptions import KazooException
from kazoo.protocol.serialization import Create2, Delete, Exists, GetData, SetData, Sync
from kazoo.protocol.states import ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE

from harness.history.folder import LineWriter
from harness.history.records import Complete, Function, Invoke, Outcome, SessionEvent, SessionState, Stat
from harness.load.generator import Call, RegisterGenerator
from harness.load.traced_client import TracedClient, TracedResult

#: Answers of the server that say for certain that nothing was changed.
_REFUSALS = frozenset({"NoNode", "NodeExists", "BadVersion", "NotEmpty", "NoAuth", "InvalidACL", "BadArguments"})
#: An operation without any end after this many session timeouts is given up as indeterminate.
_PATIENCE = 5


@dataclass
class _Flight:
    """An operation on its way."""

    index: int
    call: Call
    result: TracedResult
    started: float


class Worker(threading.Thread):
    """A session that keeps `rate` operations per second going, with at most `window` in flight.

    The rate is kept by skipping, not by catching up: after an outage there is no burst.
    """

    def __init__(
        self,
        generator: RegisterGenerator,
        client: TracedClient,
        writer: LineWriter,
        *,
        process: str,
        rate: float,
        window: int,
        session_timeout: float,
    ) -> None:
        super().__init__(name=process, daemon=True)
        self._generator, self._client, self._writer = generator, client, writer
        self._process, self._period, self._window = process, 1.0 / rate, window
        self._patience = _PATIENCE * session_timeout
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._flights: dict[int, _Flight] = {}
        self._answered_writes = 0
        client.add_listener(self._session_changed)

    @property
    def answered_writes(self) -> int:
        """How many writes have been answered, refused ones included: a quorum took part in either."""
        return self._answered_writes

    def stop(self) -> None:
        """Ask it to begin no more operations."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        """Carry out operations until asked to stop, then wait for those in flight."""
        self._session_changed(str(self._client.state))
        due = time.monotonic()
        index = 0
        while not self._stopping.is_set():
            due = max(due + self._period, time.monotonic())
            self._stopping.wait(due - time.monotonic())
            if self._wait_for_room(self._window):
                self._begin(index)
                index += 1
        deadline = time.monotonic() + self._patience
        while not self._wait_for_room(1) and time.monotonic() < deadline:
            pass

    def _wait_for_room(self, limit: int) -> bool:
        """Whether fewer than `limit` are in flight; waits a moment for it."""
        with self._changed:
            if len(self._flights) >= limit:
                self._changed.wait(0.1)
            now = time.monotonic()
            for flight in [f for f in self._flights.values() if now - f.started > self._patience]:
                # kazoo can lose a request that was queued at the very moment its session expired
                del self._flights[flight.index]
                self._record(flight, time.monotonic_ns(), Outcome.INFO, error="Abandoned")
            return len(self._flights) < limit

    def _begin(self, index: int) -> None:
        call = self._generator.next(index)
        at = time.monotonic_ns()
        self._writer.write(
            Invoke(self._process, index, at, call.function, call.path, value=call.value, version=call.version)
        )
        result = self._client.submit(Sync(call.path)) if call.function is Function.SYNC_GET else None
        del result  # a sync's own answer says nothing that the get's does not
        flight = _Flight(index, call, self._client.submit(_request(call)), time.monotonic())
        with self._changed:
            self._flights[index] = flight
        flight.result.rawlink(lambda _result: self._end(flight))

    def _end(self, flight: _Flight) -> None:
        with self._changed:
            if self._flights.pop(flight.index, None) is None:
                return  # given up before
            self._changed.notify_all()
        result = flight.result
        at = result.reply.at if result.reply else time.monotonic_ns()
        problem = result.exception
        if problem is None:
            value, stat = _answer(flight.call.function, result)
            self._generator.saw(flight.call.path, stat)
            self._record(flight, at, Outcome.OK, value=value, stat=stat)
            return
        error = _error_name(problem)
        if error == "NoNode":
            self._generator.saw(flight.call.path, None)
        elif error == "NodeExists":
            self._generator.saw_present(flight.call.path)
        if result.sent is None or (result.reply is not None and error in _REFUSALS):
            self._record(flight, at, Outcome.FAIL, error=error)
        else:
            self._record(flight, at, Outcome.INFO, error=error)

    def _record(
        self,
        flight: _Flight,
        at: int,
        outcome: Outcome,
        *,
        value: str | None = None,
        stat: Stat | None = None,
        error: str | None = None,
    ) -> None:
        sent, reply = flight.result.sent, flight.result.reply
        self._answered_writes += flight.call.function.is_write and outcome is not Outcome.INFO and reply is not None
        self._writer.write(
            Complete(
                self._process,
                flight.index,
                at,
                outcome,
                session=sent.session if sent else 0,
                cxid=sent.xid if sent else None,
                server=sent.server if sent else None,
                zxid=reply.zxid if reply else None,
                value=value,
                stat=stat,
                error=error,
            )
        )

    def _session_changed(self, state: str) -> None:
        states = {KazooState.CONNECTED: SessionState.CONNECTED, KazooState.SUSPENDED: SessionState.SUSPENDED}
        new = states.get(state, SessionState.CLOSED if self._stopping.is_set() else SessionState.EXPIRED)
        self._writer.write(
            SessionEvent(self._process, time.monotonic_ns(), new, self._client.session, self._client.server)
        )


def _request(call: Call) -> object:
    data = call.value.encode() if call.value is not None else b""
    version = -1 if call.version is None else call.version
    match call.function:
        case Function.CREATE:
            return Create2(call.path, data, OPEN_ACL_UNSAFE, 0)
        case Function.SET:
            return SetData(call.path, data, version)
        case Function.DELETE:
            return Delete(call.path, version)
        case Function.EXISTS:
            return Exists(call.path, None)
        case _:
            return GetData(call.path, None)


def _answer(function: Function, result: TracedResult) -> tuple[str | None, Stat | None]:
    """The data read and the Stat of a success."""
    value: object = result.value
    if function is Function.DELETE:
        return None, None
    if function in (Function.GET, Function.SYNC_GET, Function.CREATE):
        first, stat = result.value
        value = stat
        if function is not Function.CREATE:
            return bytes(first).decode(errors="replace"), stat_of(value)
    return None, stat_of(value)


def stat_of(value: object) -> Stat | None:
    """Our Stat of kazoo's; None where there is none."""
    if not isinstance(value, ZnodeStat):
        return None
    return Stat(
        value.czxid,
        value.mzxid,
        value.pzxid,
        value.version,
        value.cversion,
        value.ephemeralOwner or 0,
        value.dataLength,
        value.numChildren,
    )


def _error_name(problem: BaseException) -> str:
    name = type(problem).__name__
    return name.removesuffix("Error") if isinstance(problem, KazooException) else name

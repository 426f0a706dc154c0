"""A small simulated ensemble under load: the leader's order, how far each server has applied it, what clients see.

What is simulated is what judges must cope with: pipelined sessions, followers that lag, stale reads, refused writes,
lost replies of writes that happened and of writes that did not, reconnects to other servers, outages with a new
epoch, a deposed leader's proposals that were never committed, servers that were down and came back by a snapshot.

One event of one session is handled at a time, in the order of time; so the simulated history is sound by construction.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import deque

import msgspec

from harness.history.records import (
    ClientRecord,
    Complete,
    Function,
    Invoke,
    Outcome,
    SessionEvent,
    SessionState,
    Stat,
)
from harness.zookeeper.txnlog import Txn, TxnKind

_SECOND = 1_000_000_000
_MS = 1_000_000
_WRITES = (Function.SET, Function.CREATE, Function.DELETE)
_ERRORS = {"NoNode": -101, "BadVersion": -103, "NodeExists": -110}


class SyntheticFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a made-up run; times in seconds from the begin of the load."""

    kind: str = "switch-down"
    target: str = "net1"
    at: float = 2.0
    healed: float = 6.0
    #: No write is answered for this long from the injection.
    outage: float = 1.5
    #: The leader loses its quorum: a new epoch begins, and this many of the old leader's proposals never commit.
    overwritten: int = 2
    #: Servers that miss everything while the fault lasts, and then get a snapshot.
    down: tuple[int, ...] = ()


class SyntheticRun(msgspec.Struct, frozen=True, kw_only=True):
    """What to make up."""

    seed: int = 1
    servers: int = 3
    switches: int = 2
    clients: int = 8
    #: Operations per second, all clients together.
    rate: float = 200.0
    duration: float = 10.0
    paths: int = 16
    window: int = 4
    #: Share of operations whose reply is lost.
    lost: float = 0.005
    faults: tuple[SyntheticFault, ...] = (SyntheticFault(),)
    recovery_within: float | None = 10.0


class Node(msgspec.Struct):
    """A znode now."""

    value: str
    version: int
    czxid: int
    mzxid: int

    def stat(self) -> Stat:
        """Its Stat, as ZooKeeper would tell it."""
        return Stat(self.czxid, self.mzxid, self.czxid, self.version, 0, 0, len(self.value), 0)


class _Request(msgspec.Struct):
    """An operation on its way."""

    index: int
    call: int
    function: Function
    path: str
    value: str | None
    version: int | None
    cxid: int


class _Answer(msgspec.Struct):
    """How an operation ended, for its client."""

    outcome: Outcome
    zxid: int | None = None
    value: str | None = None
    stat: Stat | None = None
    error: str | None = None


class _Session:
    """One client: what it does next, and what it has seen."""

    def __init__(self, process: str, number: int, run: SyntheticRun, start: int) -> None:
        self.process = process
        self.id = (1 + number % run.servers) << 56 | 0x1000 + number
        self.server = 1 + number % run.servers
        self.random = random.Random(f"{run.seed}/{process}")
        self._period = round(_SECOND * run.clients / run.rate)
        self._due = start + round(self.random.random() * self._period)
        self._paths, self._index, self._cxid = run.paths, 0, 0
        self._returns: deque[int] = deque(maxlen=run.window)
        self.versions: dict[str, int] = {}
        #: The server has handled everything before this moment, and the client has every answer before that one.
        self.handled = 0
        self.returned = 0
        #: The highest zxid that the session has seen or made.
        self.seen = 0
        self.records: list[ClientRecord] = []
        self.request = self.next()

    def next(self) -> _Request:
        """Draw the next operation, and fix when it is called."""
        call = self._due
        if self._returns.maxlen == len(self._returns):
            call = max(call, self._returns[0])
        self._due = call + self._period
        draw = self.random
        function = draw.choices(
            (Function.SET, Function.GET, Function.SYNC_GET, Function.CREATE, Function.EXISTS, Function.DELETE),
            (40, 30, 10, 8, 6, 6),
        )[0]
        path = register_path(draw.randrange(self._paths))
        value = f"{self.process}:{self._index}" if function in (Function.SET, Function.CREATE) else None
        version = None
        if function in (Function.SET, Function.DELETE) and draw.random() < 0.4 and path in self.versions:
            version = self.versions[path] + (1000 if draw.random() < 0.1 else 0)
        self._cxid += 2 if function is Function.SYNC_GET else 1
        self.request = _Request(self._index, call, function, path, value, version, self._cxid)
        self._index += 1
        return self.request

    def invoke(self) -> None:
        """Record the call."""
        r = self.request
        self.records.append(Invoke(self.process, r.index, r.call, r.function, r.path, r.value, r.version))

    def done(self, at: int) -> None:
        """The operation ended at `at`, for the client."""
        self.returned = at
        self._returns.append(at)

    def jitter(self, most_ms: float) -> int:
        """Up to so many milliseconds."""
        return 1 + int(self.random.random() * most_ms * _MS)


def register_path(number: int) -> str:
    """The znode of one register."""
    return f"/zkchaos/r{number:02d}"


class Simulation:
    """The leader's order, how far each server has applied it, and what clients see of it."""

    def __init__(self, run: SyntheticRun) -> None:
        self.run = run
        self.start = 1000 * _SECOND
        self.end = self.start + round(run.duration * _SECOND)
        self._random = random.Random(run.seed)
        self._epoch, self._counter = 1, 0
        self._txns: list[Txn] = []
        self._zxids: list[int] = []
        #: For each server, when it applied `_txns[i]`; ascending.
        self._applied: dict[int, list[int]] = {server: [] for server in self.servers()}
        self.nodes: dict[str, Node] = {}
        #: Each znode's versions: from when on (zxid), and what.
        self._versions: dict[str, tuple[list[int], list[Node | None]]] = {}
        self._overwritten: list[Txn] = []
        #: By server, the committed zxids that it got within a snapshot only.
        self._missed: dict[int, set[int]] = {server: set() for server in self.servers()}
        #: By server and fault, the zxid that the snapshot has with which it came back.
        self._rejoined: dict[tuple[int, int], int] = {}
        self.snapshots: dict[int, list[int]] = {server: [0] for server in self.servers()}
        self.sessions: list[_Session] = []
        #: When everything had ended, and the zxid of the last write; set at the end.
        self.last = self.end
        self.barrier = 0
        self._pending = [self.moment(fault.at) for fault in run.faults]

    def servers(self) -> range:
        """The ids of all servers."""
        return range(1, self.run.servers + 1)

    def moment(self, seconds: float) -> int:
        """A moment of the load, in the run's clock."""
        return self.start + round(seconds * _SECOND)

    def carry_out(self) -> None:
        """Simulate the whole run."""
        setup, before = 0x7777, self.start - _SECOND
        self._commit(before, Txn(setup, 0, 0, 0, TxnKind.CREATE_SESSION))
        self._commit(before + _MS, Txn(setup, 1, 0, 0, TxnKind.CREATE, "/zkchaos", b""))
        for number in range(self.run.clients):
            session = _Session(f"c1.{number}", number, self.run, self.start)
            self._commit(before + 2 * _MS + number, Txn(session.id, 0, 0, 0, TxnKind.CREATE_SESSION))
            session.records.append(
                SessionEvent(session.process, before, SessionState.CONNECTED, session.id, self._address(session.server))
            )
            self.sessions.append(session)
        queue = [(s.request.call + s.jitter(2), number) for number, s in enumerate(self.sessions)]
        heapq.heapify(queue)
        while queue:
            at, number = heapq.heappop(queue)
            again = self._handle(at, self.sessions[number])
            if again is not None:
                heapq.heappush(queue, (again, number))
        self._finish()

    def _handle(self, at: int, session: _Session) -> int | None:
        """The session's request reaches its server at `at`. When to handle the session again, None for never."""
        request = session.request
        if request.call >= self.end:
            return None
        fault = self._fault_at(at)
        if fault is not None:
            if self._overwrite(at, session, fault):
                return self._follow(session)
            return self.moment(fault.at + fault.outage) + session.jitter(40)
        ready = self._ready(at, session)
        if ready > at:
            return ready
        session.invoke()
        if session.random.random() < self.run.lost:
            self._lose(at, session, happened=session.random.random() < 0.5)
        elif request.function in _WRITES:
            self._write(at, session)
        else:
            self._read(at, session)
        session.handled = at
        return self._follow(session)

    def _follow(self, session: _Session) -> int:
        return max(session.next().call + session.jitter(2), session.handled + 1)

    def _ready(self, at: int, session: _Session) -> int:
        """When the session's server has applied all that the session has seen or made; not before `at`."""
        place = bisect_right(self._zxids, session.seen) - 1
        return max(at, self._applied[session.server][place]) if place >= 0 else at

    def _fault_at(self, at: int) -> SyntheticFault | None:
        """The fault whose outage lasts at this moment; the epoch changes and servers rejoin as time goes by."""
        for number, fault in enumerate(self.run.faults):
            if self.moment(fault.at) <= at < self.moment(fault.at + fault.outage):
                return fault
            if self._pending[number] and at >= self.moment(fault.at + fault.outage):
                self._pending[number] = 0
                if fault.overwritten:
                    self._epoch, self._counter = self._epoch + 1, 0
        return None

    def _overwrite(self, at: int, session: _Session, fault: SyntheticFault) -> bool:
        """Let the old leader, server 1, log a proposal that will never be committed, if it may have more of them."""
        mine = [txn for txn in self._overwritten if txn.zxid >> 32 == self._epoch]
        request = session.request
        if len(mine) >= fault.overwritten or request.function not in _WRITES:
            return False
        kind = {Function.SET: TxnKind.SET_DATA, Function.CREATE: TxnKind.CREATE}.get(request.function, TxnKind.DELETE)
        zxid = (self._epoch << 32) + self._counter + len(mine) + 1
        data = request.value.encode() if request.value is not None else None
        self._overwritten.append(
            Txn(session.id, request.cxid, zxid, 0, kind, request.path, data, 7 if kind is TxnKind.SET_DATA else None)
        )
        session.invoke()
        self._lose(at, session, happened=False)
        return True

    def _commit(self, at: int, txn: Txn) -> int:
        """Give a transaction a zxid, and fix when each server applies it."""
        self._counter += 1
        zxid = (self._epoch << 32) + self._counter
        digest = None if txn.kind is TxnKind.ERROR else self._random.getrandbits(40)
        self._txns.append(msgspec.structs.replace(txn, zxid=zxid, time_ms=at // _MS, digest=digest))
        self._zxids.append(zxid)
        for server, applied in self._applied.items():
            # Mostly at once, now and then late.
            moment = at + 1 + int(self._random.random() ** 4 * 30 * _MS)
            for number, fault in enumerate(self.run.faults):
                if server in fault.down and self.moment(fault.at) <= at < self.moment(fault.healed):
                    moment = max(moment, self.moment(fault.healed))
                    self._missed[server].add(zxid)
                    self._rejoined[server, number] = zxid
            applied.append(max(moment, applied[-1] if applied else 0))
        return zxid

    def _write(self, at: int, session: _Session, *, answer: bool = True) -> None:
        request = session.request
        error = self._refusal(request)
        if error is not None:
            zxid = self._commit(at, Txn(session.id, request.cxid, 0, 0, TxnKind.ERROR, error=_ERRORS[error]))
            if error == "NoNode":
                session.versions.pop(request.path, None)
        else:
            zxid = self._apply(at, session)
        if not answer:
            return
        session.seen = zxid
        returned = max(self._applied[session.server][-1] + session.jitter(1), session.returned + 1)
        node = self.nodes.get(request.path) if error is None else None
        if node is not None:
            session.versions[request.path] = node.version
        outcome = Outcome.OK if error is None else Outcome.FAIL
        stat = node.stat() if node is not None else None
        self._complete(session, returned, _Answer(outcome, zxid, stat=stat, error=error))

    def _refusal(self, request: _Request) -> str | None:
        node = self.nodes.get(request.path)
        if request.function is Function.CREATE:
            return "NodeExists" if node is not None else None
        if node is None:
            return "NoNode"
        return "BadVersion" if request.version not in (None, node.version) else None

    def _apply(self, at: int, session: _Session) -> int:
        request = session.request
        path, old = request.path, self.nodes.get(request.path)
        data = request.value.encode() if request.value is not None else None
        if request.function is Function.DELETE or request.value is None or data is None:
            zxid = self._commit(at, Txn(session.id, request.cxid, 0, 0, TxnKind.DELETE, path))
            self.nodes.pop(path, None)
            session.versions.pop(path, None)
        elif old is None:
            zxid = self._commit(at, Txn(session.id, request.cxid, 0, 0, TxnKind.CREATE2, path, data))
            self.nodes[path] = Node(request.value, 0, zxid, zxid)
        else:
            version = old.version + 1
            zxid = self._commit(at, Txn(session.id, request.cxid, 0, 0, TxnKind.SET_DATA, path, data, version))
            self.nodes[path] = Node(request.value, version, old.czxid, zxid)
        zxids, nodes = self._versions.setdefault(path, ([], []))
        zxids.append(zxid)
        nodes.append(self.nodes.get(path))
        return zxid

    def _read(self, at: int, session: _Session) -> None:
        request = session.request
        applied = bisect_right(self._applied[session.server], at)
        zxid = self._zxids[applied - 1]
        session.seen = zxid
        zxids, nodes = self._versions.get(request.path, ([], []))
        place = bisect_right(zxids, zxid)
        node = nodes[place - 1] if place else None
        returned = max(at + session.jitter(1), session.returned + 1)
        if node is not None:
            session.versions[request.path] = node.version
            value = None if request.function is Function.EXISTS else node.value
            self._complete(session, returned, _Answer(Outcome.OK, zxid, value, node.stat()))
        else:
            session.versions.pop(request.path, None)
            missing = request.function is not Function.EXISTS
            outcome, error = (Outcome.FAIL, "NoNode") if missing else (Outcome.OK, None)
            self._complete(session, returned, _Answer(outcome, zxid, error=error))

    def _lose(self, at: int, session: _Session, *, happened: bool) -> None:
        """The connection breaks before the answer; the session goes on with another server."""
        if happened and session.request.function in _WRITES:
            self._write(at, session, answer=False)
        returned = max(at + session.jitter(20), session.returned + 1)
        self._complete(session, returned, _Answer(Outcome.INFO, error="ConnectionLoss"))
        session.server = 1 + session.server % self.run.servers
        session.handled = max(returned, at)
        address = self._address(session.server)
        session.records += (
            SessionEvent(session.process, returned, SessionState.SUSPENDED, session.id),
            SessionEvent(session.process, returned + _MS, SessionState.CONNECTED, session.id, address),
        )

    def _complete(
        self,
        session: _Session,
        returned: int,
        answer: _Answer,
    ) -> None:
        request = session.request
        session.records.append(
            Complete(
                session.process,
                request.index,
                returned,
                answer.outcome,
                session.id,
                request.cxid,
                self._address(session.server),
                answer.zxid,
                answer.value,
                answer.stat,
                answer.error,
            )
        )
        session.done(returned)

    def _address(self, server: int) -> str:
        return f"10.77.1.{10 + server}:2181"

    def _finish(self) -> None:
        last = max(self.end, max((s.returned for s in self.sessions), default=0)) + 100 * _MS
        for session in self.sessions:
            self._commit(last, Txn(session.id, session.request.cxid + 1, 0, 0, TxnKind.CLOSE_SESSION))
        self.last = last
        self.barrier = self._commit(last + _MS, Txn(0x7777, 2, 0, 0, TxnKind.SET_DATA, "/zkchaos", b"barrier", 1))
        for (server, _number), zxid in self._rejoined.items():
            self.snapshots[server].append(zxid)
        if self._overwritten and self.run.servers > 1:
            self._depose()

    def _depose(self) -> None:
        """Server 1 rejoins, after each epoch that it lost, by a snapshot that holds the new one's first zxids."""
        for epoch in sorted({txn.zxid >> 32 for txn in self._overwritten}):
            first = next((i for i, z in enumerate(self._zxids) if z >> 32 > epoch), None)
            if first is not None:
                covered = self._zxids[first : first + 5]
                self._missed[1].update(covered)
                self.snapshots[1].append(covered[-1])
        self.snapshots[1].sort()

    def log(self, server: int) -> list[Txn]:
        """What a server has in its log."""
        txns = [txn for txn in self._txns if txn.zxid not in self._missed[server]]
        return sorted([*txns, *self._overwritten], key=lambda txn: txn.zxid) if server == 1 else txns

    def client_records(self) -> list[ClientRecord]:
        """All client processes' lines, in the order of time."""
        records = [record for session in self.sessions for record in session.records]
        records.sort(key=lambda record: record.at)
        return records

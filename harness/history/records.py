"""What happened, as records: one JSON object a line, tagged by `t`.

Times are CLOCK_MONOTONIC nanoseconds of this machine, comparable between all processes of a run.
Zxids, session ids and xids are plain integers. A run folder holds two kinds of lines:

* `clients/*.jsonl`: `Invoke`, `Complete`, `SessionEvent`, written by the client processes;
* `events.jsonl`: everything else, written by the process that performs the run.

Records of which a run has very many say `gc=False`: they cannot be part of a cycle, and the cyclic collector would
walk all of them again and again (it took more time than all judges together).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Stat(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """ZooKeeper's Stat (zookeeper.jute), without the wall-clock times. In JSON an array in this order."""

    czxid: int
    mzxid: int
    pzxid: int
    version: int
    cversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int


class Function(StrEnum):
    """What an operation does. A version-checked set is a `set` or `delete` with `version` given."""

    CREATE = "create"
    SET = "set"
    DELETE = "delete"
    GET = "get"
    EXISTS = "exists"
    #: sync, then get, pipelined on one session: one operation from the call of sync to the return of get.
    SYNC_GET = "sync-get"

    @property
    def is_write(self) -> bool:
        """Whether a success changes the tree and so has a zxid of its own."""
        return self in _WRITES


_WRITES = frozenset({Function.CREATE, Function.SET, Function.DELETE})


class Outcome(StrEnum):
    """How an operation ended, in Jepsen's words."""

    OK = "ok"
    #: Certainly not applied: the server refused it, or it never left the client.
    FAIL = "fail"
    #: Indeterminate: sent, and no answer came.
    INFO = "info"


class Invoke(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="invoke", omit_defaults=True):
    """An operation is about to be sent. `(process, index)` is its name in the whole run."""

    process: str
    index: int
    at: int
    function: Function
    path: str
    #: The data that a create or set writes; unique in the run.
    value: str | None = None
    #: The version that a set or delete insists on, else None.
    version: int | None = None


class Complete(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="complete", omit_defaults=True):
    """An operation's end. Without one (the process died) the operation is indeterminate."""

    process: str
    index: int
    at: int
    outcome: Outcome
    #: The session that the request was sent on, 0 if it was never sent.
    session: int = 0
    #: The request's xid, the `cxid` of the transaction log; unique within the session; None if never sent.
    cxid: int | None = None
    #: `address:port` of the server that it was sent to.
    server: str | None = None
    #: The reply header's zxid: a write's own, a read's snapshot. None without a reply.
    zxid: int | None = None
    #: What a get read; None also where the znode does not exist (then `stat` is None too).
    value: str | None = None
    stat: Stat | None = None
    #: ZooKeeper's name of the error (`NoNode`, `NodeExists`, `BadVersion`, `ConnectionLoss`, ...), else None.
    error: str | None = None


class SessionState(StrEnum):
    """A session as its client sees it."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    CLOSED = "closed"


class SessionEvent(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="session", omit_defaults=True):
    """A client's session changed its state."""

    process: str
    at: int
    state: SessionState
    session: int = 0
    server: str | None = None


ClientRecord = Invoke | Complete | SessionEvent


class Phase(msgspec.Struct, frozen=True, tag_field="t", tag="phase", omit_defaults=True):
    """The run entered a phase: `bring-up`, `quorum`, `load`, `quiesce`, `collect`, `done`, or `aborted`."""

    at: int
    name: str
    detail: str = ""


class FaultAction(StrEnum):
    """The life of a fault."""

    INJECT = "inject"
    INJECTED = "injected"
    HEAL = "heal"
    HEALED = "healed"
    #: The harness could not inject or heal it.
    FAILED = "failed"


class FaultEvent(msgspec.Struct, frozen=True, tag_field="t", tag="fault", omit_defaults=True):
    """A step in the life of one fault; `id` is its place in the schedule, from 0."""

    at: int
    id: int
    action: FaultAction
    #: The fault's kind (`switch-down`) and what it was resolved to (`net1`, `zk2:net1`, `zk3`).
    fault: str
    target: str
    #: The target as asked, where it was a role (`leader`), else the same as `target`.
    asked: str = ""
    detail: str = ""


class Measurement(msgspec.Struct, frozen=True, array_like=True):
    """One measured fact of a probe, for people and machines: `("zk1>zk2 over net1", "no answer", ok=False)`."""

    what: str
    found: str
    #: True if this fact speaks for a fault-free target, False if it speaks for the fault.
    healthy: bool


class ProbeEvent(msgspec.Struct, frozen=True, tag_field="t", tag="probe", omit_defaults=True):
    """A fault's probe was taken. `stage` is `before`, `during` or `after`."""

    at: int
    id: int
    stage: str
    #: True if the fault is seen to bite, False if the target is seen to be healthy, None if the probe cannot tell.
    bites: bool | None
    summary: str
    measurements: tuple[Measurement, ...] = ()


class Sample(msgspec.Struct, frozen=True, tag_field="t", tag="sample", omit_defaults=True):
    """One server as its own admin words tell it, taken over its loopback, which no network fault touches."""

    at: int
    server: int
    #: `leader`, `follower`, `observer`, `standalone`, `looking` (answers, serves nobody) or `down` (no answer).
    role: str
    zxid: int = 0
    connections: int = 0
    outstanding: int = 0


class ProcessEvent(msgspec.Struct, frozen=True, tag_field="t", tag="process", omit_defaults=True):
    """A server's process was started, or ended. `code` is the exit status, negative for a signal."""

    at: int
    server: int
    action: str
    pid: int = 0
    code: int | None = None


class FinalRead(msgspec.Struct, frozen=True, tag_field="t", tag="final", omit_defaults=True):
    """After healing: one path as one server has it, read on a session to that server alone after a sync."""

    at: int
    server: int
    path: str
    zxid: int
    value: str | None = None
    stat: Stat | None = None


class Barrier(msgspec.Struct, frozen=True, tag_field="t", tag="barrier", omit_defaults=True):
    """A last acknowledged write; every server in `servers` was then seen to have applied at least `zxid`."""

    at: int
    zxid: int
    servers: tuple[int, ...]


class Note(msgspec.Struct, frozen=True, tag_field="t", tag="note", omit_defaults=True):
    """Something that the reader should know. `broken` says that the harness failed at what it said it would do."""

    at: int
    text: str
    broken: bool = False


Event = Phase | FaultEvent | ProbeEvent | Sample | ProcessEvent | FinalRead | Barrier | Note


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One call and its return, joined from `Invoke` and `Complete`. What judges work on."""

    process: str
    index: int
    function: Function
    path: str
    call: int
    #: None if no return was recorded.
    returned: int | None
    outcome: Outcome
    #: Data written by a create or set.
    written: str | None = None
    #: The version that was insisted on.
    expected_version: int | None = None
    session: int = 0
    cxid: int | None = None
    server: str | None = None
    zxid: int | None = None
    #: Data read.
    read: str | None = None
    stat: Stat | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """`c1.3#17`: the 17th operation of process c1.3."""
        return f"{self.process}#{self.index}"

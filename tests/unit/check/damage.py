"""Ways to damage a sound run, one kind each; every one of them must be found.

A damage takes the evidence of any run and a source of chance that picks what to damage. It answers None where the run
has nothing of the kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TypeVar

import msgspec

from harness.check.committed import ServerLog
from harness.check.evidence import Evidence
from harness.check.lost_replies import matches
from harness.check.recovery import measure
from harness.history.records import FinalRead, Function, Operation, Outcome, ProbeEvent, Stat
from harness.history.scenario import Service
from harness.zookeeper.txnlog import SETS, Txn, TxnKind

SECOND = 1_000_000_000

T = TypeVar("T")
Damaging = Callable[[Evidence, Random], Evidence | None]


@dataclass(frozen=True)
class Damage:
    """A kind of damage, and the guarantee whose judge must notice."""

    name: str
    guarantee: str
    apply: Damaging


DAMAGES: list[Damage] = []


def damage(guarantee: str) -> Callable[[Damaging], Damaging]:
    """Register a kind of damage; its name is the function's."""

    def register(apply: Damaging) -> Damaging:
        DAMAGES.append(Damage(apply.__name__, guarantee, apply))
        return apply

    return register


# --- finding something to damage -------------------------------------------------------------------------------------


def pick(random: Random, choices: Sequence[T]) -> T | None:
    return choices[random.randrange(len(choices))] if choices else None


def acknowledged(evidence: Evidence, *functions: Function) -> list[Operation]:
    return [op for op in evidence.acknowledged_writes if op.function in functions]


def reads_of_data(evidence: Evidence) -> list[Operation]:
    return [op for op in evidence.answered_reads if op.read is not None]


def with_operation(evidence: Evidence, old: Operation, **changes: object) -> Evidence:
    new = msgspec.structs.replace(old, **changes)
    operations = [new if op is old else op for op in evidence.operations]
    operations.sort(key=lambda op: op.call)
    return dataclasses.replace(evidence, operations=tuple(operations))


def with_logs(evidence: Evidence, edit: Callable[[list[Txn]], list[Txn]], servers: Sequence[int] = ()) -> Evidence:
    logs = {
        server: dataclasses.replace(log, txns=edit(list(log.txns))) if not servers or server in servers else log
        for server, log in evidence.logs.items()
    }
    return dataclasses.replace(evidence, logs=logs)


def with_txn(evidence: Evidence, zxid: int, servers: Sequence[int] = (), **changes: object) -> Evidence:
    def edit(txns: list[Txn]) -> list[Txn]:
        return [_altered(txn, changes) if txn.zxid == zxid else txn for txn in txns]

    return with_logs(evidence, edit, servers)


def _altered(txn: Txn, changes: dict[str, object]) -> Txn:
    # What replicas compare is the raw record, so it must differ as well.
    return msgspec.structs.replace(txn, raw=txn.raw + repr(sorted(changes.items())).encode(), **changes)


def with_stat(stat: Stat, **changes: int) -> Stat:
    return msgspec.structs.replace(stat, **changes)


def a_server(evidence: Evidence, random: Random, zxid: int) -> int | None:
    """A server that has a transaction, in the middle of a stretch that no snapshot touches."""
    able = [
        server
        for server, log in evidence.logs.items()
        if all(log.has(zxid + step) for step in (-1, 0, 1)) and not any(abs(s - zxid) < 2 for s in log.snapshots)
    ]
    return pick(random, able)


# --- writes ----------------------------------------------------------------------------------------------------------


@damage("durability")
def acknowledged_write_in_no_log(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, [op for op in evidence.acknowledged_writes if a_server(evidence, random, op.zxid or 0)])
    if op is None:
        return None
    return with_logs(evidence, lambda txns: [txn for txn in txns if txn.zxid != op.zxid])


@damage("durability")
def acknowledged_write_overwritten_by_a_new_leader(evidence: Evidence, random: Random) -> Evidence | None:
    """It is still in the old leader's log, and in no other."""
    discarded = evidence.committed.discarded
    lost = [
        (op, txn)
        for op in evidence.lost_replies.not_happened
        for txn in discarded.values()
        if (txn.session, txn.cxid) == (op.session, op.cxid) and matches(op, txn)
    ]
    found = pick(random, lost)
    if found is None:
        return None
    op, txn = found
    return with_operation(evidence, op, outcome=Outcome.OK, zxid=txn.zxid, error=None)


@damage("durability")
def acknowledged_write_replaced_in_the_logs(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, evidence.acknowledged_writes)
    return None if op is None else with_txn(evidence, op.zxid or 0, session=0xDEAD, cxid=1)


@damage("linearizable-writes")
def write_order_against_real_time(evidence: Evidence, random: Random) -> Evidence | None:
    """A write that was called after another one had returned has a lower zxid."""
    writes = evidence.acknowledged_writes
    early, late = pick(random, writes), writes[-1] if writes else None
    if early is None or late is None or late.returned is None or (early.zxid or 0) >= (late.zxid or 0):
        return None
    return with_operation(evidence, early, call=late.returned + 1, returned=late.returned + 2)


@damage("linearizable-writes")
def two_writes_with_one_zxid(evidence: Evidence, random: Random) -> Evidence | None:
    first, second = pick(random, evidence.acknowledged_writes), pick(random, evidence.acknowledged_writes)
    return (
        None
        if first is None or second is None or first is second
        else with_operation(evidence, second, zxid=first.zxid)
    )


@damage("linearizable-writes")
def request_applied_twice(evidence: Evidence, random: Random) -> Evidence | None:
    """A retried request that had happened: its set is in the history a second time."""
    last = evidence.committed.last
    alive = [(op, now) for op in acknowledged(evidence, Function.SET) if (now := evidence.replay.at(op.path, last))]
    found = pick(random, alive)
    if found is None:
        return None
    op, now = found
    txn = evidence.committed.by_zxid[op.zxid or 0]
    again = msgspec.structs.replace(txn, zxid=last + 1, version=now.version + 1, raw=b"again")
    return with_logs(evidence, lambda txns: [*txns, again])


@damage("linearizable-writes")
def version_gap_in_the_history(evidence: Evidence, random: Random) -> Evidence | None:
    sets = [txn for txn in evidence.committed.txns if txn.kind in SETS and txn.path != "/zookeeper/config"]
    txn = pick(random, sets)
    return None if txn is None else with_txn(evidence, txn.zxid, version=(txn.version or 0) + 1)


@damage("linearizable-writes")
def success_on_the_wrong_version(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, acknowledged(evidence, Function.SET))
    if op is None or op.stat is None:
        return None
    return with_operation(evidence, op, expected_version=op.stat.version + random.choice((0, 1, 5)))


@damage("linearizable-writes")
def delete_of_the_wrong_version(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, acknowledged(evidence, Function.DELETE))
    if op is None:
        return None
    before = evidence.replay.at(op.path, (op.zxid or 0) - 1)
    return None if before is None else with_operation(evidence, op, expected_version=before.version + 1)


@damage("linearizable-writes")
def header_and_stat_disagree(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, acknowledged(evidence, Function.SET, Function.CREATE))
    if op is None or op.stat is None:
        return None
    field = random.choice(("mzxid", "version", "czxid", "data_length"))
    return with_operation(evidence, op, stat=with_stat(op.stat, **{field: getattr(op.stat, field) + 1}))


@damage("linearizable-writes")
def logs_have_other_data(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, acknowledged(evidence, Function.SET, Function.CREATE))
    return None if op is None else with_txn(evidence, op.zxid or 0, data=b"not what was written")


@damage("linearizable-writes")
def acknowledged_but_logged_as_refused(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, evidence.acknowledged_writes)
    return (
        None
        if op is None
        else with_txn(evidence, op.zxid or 0, kind=TxnKind.ERROR, error=-101, path=None, data=None, version=None)
    )


@damage("linearizable-writes")
def refused_but_applied(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, evidence.acknowledged_writes)
    return None if op is None else with_operation(evidence, op, outcome=Outcome.FAIL, error="BadVersion", stat=None)


@damage("linearizable-writes")
def wrong_error(evidence: Evidence, random: Random) -> Evidence | None:
    """The client was told another error than the servers logged."""
    refused = [op for op in evidence.writes if op.outcome is Outcome.FAIL and op.zxid is not None]
    op = pick(random, refused)
    if op is None:
        return None
    return with_operation(evidence, op, error=random.choice([e for e in ("NoNode", "NotEmpty") if e != op.error]))


@damage("linearizable-writes")
def error_without_a_reason(evidence: Evidence, random: Random) -> Evidence | None:
    """Servers and client agree on an error that the state of the znode does not explain."""
    wrong = {"NoNode": ("BadVersion", -103), "BadVersion": ("NoNode", -101), "NodeExists": ("BadVersion", -103)}
    refused = [op for op in evidence.writes if op.outcome is Outcome.FAIL and op.zxid and op.error in wrong]
    op = pick(random, refused)
    if op is None or op.error is None:
        return None
    error, code = wrong[op.error]
    return with_operation(with_txn(evidence, op.zxid or 0, error=code), op, error=error)


# --- sessions and reads ----------------------------------------------------------------------------------------------


@damage("session-order")
def session_goes_back_in_time(evidence: Evidence, random: Random) -> Evidence | None:
    """A read is told the zxid, and finds the state, of the begin of the history."""
    seen: set[int] = set()
    later: list[Operation] = []
    for read in evidence.answered_reads:
        later += [read] if read.session in seen else []
        seen.add(read.session)
    op = pick(random, later)
    if op is None:
        return None
    first = evidence.committed.txns[0].zxid
    return with_operation(evidence, op, zxid=first, stat=None, read=None, outcome=Outcome.FAIL, error="NoNode")


@damage("session-order")
def own_write_not_seen(evidence: Evidence, random: Random) -> Evidence | None:
    """A read is told the zxid right before its session's own last write."""
    own: dict[int, Operation] = {}
    found: list[tuple[Operation, Operation]] = []
    for op in sorted((op for op in evidence.operations if op.cxid), key=lambda op: (op.session, op.cxid or 0)):
        if op.function.is_write and op.outcome is Outcome.OK:
            own[op.session] = op
        elif op.read is not None and op.session in own:
            found.append((own[op.session], op))
    pair = pick(random, found)
    return None if pair is None else with_operation(evidence, pair[1], zxid=(pair[0].zxid or 0) - 1)


@damage("session-order")
def pipelined_writes_swapped(evidence: Evidence, random: Random) -> Evidence | None:
    """Two writes of one session took effect in the other order, for the servers and the client alike."""
    by_session: dict[int, list[Operation]] = {}
    for op in evidence.acknowledged_writes:
        by_session.setdefault(op.session, []).append(op)
    pairs = [pair for ops in by_session.values() for pair in pairwise(ops)]
    pair = pick(random, pairs)
    if pair is None:
        return None
    first, second = pair
    swapped = with_operation(evidence, first, zxid=second.zxid)
    return with_operation(swapped, second, zxid=first.zxid)


@damage("session-order")
def reads_swapped(evidence: Evidence, random: Random) -> Evidence | None:
    """Two reads got each other's answers."""
    first = pick(random, reads_of_data(evidence))
    if first is None:
        return None
    second = pick(random, [op for op in reads_of_data(evidence) if op.read != first.read])
    if second is None:
        return None
    swapped = with_operation(evidence, first, read=second.read, stat=second.stat)
    return with_operation(swapped, second, read=first.read, stat=first.stat)


@damage("session-order")
def read_of_the_future(evidence: Evidence, random: Random) -> Evidence | None:
    """A read finds a version that is made only after the zxid that it is told."""
    for op in random.sample(reads_of_data(evidence), len(reads_of_data(evidence))):
        future = [
            w for w in acknowledged(evidence, Function.SET) if w.path == op.path and (w.zxid or 0) > (op.zxid or 0)
        ]
        if future and op.stat is not None:
            return with_operation(evidence, op, read=future[0].written, stat=future[0].stat)
    return None


@damage("session-order")
def read_of_a_value_that_nobody_wrote(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, reads_of_data(evidence))
    return None if op is None else with_operation(evidence, op, read="from nowhere")


@damage("session-order")
def read_of_a_wrong_version(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, [op for op in evidence.answered_reads if op.stat is not None])
    if op is None or op.stat is None:
        return None
    field = random.choice(("version", "mzxid", "czxid", "data_length", "ephemeral_owner"))
    return with_operation(evidence, op, stat=with_stat(op.stat, **{field: getattr(op.stat, field) + 1}))


@damage("session-order")
def deleted_znode_read_again(evidence: Evidence, random: Random) -> Evidence | None:
    """A read finds what was there before a delete that its zxid covers."""
    absent = [op for op in evidence.answered_reads if op.stat is None]
    for op in random.sample(absent, len(absent)):
        chain = evidence.replay.chains.get(op.path)
        old = [s for z, s in zip(chain.zxids, chain.states, strict=True) if s and z < (op.zxid or 0)] if chain else []
        if old:
            stat = Stat(old[-1].czxid, old[-1].mzxid, old[-1].czxid, old[-1].version, 0, 0, old[-1].length, 0)
            return with_operation(evidence, op, outcome=Outcome.OK, error=None, read=old[-1].value, stat=stat)
    return None


@damage("session-order")
def existing_znode_not_found(evidence: Evidence, random: Random) -> Evidence | None:
    op = pick(random, reads_of_data(evidence))
    return (
        None if op is None else with_operation(evidence, op, outcome=Outcome.FAIL, error="NoNode", read=None, stat=None)
    )


@damage("session-order")
def read_of_a_state_that_was_never_committed(evidence: Evidence, random: Random) -> Evidence | None:
    zxid = pick(random, sorted(evidence.committed.discarded))
    op = pick(random, reads_of_data(evidence))
    return None if zxid is None or op is None else with_operation(evidence, op, zxid=zxid)


# --- servers ---------------------------------------------------------------------------------------------------------


@damage("agreement")
def forked_replica(evidence: Evidence, random: Random) -> Evidence | None:
    """One server has another transaction under a zxid."""
    txn = pick(random, [txn for txn in evidence.committed.txns if txn.data])
    if txn is None:
        return None
    holders = [server for server, log in evidence.logs.items() if log.has(txn.zxid)]
    return with_txn(evidence, txn.zxid, (random.choice(holders),), data=b"forked") if len(holders) > 1 else None


@damage("agreement")
def transaction_skipped_by_a_replica(evidence: Evidence, random: Random) -> Evidence | None:
    able = [
        (txn.zxid, server)
        for txn in evidence.committed.txns
        if sum(log.has(txn.zxid) for log in evidence.logs.values()) > 1
        and (server := a_server(evidence, random, txn.zxid)) is not None
    ]
    found = pick(random, able)
    if found is None:
        return None
    zxid, server = found
    return with_logs(evidence, lambda txns: [txn for txn in txns if txn.zxid != zxid], (server,))


@damage("agreement")
def replica_that_goes_back(evidence: Evidence, random: Random) -> Evidence | None:
    server = pick(random, sorted(evidence.logs))
    if server is None or len(evidence.logs[server].txns) < 2:
        return None
    at = random.randrange(len(evidence.logs[server].txns) - 1)

    def swap(txns: list[Txn]) -> list[Txn]:
        txns[at], txns[at + 1] = txns[at + 1], txns[at]
        return txns

    return with_logs(evidence, swap, (server,))


@damage("agreement")
def replica_with_a_history_of_its_own(evidence: Evidence, random: Random) -> Evidence | None:
    """A deposed leader's proposals, and no snapshot that would have overwritten them."""
    discarded = evidence.committed.discarded
    server = next((s for s, log in evidence.logs.items() if any(map(log.has, discarded))), None)
    if server is None:
        return None
    log, other = evidence.logs[server], next(log for s, log in evidence.logs.items() if s != server)
    own = sorted({txn.zxid: txn for txn in (*log.txns, *other.txns)}.values(), key=lambda txn: txn.zxid)
    return dataclasses.replace(evidence, logs={**evidence.logs, server: ServerLog(own, (0,))})


def _final(evidence: Evidence, random: Random, *, absent: bool = False) -> FinalRead | None:
    return pick(random, [read for read in evidence.final_reads if (read.stat is None) is absent])


def with_final(evidence: Evidence, path: str, servers: Sequence[int], **changes: object) -> Evidence:
    events = tuple(
        msgspec.structs.replace(event, **changes)
        if isinstance(event, FinalRead) and event.path == path and (not servers or event.server in servers)
        else event
        for event in evidence.events
    )
    return dataclasses.replace(evidence, events=events)


@damage("agreement")
def one_server_differs_in_the_end(evidence: Evidence, random: Random) -> Evidence | None:
    read = _final(evidence, random)
    return None if read is None else with_final(evidence, read.path, (read.server,), value="differs")


@damage("durability")
def last_write_missing_in_the_end(evidence: Evidence, random: Random) -> Evidence | None:
    """All servers agree on a state that lacks the last write."""
    for read in random.sample(evidence.final_reads, len(evidence.final_reads)):
        chain = evidence.replay.chains.get(read.path)
        if read.stat is not None and chain is not None and len(chain.states) > 1 and chain.states[-2] is not None:
            old = chain.states[-2]
            stat = Stat(old.czxid, old.mzxid, old.czxid, old.version, 0, 0, old.length, 0)
            return with_final(evidence, read.path, (), value=old.value, stat=stat)
    return None


@damage("durability")
def deleted_znode_back_in_the_end(evidence: Evidence, random: Random) -> Evidence | None:
    read = _final(evidence, random, absent=True)
    return (
        None if read is None else with_final(evidence, read.path, (), value="back", stat=Stat(1, 1, 1, 0, 0, 0, 4, 0))
    )


@damage("durability")
def znode_gone_in_the_end(evidence: Evidence, random: Random) -> Evidence | None:
    read = _final(evidence, random)
    return None if read is None else with_final(evidence, read.path, (), value=None, stat=None)


# --- faults ----------------------------------------------------------------------------------------------------------


@damage("recovery")
def budget_exceeded(evidence: Evidence, random: Random) -> Evidence | None:
    if not any(outage > 0.5 for outage in _recoveries(evidence)):
        return None
    scenario = msgspec.structs.replace(evidence.scenario, recovery_within_s=random.uniform(0.1, 0.4))
    return dataclasses.replace(evidence, scenario=scenario)


@damage("expectation")
def service_that_goes_on_where_it_should_stop(evidence: Evidence, random: Random) -> Evidence | None:
    found = [
        r.fault.id
        for r in measure(evidence)
        if any(r.fault.at + 2.1 * SECOND < (op.returned or 0) < (r.healed or 0) for op in evidence.acknowledged_writes)
    ]
    number = pick(random, found)
    return None if number is None else expecting(evidence, number, Service.STOPS)


@damage("expectation")
def service_that_stops_where_it_should_go_on(evidence: Evidence, random: Random) -> Evidence | None:
    found = [
        r.fault.id
        for r in measure(evidence)
        if r.outage is not None and min(r.outage.until, r.healed or 0) - r.outage.start > SECOND // 2
    ]
    number = pick(random, found)
    if number is None:
        return None
    return expecting(evidence, number, Service.SURVIVES, recovery_within_s=random.uniform(0.1, 0.4))


def expecting(evidence: Evidence, fault: int, service: Service, **changes: object) -> Evidence:
    scenario = msgspec.structs.replace(evidence.scenario, expected={fault: service}, **changes)
    return dataclasses.replace(evidence, scenario=scenario)


def _recoveries(evidence: Evidence) -> list[float]:
    return [found.recovery_s for found in measure(evidence)]


def without_probe(evidence: Evidence, stage: str) -> Evidence:
    """Not a violation: the run is broken, because nobody knows whether the fault bit."""
    events = tuple(e for e in evidence.events if not (isinstance(e, ProbeEvent) and e.stage == stage))
    return dataclasses.replace(evidence, events=events)

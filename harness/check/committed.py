"""The one committed history that the logs of several servers add up to.

A server logs a transaction *before* it is committed. So a log may end with proposals that never became history: a
leader that lost its quorum keeps them in its log for ever, because ZooKeeper does not truncate across an epoch but
sends a snapshot (`LearnerHandler.queueCommittedProposals`: "Cannot send TRUNC to peer"). And a log may lack
committed transactions that its server got within a snapshot. Both are told apart by what the *other* logs say:

* a server **refutes** a zxid if its log goes on beyond it without having it, and no snapshot of that server lies
  between the zxid and the next one it has: the zxid was not in the history that it followed;
* a server **followed** a zxid if its log has it and goes on, without a break, to one that a majority has. Where a fault
  cut its log, that is a break: what the server went on from after that is not all that it had written.

Within an epoch a leader gives out zxids without gaps, refused requests included (`PrepRequestProcessor`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from operator import attrgetter, is_not, lt

from harness.zookeeper.txnlog import Txn

_zxid = attrgetter("zxid")


def epoch(zxid: int) -> int:
    """The number of the leadership that gave out a zxid."""
    return zxid >> 32


def counter(zxid: int) -> int:
    """The place of a zxid within its epoch, from 1; 0 names the begin of the epoch."""
    return zxid & 0xFFFFFFFF


@dataclass(frozen=True)
class ServerLog:
    """One server's transactions, in the order that it wrote them, and the zxids of its snapshots.

    A server takes a snapshot whenever it starts, so one without any is one whose snapshots were not kept. Any of its
    gaps may then be explained by one, and it is not believed to refute anything.
    """

    txns: list[Txn]
    snapshots: tuple[int, ...] = ()
    #: How many of its files end with a torn record.
    torn: int = 0
    #: The last zxid of what a fault damaged or took away, each time: the server went on from less than that.
    cuts: tuple[int, ...] = ()

    @cached_property
    def _written(self) -> list[int]:
        """The zxids in the order that they were written."""
        return [txn.zxid for txn in self.txns]

    @cached_property
    def _ascending(self) -> bool:
        return all(map(lt, self._written, islice(self._written, 1, None)))

    @cached_property
    def in_order(self) -> list[Txn]:
        """Its transactions by ascending zxid; of two with one zxid the one that was written first."""
        if self._ascending:
            return self.txns
        first: dict[int, Txn] = {}
        for txn in self.txns:
            first.setdefault(txn.zxid, txn)
        return [first[zxid] for zxid in sorted(first)]

    @cached_property
    def zxids(self) -> list[int]:
        """Its zxids, ascending, each once."""
        return self._written if self._ascending else sorted(set(self._written))

    def get(self, zxid: int) -> Txn | None:
        """Its transaction with that zxid, or None."""
        at = bisect_left(self.zxids, zxid)
        return self.in_order[at] if at < len(self.zxids) and self.zxids[at] == zxid else None

    def has(self, zxid: int) -> bool:
        """Whether it has a transaction with that zxid."""
        return self.get(zxid) is not None

    @cached_property
    def backwards(self) -> tuple[Txn, ...]:
        """The transactions logged after one with a higher zxid, unless they merely repeat an earlier one."""
        if self._ascending:
            return ()
        found: list[Txn] = []
        highest = -1
        seen: dict[int, bytes] = {}
        for txn in self.txns:
            if txn.zxid > highest:
                highest = txn.zxid
            elif seen.get(txn.zxid) != txn.raw:
                found.append(txn)
            seen.setdefault(txn.zxid, txn.raw)
        return tuple(found)

    def refutes(self, zxid: int) -> bool:
        """Whether this server followed a history without `zxid`; see the module's text."""
        at = bisect_right(self.zxids, zxid)
        if at == len(self.zxids) or not self.snapshots:
            return False
        snapshot = bisect_left(self.snapshots, zxid)
        explained = snapshot < len(self.snapshots) and self.snapshots[snapshot] < self.zxids[at]
        return not explained

    def unbroken(self) -> list[tuple[int, int]]:
        """The log cut where a fault cut it, and where a snapshot or a gap lies between two zxids: ends of each part."""
        parts: list[tuple[int, int]] = []
        first: int | None = None
        for one, other in pairwise(self.zxids):
            if first is None:
                first = one
            gap = other != one + 1 and (epoch(one) == epoch(other) or self._snapshot_between(one, other))
            if gap or one in self.cuts:
                parts.append((first, one))
                first = other
        if self.zxids:
            parts.append((self.zxids[0] if first is None else first, self.zxids[-1]))
        return parts

    def _snapshot_between(self, one: int, other: int) -> bool:
        if not self.snapshots:
            return True
        at = bisect_right(self.snapshots, one)
        return at < len(self.snapshots) and self.snapshots[at] < other


@dataclass(frozen=True)
class Fork:
    """Two servers have different transactions under one zxid."""

    zxid: int
    server: int
    txn: Txn
    other_server: int
    other_txn: Txn


@dataclass(frozen=True)
class Skipped:
    """A server followed a history without a committed transaction that another one has."""

    txn: Txn
    server: int
    holder: int


@dataclass(frozen=True)
class CommittedLog:
    """The committed history, and where the logs contradict each other or fall short."""

    #: Ascending by zxid.
    txns: list[Txn]
    #: In some log, but overwritten: never committed.
    discarded: Mapping[int, Txn]
    #: In some log, and the others do not say whether it was committed.
    undecided: Mapping[int, Txn]
    forks: tuple[Fork, ...]
    skipped: tuple[Skipped, ...]
    #: Ranges of zxids, both ends included, that must have existed and that no log has.
    missing: tuple[tuple[int, int], ...]
    #: Whether enough servers' logs were read that a committed transaction cannot hide: a majority.
    enough_logs: bool
    #: How many transactions are in more than one log.
    in_several_logs: int

    @cached_property
    def by_zxid(self) -> dict[int, Txn]:
        """The committed transactions by zxid."""
        return {txn.zxid: txn for txn in self.txns}

    @cached_property
    def last(self) -> int:
        """The highest committed zxid, 0 if there is none."""
        return self.txns[-1].zxid if self.txns else 0

    @cached_property
    def doubtful_from(self) -> int | None:
        """The first zxid from which on a znode's state is not known for certain, or None."""
        doubts = [first for first, _last in self.missing]
        doubts += [zxid for zxid in self.undecided if zxid < self.last]
        return min(doubts, default=None)

    def knows(self, zxid: int) -> bool:
        """Whether the state of every znode at `zxid` is known: it is in the history, or begins an epoch."""
        if not self.enough_logs or (self.doubtful_from is not None and zxid >= self.doubtful_from):
            return False
        return zxid <= self.last or (counter(zxid) == 0 and not self.undecided)


def merge_logs(logs: Mapping[int, ServerLog], voters: frozenset[int], quorum: int) -> CommittedLog:
    """Merge the logs of an ensemble's servers.

    Args:
        logs: by server id; a server whose log cannot be read is left out.
        voters: the ids of the participants; observers log too, but do not make a majority.
        quorum: how many voters are a majority.
    """
    voting = [log for server, log in logs.items() if server in voters]
    enough = len(voting) >= quorum
    alike, middle = _trim(logs)
    everything, forks = _union(middle)
    common = everything.keys() & set.intersection(*(set(log.zxids) for log in middle.values())) if middle else set()
    odd = everything.keys() - common
    if not enough:
        odd |= {txn.zxid for txn in alike}
        everything |= {txn.zxid: txn for txn in alike}
    majority = {zxid for zxid in odd if sum(log.has(zxid) for log in voting) >= quorum}
    certain = majority | common | {txn.zxid for txn in alike} if odd and enough else majority
    followed = _followed(logs, odd - majority, certain)
    discarded: dict[int, Txn] = {}
    undecided: dict[int, Txn] = {}
    skipped: list[Skipped] = []
    for zxid in sorted(odd):
        refuters = [server for server, log in logs.items() if not log.has(zxid) and log.refutes(zxid)]
        if zxid in majority or zxid in followed:
            holder = next(server for server, log in logs.items() if log.has(zxid))
            skipped += [Skipped(everything[zxid], server, holder) for server in refuters]
        elif refuters:
            discarded[zxid] = everything[zxid]
        else:
            undecided[zxid] = everything[zxid]
    txns = alike if enough else []
    if everything:
        txns = txns + [t for z, t in everything.items() if z not in discarded and z not in undecided]
        txns.sort(key=_zxid)
    shared = len(alike) if len(logs) > 1 else 0
    shared += sum(1 for zxid in everything if sum(log.has(zxid) for log in middle.values()) > 1)
    return CommittedLog(txns, discarded, undecided, forks, tuple(skipped), _missing(txns), enough, shared)


def _trim(logs: Mapping[int, ServerLog]) -> tuple[list[Txn], Mapping[int, ServerLog]]:
    """What all logs have alike at their begin and end, and the rest of each. Replicas differ in few places."""
    everyone = [log.in_order for log in logs.values()]
    shortest = min(map(len, everyone), default=0)
    head = _alike(everyone, shortest)
    tail = _alike([txns[head:][::-1] for txns in everyone], shortest - head)
    alike = everyone[0][:head] + everyone[0][len(everyone[0]) - tail :] if everyone else []
    rest = {server: ServerLog(log.in_order[head : len(log.in_order) - tail]) for server, log in logs.items()}
    return alike, rest


def _alike(everyone: list[list[Txn]], most: int) -> int:
    """How many transactions, at most `most`, all lists have alike at their begin. Equal ones are one object."""
    for other in everyone[1:]:
        differing = list(map(is_not, everyone[0][:most], other))
        most = differing.index(True) if True in differing else most
    return most


def _union(logs: Mapping[int, ServerLog]) -> tuple[dict[int, Txn], tuple[Fork, ...]]:
    """All transactions by zxid (where logs differ, the one that most have), and the differences."""
    everything: dict[int, Txn] = {}
    differing: set[int] = set()
    for log in logs.values():
        for zxid in log.zxids:
            txn = log.get(zxid)
            if txn is not None and everything.setdefault(zxid, txn).raw != txn.raw:
                differing.add(zxid)
    forks: list[Fork] = []
    for zxid in sorted(differing):
        holders = [(server, txn) for server, log in logs.items() if (txn := log.get(zxid)) is not None]
        contents = [txn.raw for _server, txn in holders]
        server, txn = max(holders, key=lambda holder: contents.count(holder[1].raw))
        everything[zxid] = txn
        forks += [Fork(zxid, server, txn, other, odd) for other, odd in holders if odd.raw != txn.raw]
    return everything, tuple(forks)


def _followed(logs: Mapping[int, ServerLog], wanted: set[int], certain: set[int]) -> set[int]:
    """Those of `wanted` from which some log goes on, without a break, to one that is `certain`."""
    found: set[int] = set()
    anchors = sorted(certain) if wanted else []
    if not anchors:
        return found
    for log in logs.values():
        if not any(map(log.has, wanted)):
            continue
        for first, last in log.unbroken():
            anchor = anchors[bisect_right(anchors, last) - 1] if anchors[0] <= last else -1
            here = log.zxids[bisect_left(log.zxids, first) : bisect_right(log.zxids, anchor)]
            found.update(wanted.intersection(here))
    return found


def _missing(txns: list[Txn]) -> tuple[tuple[int, int], ...]:
    if not txns:
        return ()
    missing: list[tuple[int, int]] = []
    zxids = [txn.zxid for txn in txns]
    if counter(zxids[0]) > 1:
        missing.append(((epoch(zxids[0]) << 32) + 1, zxids[0] - 1))
    for one, other in pairwise(zxids):
        if other - one == 1:
            continue
        if epoch(one) == epoch(other):
            missing.append((one + 1, other - 1))
        elif counter(other) > 1:
            missing.append(((epoch(other) << 32) + 1, other - 1))
    return tuple(missing)

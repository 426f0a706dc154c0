"""A partition: packet filters, and the proof that they bite where they should and nowhere else."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from harness.history.records import Measurement
from harness.nemesis import partitions
from harness.nemesis.kernel_parts import kernel_lacking
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.plan import Step
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World, path_measurement
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import Manner, Path
from harness.topology.model import Topology

#: What a port says to a connection.
_ACCEPTED, _REFUSED, _SILENT = "accepted", "refused", "silent"


class PartitionFault(Fault):
    """Hosts that do not hear others."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._partition = partitions.parse(target, world.topology)
        self._rules = self._partition.rules(world.topology)
        self._world = world
        _refuse(self._partition, world.testbed.lacking(), self.name)

    def inject(self) -> None:
        """Set all filters in one batch."""
        self._world.rules.hold(self.id, self._rules)

    def heal(self) -> None:
        """Lift those that no other fault holds."""
        self._world.rules.release(self.id)

    def probe(self) -> Probe:
        """Send datagrams over every path, or knock at the very port where one is meant."""
        return self._by_datagrams() if self._partition.port is None else self._by_connections(self._partition.port)

    def _by_datagrams(self) -> Probe:
        reached = self._world.reach(self._partition.switches)
        free = [p for p in reached if p.error != HOST_DOWN and not self._world.holds_path(p, but=self.id)]
        cut = set(self._partition.pairs)
        mine = [p for p in free if (p.source, p.destination) in cut]
        others = [p for p in free if (p.source, p.destination) not in cut]
        if not mine:
            return Probe(None, "other faults hold every path of it")
        return _judged(mine, others)

    def _by_connections(self, port: int) -> Probe:
        knocks = [k for k in self._knocks() if k.measurable]
        if not knocks:
            return Probe(None, f"nobody listens on port {port}, or other faults hold every path to it")
        for knock in knocks:
            knock.begin(self._world, self._world.topology.port_at(knock.destination, port))
        deadline = time.monotonic() + ANSWER_MS / 1000
        answers = [knock.answer(deadline) for knock in knocks]
        # a port that is refused by the filter is told from one where nobody listens: there, nothing was measured
        cut = sum(answer != _ACCEPTED for answer in answers)
        found = [
            Measurement(f"{k.source} > {k.destination}:{port} over {k.switch}", answer, healthy=answer == _ACCEPTED)
            for k, answer in zip(knocks, answers, strict=True)
        ]
        wanted = _REFUSED if self._partition.manner is Manner.REJECT else _SILENT
        summary = f"{len(knocks) - cut} of {len(knocks)} connections to port {port} are accepted"
        if cut and not all(answer in (_ACCEPTED, wanted) for answer in answers):
            return Probe(None, f"{summary}, and not all others are {wanted}", tuple(found))
        return Probe({0: False, len(knocks): True}.get(cut), summary, tuple(found))

    def _knocks(self) -> list[_Knock]:
        world, port = self._world, self._partition.port
        nics = {(nic.host, nic.switch): str(nic.address) for nic in world.topology.nics()}
        there = {host: world.topology.port_at(host, port or 0) for host in {d for _s, d in self._partition.pairs}}
        listening = {host: _listens(world, host, its_port) for host, its_port in there.items()}
        return [
            _Knock(
                source,
                destination,
                switch,
                nics[destination, switch],
                listening[destination]
                and not world.holds_path(Path(source, destination, switch, None), but=self.id)
                and not world.holds_path(Path(destination, source, switch, None), but=self.id),
            )
            for source, destination in self._partition.pairs
            for switch in self._partition.switches
            if (source, switch) in nics and (destination, switch) in nics
        ]


def refuse_steps(steps: Iterable[Step], topology: Topology, lacking: Callable[[], Mapping[str, str]]) -> None:
    """Refuse a schedule with a partition that this kernel cannot make. To be called before anything is broken.

    Raises:
        KernelLacking: with the kernel's words and the next step.
    """
    for step in steps:
        if KINDS[step.fault].aim is Aim.PARTITION:
            # whoever leads, the manner is the same
            target = partitions.resolve(step.target, topology, leader=topology.participants[0].id, rng=Random(0))
            _refuse(partitions.parse(target, topology), lacking(), f"{step.fault} {step.target}")


def _refuse(partition: partitions.Partition, lacking: Mapping[str, str], where: str) -> None:
    part = "reject" if partition.manner is Manner.REJECT else "bridge"
    if part in lacking:
        raise kernel_lacking(part, lacking, where)


@dataclass
class _Knock:
    """One connection from one host to another over one network."""

    source: str
    destination: str
    switch: str
    address: str
    #: Whether somebody listens there, and no other fault is in the way.
    measurable: bool
    _connecting: socket.socket | None = None

    def begin(self, world: World, port: int) -> None:
        """Start to connect."""
        self._connecting = world.testbed.tcp_socket(self.source, (self.address, port))

    def answer(self, deadline: float) -> str:
        """What came of it by then."""
        if self._connecting is None:
            return _SILENT
        with self._connecting as connecting:
            return _outcome(connecting, deadline)


def _outcome(connecting: socket.socket, deadline: float) -> str:
    poller = select.poll()
    poller.register(connecting, select.POLLOUT)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        return _SILENT
    problem = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not problem:
        try:
            connecting.getpeername()
        except OSError:
            problem = errno.ECONNREFUSED
    return {0: _ACCEPTED, errno.ECONNREFUSED: _REFUSED}.get(problem, _SILENT)


def _listens(world: World, host: str, port: int) -> bool:
    """Whether somebody listens on a port of a host, asked from that host itself: no filter is on that way."""
    own = next(str(nic.address) for nic in world.topology.nics() if nic.host == host)
    for address in (own, "127.0.0.1"):
        with contextlib.closing(world.testbed.tcp_socket(host, (address, port))) as connecting:
            if _outcome(connecting, time.monotonic() + ANSWER_MS / 1000) == _ACCEPTED:
                return True
    return False


def _judged(mine: list[Path], others: list[Path]) -> Probe:
    answered = sum(p.micros is not None for p in mine)
    rest = f"; elsewhere {sum(p.micros is not None for p in others)} of {len(others)}" if others else ""
    summary = f"{answered} of {len(mine)} paths of it answer{rest}"
    # what it does not mean must go on answering: a filter that cuts too much is not the fault that was asked for
    whole = all(p.micros is not None for p in others)
    bites = None if answered == 0 and not whole else {0: True, len(mine): False}.get(answered)
    return Probe(bites, summary, tuple(path_measurement(p) for p in (*mine, *others)))

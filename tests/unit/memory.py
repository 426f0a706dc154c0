"""A testbed in memory, for what is pure logic: links and processes change as the kernel changes them, nothing runs.

Two things only this one can show: any order of thousands of faults in a second, and a kernel that does not obey.
"""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import TestbedError
from harness.history.folder import RunFolder, ServerFolder
from harness.history.records import Event
from harness.testbed.handles import Exit, Limits, Link, Pressure, Process
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import Arrivals, LinkState, NicState, Rule, Shape, Side, Split, Train
from harness.testbed.wire import Path as Reached
from harness.topology.model import Server, Topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import Preparation


@dataclass
class _Member:
    """A process: stopped or not, with a SIGTERM that waits for it to go on, or ended."""

    process: Process
    stopped: bool = False
    terminating: bool = False
    end: Exit | None = None


@dataclass
class MemoryTestbed:
    """Implements `harness.testbed.handles.Testbed`."""

    topology: Topology
    #: Links that do what they want: cut or restored, they stay as they are.
    disobedient: set[Link] = field(default_factory=set)
    #: Hosts whose processes take no signal.
    immortal: set[str] = field(default_factory=set)
    #: Hosts whose servers live and say nothing.
    silent: set[str] = field(default_factory=set)
    #: Whether servers are containers, whose NICs are there only while they run.
    containers: bool = False
    #: Every batch of changes, in order.
    batches: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)

    #: What the kernel refuses of what shapes are made of.
    refused: dict[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    splits: tuple[Split, ...] = ()
    #: Hosts' ends of cables that are set down.
    nics_down: set[Link] = field(default_factory=set)
    shapes: tuple[Shape, ...] = ()
    limits: dict[str, Limits] = field(default_factory=dict)

    kind = "memory"
    rootless = True

    def __post_init__(self) -> None:
        self._up = {Link(name): True for name in self.topology.switch_names}
        self._up |= {Link(nic.switch, nic.host): True for nic in self.topology.nics()}
        self._losses: dict[Link, int] = {}
        self._members: dict[int, _Member] = {}
        self._wants = 0
        self._peers = contextlib.ExitStack()

    # --- links -------------------------------------------------------------------------------------------

    @property
    def python(self) -> tuple[str, Mapping[str, str]]:
        return "python3", {}

    def set_links(self, links: Sequence[Link], *, up: bool, but: Sequence[Link] = ()) -> tuple[int, int]:
        """As the agent does it: a switch takes all its ports along, except those in `but`."""
        started = time.monotonic_ns()
        if links:
            self.batches.append((tuple(link.name for link in links), up))
        for link in links:
            if link not in self._up:
                raise TestbedError("there is no such link", where=link.name)
            for other in self._up:
                if other == link or (link.host is None and other.switch == link.switch and other not in but):
                    was = self._up[other]
                    self._up[other] = was if other in self.disobedient else up
                    self._losses[other] = self._losses.get(other, 0) + (was and not self._up[other])
        return started, time.monotonic_ns()

    def set_nics(self, links: Sequence[Link], *, up: bool) -> tuple[int, int]:
        """Set hosts' own ends of cables up or down."""
        (self.nics_down.difference_update if up else self.nics_down.update)(links)
        return time.monotonic_ns(), time.monotonic_ns()

    def set_splits(self, splits: Sequence[Split]) -> tuple[int, int]:
        self.splits = tuple(splits)
        return time.monotonic_ns(), time.monotonic_ns()

    def nic_states(self, switches: Sequence[str]) -> tuple[NicState, ...]:
        return tuple(
            NicState(
                nic.switch,
                nic.host,
                1,
                link not in self.nics_down,
                self._up[link] and link not in self.nics_down,
                self._losses.get(link, 0),
            )
            for nic in self.topology.nics()
            if nic.switch in switches
            for link in [Link(nic.switch, nic.host)]
        )

    def set_rules(self, rules: Sequence[Rule]) -> tuple[int, int]:
        self.rules = tuple(rules)
        return time.monotonic_ns(), time.monotonic_ns()

    def set_shapes(self, shapes: Sequence[Shape]) -> tuple[int, int]:
        self.shapes = tuple(shapes)
        return time.monotonic_ns(), time.monotonic_ns()

    def lacking(self) -> Mapping[str, str]:
        return self.refused

    def send_trains(
        self, trains: Sequence[Train], *, timeout_ms: float, linger_ms: float = 0.0, limit_ms: float = 30_000.0
    ) -> tuple[Arrivals, ...]:
        """What the shapes make of them, without chance: of a share, so many of every hundred."""
        del timeout_ms, linger_ms, limit_ms
        return tuple(self._arrivals(train) for train in trains)

    def _arrivals(self, train: Train) -> Arrivals:
        effects = [shape.effects for shape in self.shapes if self._shapes_path(shape, train)]
        delay = sum(e.delay_ms for e in effects) * 1000 + 20.0
        share = 1 - math.prod(1 - e.loss for e in effects)
        whole = self._passes(train.source, train.destination, train.switch)
        lost = {i for i in range(train.count) if not whole or int((i + 1) * share) > int(i * share)}
        sent = tuple(i * max(train.gap_us, 1.0) for i in range(train.count))
        micros = tuple(None if i in lost else delay for i in range(train.count))
        return Arrivals(sent, micros, 0, 0)

    def _shapes_path(self, shape: Shape, train: Train) -> bool:
        host, other = train.source, train.destination
        if shape.side is Side.IN:
            host, other = other, host
        peer = next(str(n.address) for n in self.topology.nics() if (n.host, n.switch) == (other, train.switch))
        return (shape.host, shape.switch) == (host, train.switch) and shape.peer in (None, peer)

    def link_states(self) -> tuple[LinkState, ...]:
        return tuple(LinkState(link.switch, link.host, up) for link, up in self._up.items())

    @property
    def down(self) -> frozenset[str]:
        """The names of everything that is down."""
        return frozenset(link.name for link, up in self._up.items() if not up)

    def reach(
        self, switches: Sequence[str], *, timeout_ms: int, count: int = 1, broadcast: bool = False
    ) -> tuple[Reached, ...]:
        del timeout_ms, count, broadcast
        nics = [nic for nic in self.topology.nics() if nic.switch in switches]
        return tuple(
            Reached(a.host, b.host, a.switch, *self._answer(a.host, b.host, a.switch))
            for a in nics
            for b in nics
            if a.switch == b.switch and a.host != b.host
        )

    def _answer(self, source: str, destination: str, switch: str) -> tuple[float | None, str]:
        servers = {server.host for server in self.topology.servers} if self.containers else set()
        if any(host in servers and not self.living(host) for host in (source, destination)):
            return None, HOST_DOWN
        if Link(switch, source) in self.nics_down:
            return None, "ENETUNREACH"
        return (100.0 if self._passes(source, destination, switch) else None), ""

    def _passes(self, source: str, destination: str, switch: str) -> bool:
        ends = (Link(switch, source), Link(switch, destination))
        return (
            all(self._up[link] for link in (Link(switch), *ends))
            and not self.nics_down.intersection(ends)
            and not any(split.parts(switch, source, destination) for split in self.splits)
        )

    def limit_refusals(self) -> Mapping[str, str]:
        return {}

    def limit(self, host: str, limits: Limits) -> None:
        self.limits[host] = limits

    def pressure(self, host: str) -> Pressure:
        """As if a limited server wanted more all the time."""
        limits, self._wants = self.limits.get(host, Limits()), self._wants + 1
        return Pressure(limits.cpu, limits.memory, self._wants, self._wants, 2**20, self._wants, 0)

    # --- processes ---------------------------------------------------------------------------------------

    def spawn(
        self, host: str, argv: Sequence[str], env: Mapping[str, str], output: Path, *, channel: bool = False
    ) -> Process:
        del argv, env, output, channel
        process = Process(len(self._members) + 1, host, time.monotonic_ns())
        self._members[process.pid] = _Member(process)
        return process

    def signal(self, process: Process, number: signal.Signals) -> None:
        member = self._members[process.pid]
        if member.end is not None or process.host in self.immortal:
            return
        if number is signal.SIGSTOP:
            member.stopped = True
        elif number is signal.SIGCONT:
            member.stopped = False
        elif number is signal.SIGTERM:
            member.terminating = True
        if number is signal.SIGKILL or (member.terminating and not member.stopped):
            member.end = Exit(-int(number), time.monotonic_ns())

    def state(self, process: Process) -> str:
        member = self._members[process.pid]
        return "X" if member.end else "T" if member.stopped else "S"

    def exited(self, process: Process) -> Exit | None:
        return self._members[process.pid].end

    def living(self, host: str) -> list[str]:
        """The states of a host's living processes."""
        return [self.state(m.process) for m in self._members.values() if m.process.host == host and not m.end]

    def tcp_socket(self, host: str, address: tuple[str, int]) -> socket.socket:
        """A conversation with the server on that host: already answered if it lives, else one that ends at once.

        The server with the lowest id that lives leads. A stopped one keeps the connection, and says nothing.
        """
        del address
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        states = self.living(host)
        if not states:
            theirs.close()
            return ours
        self._peers.callback(theirs.close)
        if states == ["S"] and host not in self.silent:
            first = min((s.id for s in self.topology.servers if self.living(s.host) == ["S"]), default=0)
            mode = "leader" if host == f"zk{first}" else "follower"
            theirs.sendall(f"Zxid: 0x1\nMode: {mode}\n".encode())
            theirs.shutdown(socket.SHUT_WR)
        return ours

    def close(self) -> None:
        self._peers.close()


@dataclass(frozen=True)
class _Plain:
    """Starts a server without any files."""

    testbed: MemoryTestbed
    preparations: Mapping[str, Preparation] = field(default_factory=dict)

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Nothing to prepare."""

    def start(self, server: Server, folder: ServerFolder) -> Process:
        """Start it."""
        return self.testbed.spawn(server.host, ["server"], {}, folder.logs / "jvm.log")


@contextlib.contextmanager
def memory_ensemble(
    topology: Topology, events: list[Event] | None = None, root: Path = Path("nowhere")
) -> Iterator[tuple[Ensemble, MemoryTestbed]]:
    """An ensemble in memory, all its servers started; its events are appended to `events`."""
    testbed = MemoryTestbed(topology)
    record = events.append if events is not None else lambda _event: None
    ensemble = Ensemble(testbed, topology, RunFolder(root), _Plain(testbed), record)
    for server in topology.servers:
        ensemble.start_server(server.id)
    with contextlib.closing(testbed):
        yield ensemble, testbed

"""What all testbeds share: everything that one agent does for them."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.client import AgentClient
from harness.testbed.handles import Exit, Link, Process
from harness.topology.model import ClientHost, Server

#: How long a measurement may take beyond what it is asked to, and how often it is asked for, seconds.
_TRAINS_TIMEOUT, _TRAINS_POLL = 20.0, 0.005


class AgentTestbed:
    """A testbed whose client hosts, links and probes are an agent's.

    Args:
        agent: the agent; it is closed with the testbed.
    """

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self._lacking: Mapping[str, str] | None = None

    @property
    def rootless(self) -> bool:
        """Whether a user namespace was needed."""
        return self._agent.rootless

    @property
    def python(self) -> tuple[str, Mapping[str, str]]:
        """The Python of its client hosts that has the harness: its path, and the environment that it needs."""
        return self._agent.python, self._agent.python_environment

    def spawn(
        self, host: str, argv: Sequence[str], env: Mapping[str, str], output: Path, *, channel: bool = False
    ) -> Process:
        """Start a process on a host; its output is appended to a file."""
        request = wire.Spawn(host, tuple(argv), dict(env), str(output), channel, self._entrances(host))
        reply, connection = self._agent.ask_for_socket(request, wire.Spawned)
        return Process(reply.pid, host, reply.at, connection)

    def _entrances(self, host: str) -> tuple[str, ...]:
        """As `wire.Spawn.entrances`."""
        del host
        return ()

    def signal(self, process: Process, number: signal.Signals) -> None:
        """Send a signal; no error if the process has ended."""
        self._agent.ask(wire.Signal(process.pid, int(number)), wire.Done)

    def _process(self, process: Process) -> wire.ProcessState:
        for state in self._agent.ask(wire.GetProcesses(), wire.Processes).processes:
            if state.pid == process.pid:
                return state
        raise TestbedError("the agent does not know this process", where=f"{process.host}, pid {process.pid}")

    def state(self, process: Process) -> str:
        """`R`, `S`, `T` (stopped), ... as in /proc/pid/stat, or `X` (ended)."""
        return self._process(process).state

    def exited(self, process: Process) -> Exit | None:
        """How it ended, or None while it lives."""
        state = self._process(process)
        if state.code is None or state.ended is None:
            return None
        return Exit(state.code, state.ended)

    def tcp_socket(self, host: str, address: tuple[str, int]) -> socket.socket:
        """A TCP socket that stands on a host and may be used from here; see `handles.Testbed`."""
        _reply, opened = self._agent.ask_for_socket(wire.OpenSocket(host, *address), wire.SocketOpened)
        if opened is None:
            raise TestbedError("the agent opened a socket but did not hand it over", where=host)
        return opened

    def set_links(self, links: Sequence[Link], *, up: bool, but: Sequence[Link] = ()) -> tuple[int, int]:
        """Cut or restore in one batch; returns the monotonic instants it began and ended.

        A switch takes all its ports along, except the cables in `but`, which stay as they are.
        """
        changes = tuple(
            wire.LinkChange(link.switch, link.host, up, but=tuple(c.host for c in but if c.host and _on(c, link)))
            for link in links
        )
        done = self._agent.ask(wire.SetLinks(changes), wire.Done)
        return done.started, done.ended

    def set_nics(self, links: Sequence[Link], *, up: bool) -> tuple[int, int]:
        """Set hosts' own ends of cables up or down in one batch; returns the monotonic instants it began and ended."""
        changes = tuple(wire.NicChange(link.host, link.switch, up) for link in links if link.host is not None)
        done = self._agent.ask(wire.SetNics(changes), wire.Done)
        return done.started, done.ended

    def set_splits(self, splits: Sequence[wire.Split]) -> tuple[int, int]:
        """Let switches be in these islands, and no others; returns the monotonic instants it began and ended."""
        done = self._agent.ask(wire.SetSplits(tuple(splits)), wire.Done)
        return done.started, done.ended

    def set_rules(self, rules: Sequence[wire.Rule]) -> tuple[int, int]:
        """Let these packet filters hold, and no others; returns the monotonic instants it began and ended."""
        done = self._agent.ask(wire.SetRules(tuple(rules)), wire.Done)
        return done.started, done.ended

    def set_shapes(self, shapes: Sequence[wire.Shape]) -> tuple[int, int]:
        """Let these shapes hold, and no others; returns the monotonic instants it began and ended."""
        done = self._agent.ask(wire.SetShapes(tuple(shapes)), wire.Done)
        return done.started, done.ended

    def lacking(self) -> Mapping[str, str]:
        """What the kernel refuses of what shapes are made of, and its words for it."""
        if self._lacking is None:
            self._lacking = self._agent.ask(wire.GetLacking(), wire.Lacking).refusals
        return self._lacking

    def send_trains(
        self, trains: Sequence[wire.Train], *, timeout_ms: float, linger_ms: float = 0.0, limit_ms: float = 30_000.0
    ) -> tuple[wire.Arrivals, ...]:
        """Send datagrams and see what becomes of them; the agent does other things meanwhile."""
        self._agent.ask(wire.StartTrains(tuple(trains), timeout_ms, linger_ms, limit_ms), wire.Done)
        deadline = time.monotonic() + (limit_ms + timeout_ms + linger_ms) / 1000 + _TRAINS_TIMEOUT
        while (arrivals := self._agent.ask(wire.GetTrains(), wire.Trains).arrivals) is None:
            if time.monotonic() > deadline:
                raise TestbedError("the datagrams of a measurement took too long to be sent")
            time.sleep(_TRAINS_POLL)
        return arrivals

    def link_states(self) -> tuple[wire.LinkState, ...]:
        """Every switch and cable as the kernel has it."""
        return self._agent.ask(wire.GetLinks(), wire.Links).links

    def nic_states(self, switches: Sequence[str]) -> tuple[wire.NicState, ...]:
        """Every NIC on these switches as its host's kernel has it."""
        return self._agent.ask(wire.GetNics(tuple(switches)), wire.Nics).nics

    def reach(
        self, switches: Sequence[str], *, timeout_ms: int, count: int = 1, broadcast: bool = False
    ) -> tuple[wire.Path, ...]:
        """Which host reaches which over each of these switches, measured with real packets; see `handles.Testbed`."""
        return self._agent.ask(wire.Reach(tuple(switches), timeout_ms, count, broadcast), wire.Paths).paths

    def close(self) -> None:
        """End every process and remove every interface. Idempotent."""
        self._agent.close()


def host_spec(host: Server | ClientHost, *, container: bool = False) -> wire.HostSpec:
    """A host of a topology, as the agent is told of it."""
    nics = tuple(wire.NicSpec(n.switch, str(n.address), n.prefix_length) for n in host.nics)
    return wire.HostSpec(host.host, nics, container)


def _on(cable: Link, link: Link) -> bool:
    """Whether a cable hangs on the switch that this link is."""
    return link.host is None and cable.switch == link.switch

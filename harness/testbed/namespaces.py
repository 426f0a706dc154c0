"""The embedded testbed: Linux network namespaces, bridges and veth pairs. No Docker, no root, nothing to clean up."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.client import AgentClient
from harness.testbed.handles import Exit, Link, Process
from harness.topology.model import Topology


class NamespacesTestbed:
    """A topology as namespaces of one agent process.

    Args:
        topology: what to build.
        agent: an agent that was started ahead of time (its start takes 0.3 s); None starts one.

    Raises:
        NamespacesForbidden: the machine refuses the namespaces.
    """

    kind = "namespaces"

    def __init__(self, topology: Topology, agent: AgentClient | None = None) -> None:
        self._agent = agent or AgentClient()
        hosts = tuple(
            wire.HostSpec(h.host, tuple(wire.NicSpec(n.switch, str(n.address), n.prefix_length) for n in h.nics))
            for h in topology.hosts
        )
        try:
            self._agent.ask(wire.Build(topology.switch_names, hosts), wire.Done)
        except BaseException:
            self._agent.close()
            raise

    @property
    def rootless(self) -> bool:
        """Whether a user namespace was needed."""
        return self._agent.rootless

    def spawn(
        self, host: str, argv: Sequence[str], env: Mapping[str, str], output: Path, *, channel: bool = False
    ) -> Process:
        """Start a process on a host; its output is appended to a file."""
        request = wire.Spawn(host, tuple(argv), dict(env), str(output), channel)
        reply, connection = self._agent.ask_for_socket(request, wire.Spawned)
        return Process(reply.pid, host, reply.at, connection)

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

    def tcp_socket(self, host: str) -> socket.socket:
        """A TCP socket that stands on a host and may be used from here."""
        _reply, opened = self._agent.ask_for_socket(wire.OpenSocket(host), wire.SocketOpened)
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

    def link_states(self) -> tuple[wire.LinkState, ...]:
        """Every switch and cable as the kernel has it."""
        return self._agent.ask(wire.GetLinks(), wire.Links).links

    def reach(self, switches: Sequence[str], *, timeout_ms: int) -> tuple[wire.Path, ...]:
        """Which host reaches which over each of these switches, measured with real packets."""
        return self._agent.ask(wire.Reach(tuple(switches), timeout_ms), wire.Paths).paths

    def close(self) -> None:
        """End every process and remove every interface. Idempotent."""
        self._agent.close()


def _on(cable: Link, link: Link) -> bool:
    """Whether a cable hangs on the switch that this link is."""
    return link.host is None and cable.switch == link.switch

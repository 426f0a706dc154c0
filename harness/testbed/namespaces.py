"""The embedded testbed: Linux network namespaces, bridges and veth pairs. No Docker, no root, nothing to clean up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.agent_testbed import AgentTestbed, host_spec
from harness.testbed.cgroups import Groups
from harness.testbed.client import AgentClient
from harness.testbed.group_places import find_places
from harness.testbed.handles import Limits, Pressure, Process
from harness.topology.model import Topology


class NamespacesTestbed(AgentTestbed):
    """A topology as namespaces of one agent process.

    Args:
        topology: what to build.
        agent: an agent that was started ahead of time (its start takes 0.3 s); None starts one.

    Raises:
        NamespacesForbidden: the machine refuses the namespaces.
    """

    kind = "namespaces"

    def __init__(self, topology: Topology, agent: AgentClient | None = None) -> None:
        super().__init__(agent or AgentClient())
        self._places = find_places()
        self._groups = Groups(self._places)
        #: The process of each server's host that was started last, and the hosts where it began in its groups.
        self._last: dict[str, Process] = {}
        self._enclosed: set[str] = set()
        try:
            self._agent.ask(wire.Build(topology.switch_names, tuple(map(host_spec, topology.hosts))), wire.Done)
        except BaseException:
            self._agent.close()
            raise

    def spawn(
        self, host: str, argv: Sequence[str], env: Mapping[str, str], output: Path, *, channel: bool = False
    ) -> Process:
        """Start a process on a host; its output is appended to a file."""
        process = self._last[host] = super().spawn(host, argv, env, output, channel=channel)
        if self._groups.has(host):
            self._enclosed.add(host)
        return process

    def _entrances(self, host: str) -> tuple[str, ...]:
        return self._groups.entrances(host)

    def enclose(self, host: str) -> None:
        """Have the next process of a host begin in control groups: what memory it has is counted from its start.

        Nothing, where no groups can be made.
        """
        if self._places.found:
            self._groups.make(host)

    def limit_refusals(self) -> Mapping[str, str]:
        """Which of `cpu` and `memory` the kernel does not limit for us, and why."""
        return self._places.refusals

    def limit(self, host: str, limits: Limits) -> None:
        """Let a server's processes have so much of the machine, and no more; those that are started later, too.

        Raises:
            TestbedError: the kernel refused; or memory is to be limited, and what it has was not counted from its
                start.
        """
        if host not in self._enclosed:
            if limits.memory is not None:
                raise TestbedError(
                    "its memory cannot be limited: the kernel counts what a process has from its start on",
                    where=host,
                    cause="it was started without control groups",
                    next_step='a plan with such a fault sees to it; for a test: @pytest.mark.prepared("limits")',
                )
            self._groups.make(host)
            if host in self._last:
                request = wire.Enclose(self._last[host].pid, self._groups.entrances(host))
                self._agent.ask(request, wire.Done)
        self._groups.limit(host, limits)

    def pressure(self, host: str) -> Pressure:
        """What the kernel has counted of a server's processes. Nothing, before they were ever limited."""
        return self._groups.pressure(host) if self._groups.has(host) else Pressure()

    def close(self) -> None:
        """End every process and remove every interface and control group. Idempotent."""
        super().close()
        self._groups.close()

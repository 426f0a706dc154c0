"""The embedded testbed: Linux network namespaces, bridges and veth pairs. No Docker, no root, nothing to clean up."""

from __future__ import annotations

from harness.testbed import wire
from harness.testbed.agent_testbed import AgentTestbed, host_spec
from harness.testbed.client import AgentClient
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
        try:
            self._agent.ask(wire.Build(topology.switch_names, tuple(map(host_spec, topology.hosts))), wire.Done)
        except BaseException:
            self._agent.close()
            raise

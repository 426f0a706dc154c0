"""Servers that somebody else started, as an ensemble of ours: adopted, started again, and left running."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import TestbedError
from harness.history.folder import ServerFolder
from harness.testbed import wire
from harness.testbed.agent_testbed import host_spec
from harness.testbed.client import AgentClient
from harness.testbed.container_hosts import ContainerHosts, client_tag
from harness.testbed.handles import Process
from harness.testbed.refusals import refusals
from harness.topology.model import Server, Topology
from harness.zookeeper.found import FoundEnsemble, revive
from harness.zookeeper.launch import Preparation


class ForeignTestbed(ContainerHosts):
    """A testbed around containers that somebody else started. Closing it leaves them as they are.

    Args:
        found: the ensemble.
        topology: as it is known to who asks; it has the servers' addresses of `found`.
        agent: an agent that can reach the engine's network namespace; it is closed with the testbed.
        run_id: see `engine.new_run_id`.
        engine_pid: as `wire.EngineSpec.pid`.
        kind: `docker`, or `docker-helper` where the agent is in a helper container.

    Raises:
        TestbedError: the agent cannot reach the bridges, or the ensemble is another by now.
    """

    def __init__(
        self,
        found: FoundEnsemble,
        topology: Topology,
        agent: AgentClient,
        *,
        run_id: str,
        engine_pid: int | None,
        kind: str,
    ) -> None:
        super().__init__(topology, agent, kind=kind)
        self._found = found
        self.containers = {f"zk{i}": server.container for i, server in found.servers.items()}
        #: What was ended or stopped here and does not run again yet.
        self._disturbed: set[str] = set()
        #: By host, the addresses that its container has now, where they are others than the topology's.
        self.moved: dict[str, list[str]] = {}
        hosts = tuple(host_spec(h, container=isinstance(h, Server)) for h in topology.hosts)
        engine = wire.EngineSpec(dict(found.bridges), engine_pid, client_tag(run_id))
        agent.advice = f"`zkchaos attach {found.name} --heal` mends what it had broken"
        try:
            if found.topology != topology:
                raise TestbedError(
                    "the ensemble has changed since it was looked at", where=found.name, next_step="try again"
                )
            agent.ask(wire.Build(topology.switch_names, hosts, engine), wire.Done)
        except BaseException:
            agent.close()
            raise

    def start_host(self, host: str) -> Process:
        """As its base's; notes where the engine gave a container another address than it had."""
        process = super().start_host(host)
        self._disturbed.discard(host)
        networks = self.containers[host].attrs["NetworkSettings"]["Networks"].values()
        addresses = sorted(str(network["IPAddress"]) for network in networks)
        if not {str(nic.address) for nic in self.servers[host].nics} <= set(addresses):
            self.moved[host] = addresses
        else:
            self.moved.pop(host, None)
        return process

    def signal(self, process: Process, number: signal.Signals) -> None:
        """As its base's."""
        if process.host in self.containers:
            self._disturbed.add(process.host)
        super().signal(process, number)
        if number is signal.SIGCONT:
            self._disturbed.discard(process.host)

    def leave_running(self) -> None:
        """Have every server run again that was ended or stopped here, whatever kept others from it. Idempotent.

        Raises:
            TestbedError: the engine refused.
        """
        for host in sorted(self._disturbed):
            with refusals(host):
                revive(self.containers[host])
            self._disturbed.discard(host)

    def explain_moves(self) -> str:
        """What to say where the engine gave containers other addresses; empty where it did not."""
        if not self.moved:
            return ""
        who = "; ".join(f"{host} has {', '.join(addresses)} now" for host, addresses in sorted(self.moved.items()))
        return f"containers came back with other addresses: {who}"


@dataclass(frozen=True)
class ForeignStarter:
    """Takes servers that run, and starts again what the nemesis ended."""

    testbed: ForeignTestbed

    @property
    def preparations(self) -> Mapping[str, Preparation]:
        """Nothing: they were started by somebody else."""
        return {}

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Make the folders for what will be fetched."""
        del server
        folder.create()

    def start(self, server: Server, folder: ServerFolder) -> Process:
        """Take it, and start its container if that does not run."""
        del folder
        return self.testbed.start_host(server.host)

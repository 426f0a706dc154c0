"""The Docker testbed: servers are containers, switches the engine's bridges, client hosts namespaces beside them.

A host that is a container is there while its container runs: its death takes its NICs, and a new start brings them back
with the same addresses, and with the cables cut that are cut. Everything carries the run's labels, and a reaper removes
it if this process dies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.errors import DockerException
from docker.models.containers import Container

from harness.testbed import wire
from harness.testbed.agent_testbed import host_spec
from harness.testbed.client import AgentClient
from harness.testbed.container_hosts import ContainerHosts, client_tag
from harness.testbed.container_limits import lacking
from harness.testbed.engine import LABEL_HOST, LABEL_SWITCH, LABEL_TOPOLOGY, run_labels
from harness.testbed.handles import Exit, Process
from harness.testbed.leftovers import remove_run
from harness.testbed.refusals import refusals
from harness.testbed.subnets import make_bridge
from harness.topology.model import Server, Switch, Topology

#: Most lines of a container's own words that are kept.
_LINES = 20_000


@dataclass(frozen=True)
class ContainerSpec:
    """What a server's container is made of."""

    image: str
    environment: Mapping[str, str]
    #: Host folder to container folder, read and write.
    mounts: Mapping[Path, Path]
    #: `uid:gid`.
    user: str
    #: Folders in memory, for what a read-only file system must still allow.
    in_memory: Sequence[str] = ("/tmp",)
    #: Instead of the image's own.
    command: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    #: The file that what it says is written to when it has ended; None if nobody wants to know.
    output: Path | None = None


class ContainersTestbed(ContainerHosts):
    """A topology on a Docker engine.

    Args:
        topology: what to build.
        client: the engine.
        agent: an agent that can reach the engine's network namespace; it is closed with the testbed.
        run_id: see `engine.new_run_id`; the reaper of that run must have been started.
        engine_pid: as `wire.EngineSpec.pid`.
        kind: `docker`, or `docker-helper` where the agent is in a helper container.

    Raises:
        TestbedError: the engine refused, such as a subnet that is taken.
    """

    def __init__(
        self,
        topology: Topology,
        client: docker.DockerClient,
        agent: AgentClient,
        *,
        run_id: str,
        engine_pid: int | None,
        kind: str = "docker",
    ) -> None:
        super().__init__(topology, agent, kind=kind)
        self._topology, self._client, self._run_id = topology, client, run_id
        self._labels = {**run_labels(run_id), LABEL_TOPOLOGY: topology.name}
        self._closed = False
        #: Where each host's container has its words kept, and those of which nobody has done so yet.
        self._outputs: dict[str, Path] = {}
        self._unheard: dict[str, Process] = {}
        try:
            bridges = self._make_networks(topology.switches)
            hosts = tuple(host_spec(h, container=isinstance(h, Server)) for h in topology.hosts)
            engine = wire.EngineSpec(bridges, engine_pid, client_tag(run_id))
            agent.ask(wire.Build(topology.switch_names, hosts, engine), wire.Done)
        except BaseException:
            self.close()
            raise

    def _make_networks(self, switches: Sequence[Switch]) -> dict[str, str]:
        """One bridge network for each switch; returns the bridges' interface names by switch."""
        with ThreadPoolExecutor(len(switches)) as pool:
            return dict(zip((s.name for s in switches), pool.map(self._make_network, switches), strict=True))

    def _make_network(self, switch: Switch) -> str:
        labels = {**self._labels, LABEL_SWITCH: switch.name}
        # internal, so that there is no way out: no packet of a run leaves its network
        network = make_bridge(
            self._client, self._topology, switch, name=self._network_name(switch.name), labels=labels, internal=True
        )
        return f"br-{str(network.id)[:12]}"

    def _network_name(self, switch: str) -> str:
        return f"zkchaos-{self._run_id}-{switch}"

    def start_container(self, host: str, spec: ContainerSpec) -> Process:
        """Start the container of a server's host, and make it first if there is none yet.

        Raises:
            TestbedError: the engine refused.
        """
        if host not in self.containers:
            with refusals(host):
                self.containers[host] = self._make_container(self.servers[host], spec)
        if spec.output is not None:
            self._outputs[host] = spec.output
        process = self._unheard[host] = self.start_host(host)
        return process

    def exited(self, process: Process) -> Exit | None:
        """How it ended, or None while it lives."""
        end = super().exited(process)
        if end is not None and self._unheard.get(process.host) is process:
            self._keep_output(process.host)
        return end

    def limit_refusals(self) -> Mapping[str, str]:
        """Which of `cpu` and `memory` the engine's kernel does not limit for us, and why."""
        return lacking(self._client)

    def _keep_output(self, host: str) -> None:
        """Write down what a container has said, as far as it can be had: the engine may keep no logs."""
        self._unheard.pop(host, None)
        output = self._outputs.get(host)
        if output is not None:
            with contextlib.suppress(DockerException, OSError):
                output.write_bytes(self.containers[host].logs(tail=_LINES))

    def _make_container(self, server: Server, spec: ContainerSpec) -> Container:
        endpoints = {
            self._network_name(nic.switch): self._client.api.create_endpoint_config(
                ipv4_address=str(nic.address), aliases=[server.host]
            )
            for nic in server.nics
        }
        first = next(iter(endpoints))
        container = self._client.containers.create(
            spec.image,
            list(spec.command) or None,
            name=f"zkchaos-{self._run_id}-{server.host}",
            hostname=server.host,
            user=spec.user,
            environment=dict(spec.environment),
            labels={**self._labels, LABEL_HOST: server.host, **spec.labels},
            volumes=[f"{ours}:{theirs}:rw" for ours, theirs in spec.mounts.items()],
            tmpfs=dict.fromkeys(spec.in_memory, "mode=1777,size=64m"),
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network=first,
            networking_config={first: endpoints[first]},
        )
        for nic in server.nics[1:]:
            network = self._client.networks.get(self._network_name(nic.switch))
            network.connect(container, ipv4_address=str(nic.address), aliases=[server.host])
        return container

    def close(self) -> None:
        """Remove containers, networks and client hosts. Idempotent."""
        if not self._closed:
            self._closed = True
            for host in list(self._unheard):
                self._keep_output(host)
            try:
                super().close()
            finally:
                remove_run(self._client, self._run_id)

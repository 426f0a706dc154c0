"""ZooKeeper for other people's tests, in the style of testcontainers.

::

    with ZooKeeperContainer() as zookeeper:                 # one server
        client = KazooClient(hosts=zookeeper.connection_string())

    with ZooKeeperEnsembleContainer("dual-net") as zk:      # a whole topology, with its networks
        client = KazooClient(hosts=zk.connection_string())
        zk.kill(zk.leader())

Needs the extra `docker` and a Docker engine. No fault beyond the death of a server is offered here: a test that breaks
the network, or wants a verdict on ZooKeeper's promises, uses the pytest plugin.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from docker.errors import APIError
from docker.models.containers import Container
from testcontainers.core.labels import create_labels

from harness.containers_ready import ServingWaitStrategy, all_serve, wait_until
from harness.containers_reaping import Watch
from harness.containers_server import ZooKeeperContainer, server_image
from harness.errors import UsageError
from harness.testbed.engine import (
    LABEL_HOST,
    LABEL_SWITCH,
    LABEL_TOPOLOGY,
    connect_engine,
    new_run_id,
    run_labels,
)
from harness.testbed.leftovers import remove_run
from harness.testbed.refusals import refusals, said
from harness.testbed.subnets import make_bridge
from harness.topology.loader import load_topology, with_overrides
from harness.topology.model import CLIENT_PORT, Server, Topology
from harness.topology.proxies import refuse_proxies
from harness.zookeeper.admin import ServerStatus
from harness.zookeeper.config import DEFAULTS, dynamic_config, system_properties

__all__ = ["ServingWaitStrategy", "ZooKeeperContainer", "ZooKeeperEnsembleContainer"]

#: Published ports are chosen here, so that a server has the same one after its death: the engine would choose anew at
#: each start. Systems take their own choice (of outgoing connections, say) from 32768 upwards.
_PORTS = range(20_000, 30_000)
_PORT_ATTEMPTS = 8


class ZooKeeperEnsembleContainer:
    """All servers of a topology in containers, with a bridge network for each switch and fixed addresses.

    `start` returns when every server serves. Because the addresses are fixed, one ensemble of a topology can be on an
    engine at a time. Leaving the `with` block removes everything, and so does the death of the process.

    Args:
        topology: a topology's name in the library, the path of a file, or one that is made already.
        image: of every server; None: that of its version, the official one or the one that `zkchaos image` made.
        version: instead of the topology's, as `3.9` or `3.8.6`.
        within: seconds that the start of the servers may take.

    Raises:
        UsageError: no such topology, one with proxies, or not a version.
    """

    def __init__(
        self,
        topology: str | Topology = "dual-net",
        *,
        image: str | None = None,
        version: str | None = None,
        within: float = 60.0,
    ) -> None:
        declared = load_topology(topology) if isinstance(topology, str) else topology
        self.topology = with_overrides(declared, version=version)
        refuse_proxies(self.topology, "an ensemble of containers")
        self._image, self._within = image, within
        self._run_id = ""
        self._servers: dict[int, ZooKeeperContainer] = {}
        self._networks: dict[str, str] = {}
        self._cleaning = contextlib.ExitStack()

    # --- beginning and end -----------------------------------------------------------------------------------

    def start(self, server: int | None = None) -> Self:
        """Start the ensemble, or one server that was killed; returns when they serve, or when it does.

        Raises:
            EngineUnavailable: there is no engine, or no image.
            TestbedError: the engine refused; a subnet that is taken is named with who has it.
            EnsembleError: a server ended by itself, or did not serve in time.
        """
        if server is not None:
            container = self._server(server)
            container.start()
            wait_until({_name(server): container}, all_serve, within=self._within)
        elif not self._servers:
            try:
                self._bring_up()
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Remove containers and networks. Idempotent.

        Raises:
            TestbedError: the engine still has something; the rest is gone.
        """
        self._servers, self._networks = {}, {}
        self._cleaning.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _bring_up(self) -> None:
        client = connect_engine()
        self._cleaning.callback(client.close)
        with refusals("image"):
            version = self.topology.zookeeper.version
            images = {s.id: server_image(client, self._image, s.version or version) for s in self.topology.servers}
        self._run_id = new_run_id()
        watch = Watch(self._run_id)
        self._cleaning.callback(watch.close)
        self._cleaning.callback(remove_run, client, self._run_id)
        labels = {**run_labels(self._run_id), LABEL_TOPOLOGY: self.topology.name}
        names = {switch.name: f"zkchaos-{self._run_id}-{switch.name}" for switch in self.topology.switches}
        for server, port in zip(self.topology.servers, self._ports(), strict=True):
            member = _Member(self.topology, server, images[server.id], names, port)
            self._cleaning.callback(member.get_docker_client().client.close)
            member.with_name(f"zkchaos-{self._run_id}-{server.host}").with_labels(**labels)
            self._servers[server.id] = member
        for switch in self.topology.switches:
            theirs = create_labels("", {**labels, LABEL_SWITCH: switch.name})
            make_bridge(client, self.topology, switch, name=names[switch.name], labels=theirs, internal=False)
        self._networks = names
        with ThreadPoolExecutor(len(self._servers), "zkchaos-start") as pool:
            list(pool.map(_Member.start, self._servers.values()))
        wait_until(self._named(), all_serve, within=self._within)

    def _ports(self) -> list[int]:
        return random.sample(_PORTS, len(self.topology.servers))

    # --- what it is ------------------------------------------------------------------------------------------

    @property
    def servers(self) -> Mapping[int, ZooKeeperContainer]:
        """The containers, by server id; none before `start`."""
        return dict(self._servers)

    @property
    def networks(self) -> Mapping[str, str]:
        """What the engine calls each switch's network, for containers of your own that shall stand on it."""
        return dict(self._networks)

    def connection_string(self) -> str:
        """What a client on the engine's machine gives to its library; ports stay the same when a server is killed."""
        return ",".join(container.connection_string() for container in self._servers.values())

    def addresses(self) -> tuple[str, ...]:
        """`address:port` of every server on every network, as a container on the same networks reaches them."""
        return self.topology.client_addresses()

    def direct_connection_string(self) -> str:
        """What a client in a container on the same networks gives to its library."""
        return self.topology.connection_string()

    # --- what happens to it ----------------------------------------------------------------------------------

    def status(self) -> dict[int, ServerStatus]:
        """What every server says of itself, all asked at the same time; one that was killed is `down`."""
        with ThreadPoolExecutor(len(self.topology.servers), "zkchaos-ask") as pool:
            found = pool.map(ZooKeeperContainer.server_status, self._servers.values())
            return dict(zip(self._servers, found, strict=True))

    def leader(self, *, within: float = 30.0) -> int:
        """The id of the server that leads a quorum; waits for the end of an election.

        Raises:
            EnsembleError: there is none within so many seconds.
        """
        status = wait_until(self._named(), self._is_quorum, within=within, may_have_ended=True)
        return next(s.id for s in self.topology.servers if status[_name(s.id)].role == "leader")

    def kill(self, server: int) -> None:
        """End a server by SIGKILL, as a power cut does; its data stays. Returns when it is gone."""
        self._server(server).kill()

    def _is_quorum(self, status: Mapping[str, ServerStatus]) -> bool:
        """One server leads, and a majority of the participants serves."""
        voters = [status[_name(s.id)] for s in self.topology.participants]
        return sum(v.serving for v in voters) >= self.topology.quorum_size and any(v.role == "leader" for v in voters)

    def _named(self) -> dict[str, ZooKeeperContainer]:
        if not self._servers:
            raise UsageError("the ensemble was not started", next_step="use it in a `with` block, or call start()")
        return {_name(server): container for server, container in self._servers.items()}

    def _server(self, server: int) -> ZooKeeperContainer:
        self._named()
        if server not in self._servers:
            allowed = ", ".join(map(str, self._servers))
            raise UsageError(f"there is no server {server!r}", next_step=f"allowed: {allowed}")
        return self._servers[server]


def _name(server: int) -> str:
    return f"server {server}"


class _Member(ZooKeeperContainer):
    """One server of an ensemble."""

    def __init__(self, topology: Topology, server: Server, image: str, networks: Mapping[str, str], port: int) -> None:
        super().__init__(image)
        self.image = image  # as it is called on this engine, without a registry's prefix
        self._plugs = {networks[nic.switch]: str(nic.address) for nic in server.nics}
        self._host, self._published = server.host, port
        self.with_labels(**{LABEL_HOST: server.host})
        self.with_env("ZOO_MY_ID", str(server.id))
        self.with_env("ZOO_SERVERS", " ".join(dynamic_config(topology).split()))
        for key, value in {**DEFAULTS, **topology.zookeeper.settings}.items():
            self.with_setting(key, value)
        self.with_jvm_flags(*system_properties(topology), *topology.zookeeper.jvm)

    def start(self) -> Self:
        """Start it, for the first time or again, without waiting.

        testcontainers' own way knows one network, and no fixed address.
        """
        with refusals(self._host):
            if self._container is not None:
                self._container.start()
                return self
            for left in reversed(range(_PORT_ATTEMPTS)):
                self.with_bind_ports(CLIENT_PORT, self._published)
                self._configure()
                container = self._create()
                try:
                    container.start()
                    break
                except APIError as problem:
                    if not left or "already" not in said(problem):
                        raise
                container.remove(force=True, v=True)
                self._published = random.choice(_PORTS)
            self._container = container
        return self

    def connection_string(self) -> str:
        """As its base's, but also while the server is dead."""
        if not self.get_docker_client().get_connection_mode().use_mapped_port:
            return super().connection_string()
        return f"{self.client_host()}:{self._published}"

    def _create(self) -> Container:
        client = self.get_docker_client().client
        endpoints = {
            name: client.api.create_endpoint_config(ipv4_address=address, aliases=[self._host])
            for name, address in self._plugs.items()
        }
        first, *others = self._plugs
        container: Container = client.containers.create(
            self.image,
            name=self._name,
            hostname=self._host,
            environment=self.env,
            ports=self.ports,
            network=first,
            networking_config={first: endpoints[first]},
            **{**self._kwargs, "labels": create_labels(self.image, self._kwargs["labels"])},
        )
        for name in others:
            network = client.networks.get(name)
            network.connect(container, ipv4_address=self._plugs[name], aliases=[self._host])
        return container

"""Proxies: on the way of which TCP streams they stand, and where they listen.

Each host that connects to servers has proxies of its own, one for each server's port, on its own loopback: at the
address 127.77.S.N for server N on the S-th switch. So the same address leads through another proxy on each host, all
servers have the same configuration, a stream has one proxy alone, and what is on the wire goes from the one host to the
other, as it does without proxies: faults of links, packets and partitions mean the same as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import TopologyError
from harness.topology.model import CLIENT_PORT, Nic, Server, Topology


class Service(StrEnum):
    """What a stream is for."""

    CLIENT = "client"
    QUORUM = "quorum"
    ELECTION = "election"


@dataclass(frozen=True)
class Proxy:
    """A proxy on the host that connects."""

    source: str
    destination: str
    switch: str
    service: Service
    #: Where it listens, on the loopback of `source`.
    listen: tuple[str, int]
    #: The server's own address and port.
    upstream: tuple[str, int]

    @property
    def name(self) -> str:
        """`c1.zk2.net1.client`: no other has it, and it needs no quoting in a URL."""
        return f"{self.source}.{self.destination}.{self.switch}.{self.service}"

    @property
    def text(self) -> str:
        """For people: `c1 > zk2 over net1`, `zk1 > zk2 over net1, election`."""
        port = "" if self.service is Service.CLIENT else f", {self.service}"
        return f"{self.source} > {self.destination} over {self.switch}{port}"


def proxies_of(topology: Topology) -> tuple[Proxy, ...]:
    """Every proxy of a topology; none where it declares none."""
    return (*_of_clients(topology), *_of_servers(topology))


def refuse_proxies(topology: Topology, where: str) -> None:
    """Refuse a topology with proxies where nobody would make them.

    Raises:
        TopologyError: it has some.
    """
    if proxies_of(topology):
        raise TopologyError(
            f"{where} has no proxies, and topology {topology.name} declares some",
            where=f"{topology.name}:proxies",
            next_step="take a topology without [proxies], or perform it with `zkchaos run` or pytest",
        )


def _of_clients(topology: Topology) -> Iterator[Proxy]:
    if not topology.proxies.clients:
        return
    for host in topology.client_hosts:
        plugged = {nic.switch for nic in host.nics}
        for server in topology.servers:
            for nic in server.nics:
                if nic.switch in plugged:
                    yield _proxy(topology, host.name, server, nic, Service.CLIENT)


def _of_servers(topology: Topology) -> Iterator[Proxy]:
    if not topology.proxies.servers:
        return
    for source in topology.servers:
        for server in topology.servers:
            if server.id != source.id:
                # with one address each, it is the first
                yield _proxy(topology, source.host, server, server.nics[0], Service.QUORUM)
                yield _proxy(topology, source.host, server, server.nics[0], Service.ELECTION)


def _proxy(topology: Topology, source: str, server: Server, nic: Nic, service: Service) -> Proxy:
    port = {
        Service.CLIENT: CLIENT_PORT,
        Service.QUORUM: topology.quorum_port(server),
        Service.ELECTION: topology.election_port(server),
    }[service]
    listen = str(topology.proxy_address(server, nic))
    return Proxy(source, server.host, nic.switch, service, (listen, port), (str(nic.address), port))

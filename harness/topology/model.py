"""What the network looks like: switches, hosts with one NIC per switch, server roles.

A `Topology` is declared, immutable and already checked: whoever holds one may build it. Files are read and
refused in `loader.py`; addresses are given in `addresses.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

#: The ports of every server; each server has a host of its own, so they never collide.
CLIENT_PORT = 2181
QUORUM_PORT = 2888
ELECTION_PORT = 3888
#: Where servers reach each other through proxies, server N has this port + N for the quorum, and that one for the
#: election: it listens on all its addresses, and the proxies to the others stand on the same host.
PROXIED_QUORUM_PORT, PROXIED_ELECTION_PORT = 2900, 3900
_PROXIES = IPv4Address("127.77.0.0")


class Role(StrEnum):
    """A server's declared part in the quorum (not its current state, which is `leader` or `follower`)."""

    PARTICIPANT = "participant"
    OBSERVER = "observer"


@dataclass(frozen=True)
class Switch:
    """One layer-2 network. Two switches share nothing: the death of one is not seen on the other."""

    name: str
    subnet: IPv4Network


@dataclass(frozen=True)
class Nic:
    """One network interface of one host; it is named after the switch that it is plugged into."""

    host: str
    switch: str
    address: IPv4Address
    prefix_length: int

    @property
    def name(self) -> str:
        """`zk1:net1`, as faults and reports write it."""
        return f"{self.host}:{self.switch}"


@dataclass(frozen=True)
class Server:
    """A host that runs one ZooKeeper server."""

    id: int
    nics: tuple[Nic, ...]
    role: Role = Role.PARTICIPANT
    #: Overrides the topology's version for this server, else None.
    version: str | None = None

    @property
    def host(self) -> str:
        """`zk1` for server 1."""
        return f"zk{self.id}"


@dataclass(frozen=True)
class ClientHost:
    """A host that load runs on. It has NICs of its own, because a client on a switch sees what no client sees."""

    name: str
    nics: tuple[Nic, ...]

    @property
    def host(self) -> str:
        """The host's name; the same as `name`, so that servers and client hosts are alike."""
        return self.name


@dataclass(frozen=True)
class ProxyOptions:
    """Which TCP streams pass a proxy, where faults can reach them; see `harness.topology.proxies`."""

    #: Those from client hosts to servers.
    clients: bool = False
    #: Those from servers to servers.
    servers: bool = False


#: A value of zoo.cfg.
Setting = str | int | bool


@dataclass(frozen=True)
class ZooKeeperOptions:
    """What the servers are and how they are set up."""

    version: str
    #: Lines of zoo.cfg beyond those that the harness itself writes; tickTime, initLimit and syncLimit among them.
    settings: Mapping[str, Setting] = field(default_factory=dict)
    #: Whether every address of a server is in the configuration (ZOOKEEPER-3188); off is the control experiment.
    multi_address: bool = True
    #: Extra arguments of the JVM.
    jvm: tuple[str, ...] = ()

    @property
    def tick_ms(self) -> int:
        """TickTime in milliseconds."""
        return int(self.settings.get("tickTime", 500))


@dataclass(frozen=True)
class Topology:
    """A whole declared network with its servers and client hosts."""

    name: str
    title: str
    switches: tuple[Switch, ...]
    servers: tuple[Server, ...]
    client_hosts: tuple[ClientHost, ...]
    zookeeper: ZooKeeperOptions
    #: The text that it was read from, so that a run folder repeats it.
    source: str = ""
    proxies: ProxyOptions = field(default_factory=ProxyOptions)

    def switch(self, name: str) -> Switch:
        """The switch of that name; KeyError where there is none."""
        for switch in self.switches:
            if switch.name == name:
                return switch
        raise KeyError(name)

    @property
    def switch_names(self) -> tuple[str, ...]:
        """The switches' names, in the order of the file."""
        return tuple(s.name for s in self.switches)

    @property
    def hosts(self) -> tuple[Server | ClientHost, ...]:
        """Servers, then client hosts."""
        return (*self.servers, *self.client_hosts)

    def server(self, server_id: int) -> Server:
        """The server of that id; KeyError where there is none."""
        for server in self.servers:
            if server.id == server_id:
                return server
        raise KeyError(server_id)

    def nics(self) -> Iterator[Nic]:
        """Every NIC of every host."""
        for host in self.hosts:
            yield from host.nics

    @property
    def participants(self) -> tuple[Server, ...]:
        """The voting servers."""
        return tuple(s for s in self.servers if s.role is Role.PARTICIPANT)

    @property
    def quorum_size(self) -> int:
        """The least number of participants that is a majority."""
        return len(self.participants) // 2 + 1

    def client_addresses(self, *, host: ClientHost | None = None) -> tuple[str, ...]:
        """`address:port` of every server address, those first that `host` shares a switch with; others left out."""
        switches = {n.switch for n in host.nics} if host else set(self.switch_names)
        nics = [(s, n) for s in self.servers for n in s.nics if n.switch in switches]
        if self.proxies.clients:
            return tuple(f"{self.proxy_address(s, n)}:{CLIENT_PORT}" for s, n in nics)
        return tuple(f"{n.address}:{CLIENT_PORT}" for _s, n in nics)

    def proxy_address(self, server: Server, nic: Nic) -> IPv4Address:
        """Where a proxy on any other host listens for what is meant for a server's NIC: `127.77.SWITCH.SERVER`.

        All of 127.0.0.0/8 is a host's own, so each host has a proxy of its own at the same address.
        """
        return _PROXIES + ((self.switch_names.index(nic.switch) + 1) << 8) + server.id

    def quorum_port(self, server: Server) -> int:
        """The port on which a server that leads listens to its followers."""
        return PROXIED_QUORUM_PORT + server.id if self.proxies.servers else QUORUM_PORT

    def election_port(self, server: Server) -> int:
        """The port on which a server listens to the votes of others."""
        return PROXIED_ELECTION_PORT + server.id if self.proxies.servers else ELECTION_PORT

    def connection_string(self, *, host: ClientHost | None = None) -> str:
        """What a client on `host` gives to its library."""
        return ",".join(self.client_addresses(host=host))

    def port_at(self, host: str, port: int) -> int:
        """The port that a host has in place of one of those that servers have elsewhere."""
        for server in self.servers:
            if server.host == host:
                theirs = {QUORUM_PORT: self.quorum_port(server), ELECTION_PORT: self.election_port(server)}
                return theirs.get(port, port)
        return port

    def server_of(self, address: str) -> int | None:
        """The id of the server with that `address` (with or without a port), or None."""
        plain = address.rsplit(":", 1)[0]
        for server in self.servers:
            if any(plain in (str(n.address), str(self.proxy_address(server, n))) for n in server.nics):
                return server.id
        return None

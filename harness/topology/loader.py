"""Reads topology files, and refuses wrong ones with one line: file, key, the value found, what is allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from pydantic_core import PydanticCustomError

from harness.errors import TopologyError
from harness.topology.addresses import (
    SUBNET_FORM,
    client_nics,
    default_subnet,
    parse_address,
    parse_subnet,
    server_nics,
)
from harness.topology.library import library_names, locate, name_of
from harness.topology.model import ClientHost, ProxyOptions, Role, Server, Switch, Topology, ZooKeeperOptions
from harness.topology.schema import (
    VERSION_FORM,
    ClientHostTable,
    ServerTable,
    TopologyTable,
    check_version,
    release_line,
)
from harness.topology.survival import survives
from harness.topology.toml_document import (
    allowed_words,
    key_path,
    nearest,
    one_line,
    parse_document,
    read_text,
    value_text,
)

_KIND = "topologies"
#: ZooKeeper has had several addresses per server since this version (ZOOKEEPER-3188).
_FIRST_MULTI_ADDRESS = (3, 6)


def library_topologies() -> tuple[str, ...]:
    """The names of the topologies that come with the harness, sorted."""
    return library_names(_KIND)


def load_topology(name_or_path: str) -> Topology:
    """A topology of the library by its name, or one of your own by the path of its file.

    Raises:
        UsageError: no such name in the library.
        TopologyError: the file cannot be read, or what it says cannot be built.
    """
    path = locate(_KIND, name_or_path, "topology")
    return parse_topology(read_text(path, TopologyError), str(path))


def parse_topology(text: str, source_name: str) -> Topology:
    """The topology that a TOML text declares.

    Args:
        text: the whole file; kept in `Topology.source`.
        source_name: the file's name or path, for errors; its base name becomes the topology's name.

    Raises:
        TopologyError: the text is not TOML, or what it says cannot be built. Never another exception.
    """
    table = parse_document(text, source_name, TopologyTable, TopologyError)
    return _Builder(table, one_line(source_name)).build(text)


def with_overrides(topology: Topology, *, version: str | None = None, multi_address: bool | None = None) -> Topology:
    """The same topology with another version or another choice of multi-address; None leaves it as it is.

    A server that names a version of its own keeps it.

    Raises:
        TopologyError: not a version, or the result cannot form a quorum.
    """
    options = topology.zookeeper
    if version is not None:
        try:
            check_version(version)
        except PydanticCustomError:
            raise TopologyError(
                f"{value_text(version)} is not a version", where="--zookeeper", next_step=f"allowed: {VERSION_FORM}"
            ) from None
        options = dataclasses.replace(options, version=version)
    if multi_address is not None:
        options = dataclasses.replace(options, multi_address=multi_address)
    changed = dataclasses.replace(topology, zookeeper=options)
    _refuse_hopeless(changed, topology.name)
    return changed


class _Builder:
    """Turns the tables of one file into a `Topology`, checking what only the whole file can tell."""

    def __init__(self, table: TopologyTable, source_name: str) -> None:
        self._table = table
        self._source_name = source_name

    def build(self, source: str) -> Topology:
        table = self._table
        if "\n" in table.title:
            raise self._error(("title",), "the title has more than one line")
        switches = self._switches()
        servers = self._servers(switches)
        hosts = self._client_hosts(switches)
        self._refuse_same_names(switches, hosts)
        self._refuse_same_addresses(servers, hosts)
        options = table.zookeeper
        multi_address = options.multi_address
        if multi_address is None:
            multi_address = any(len(s.nics) > 1 for s in servers)
        topology = Topology(
            name=name_of(self._source_name),
            title=table.title,
            switches=switches,
            servers=servers,
            client_hosts=hosts,
            zookeeper=ZooKeeperOptions(
                version=options.version,
                settings=options.settings,
                multi_address=multi_address,
                jvm=tuple(options.jvm),
            ),
            source=source,
            proxies=ProxyOptions(clients=table.proxies.clients, servers=table.proxies.servers),
        )
        _refuse_hopeless(topology, self._source_name)
        return topology

    def _switches(self) -> tuple[Switch, ...]:
        switches: list[Switch] = []
        for index, table in enumerate(self._table.switch):
            key = ("switch", index, "subnet")
            try:
                subnet = default_subnet(index + 1) if table.subnet is None else parse_subnet(table.subnet)
            except ValueError as problem:
                raise self._error(
                    key, f"found {value_text(table.subnet)}: {problem}", f"allowed: {SUBNET_FORM}"
                ) from None
            for other in switches:
                if other.name == table.name:
                    raise self._error(("switch", index, "name"), f"two switches are called {value_text(table.name)}")
                if other.subnet.overlaps(subnet):
                    raise self._error(
                        key,
                        f"{subnet} overlaps {other.subnet} of switch {value_text(other.name)}",
                        "allowed: a network of its own for each switch",
                    )
            switches.append(Switch(table.name, subnet))
        return tuple(switches)

    def _servers(self, switches: Sequence[Switch]) -> tuple[Server, ...]:
        tables = self._table.server
        if tables is None:
            if self._table.servers is None:
                raise self._error(
                    ("server",), "there is no server", "write a [[server]] for each, or servers = 3 for three alike"
                )
            names = [s.name for s in switches]
            tables = [ServerTable(id=number + 1, switches=names) for number in range(self._table.servers)]
        elif self._table.servers is not None:
            raise self._error(("servers",), "this number stands beside [[server]] tables", "keep one of the two")
        servers: list[Server] = []
        for index, table in enumerate(tables):
            if any(s.id == table.id for s in servers):
                raise self._error(("server", index, "id"), f"two servers have the id {table.id}")
            plugged = self._plugged(("server", index), table.switches, switches)
            given = self._given(("server", index), table.addresses, plugged)
            nics = server_nics(f"zk{table.id}", table.id, plugged, given)
            servers.append(Server(table.id, nics, role=Role(table.role), version=table.version))
        if not any(s.role is Role.PARTICIPANT for s in servers):
            raise self._error(("server",), "every server is an observer", 'one at least must have role = "participant"')
        return tuple(servers)

    def _client_hosts(self, switches: Sequence[Switch]) -> tuple[ClientHost, ...]:
        tables = self._table.client_host
        if tables is None:
            names = [s.name for s in switches]
            tables = [
                ClientHostTable(name=f"c{number + 1}", switches=names) for number in range(self._table.clients or 1)
            ]
        elif self._table.clients is not None:
            raise self._error(("clients",), "this number stands beside [[client_host]] tables", "keep one of the two")
        hosts: list[ClientHost] = []
        for index, table in enumerate(tables):
            plugged = self._plugged(("client_host", index), table.switches, switches)
            given = self._given(("client_host", index), table.addresses, plugged)
            hosts.append(ClientHost(table.name, client_nics(table.name, index + 1, plugged, given)))
        return tuple(hosts)

    def _plugged(
        self, table_key: tuple[str, int], names: Sequence[str], switches: Sequence[Switch]
    ) -> tuple[Switch, ...]:
        """The switches that a host is plugged into, in the order that the host lists them."""
        by_name = {s.name: s for s in switches}
        for index, name in enumerate(names):
            key = (*table_key, "switches", index)
            if name not in by_name:
                raise self._error(
                    key,
                    f"there is no switch {value_text(name)}",
                    f"{nearest(name, by_name)}allowed: {allowed_words(by_name)}",
                )
            if name in names[:index]:
                raise self._error(key, f"{value_text(name)} is listed twice", "a host has one NIC on a switch")
        return tuple(by_name[name] for name in names)

    def _given(
        self, table_key: tuple[str, int], addresses: Mapping[str, str], plugged: Sequence[Switch]
    ) -> dict[str, IPv4Address]:
        """The addresses that a host's table gives itself."""
        by_name = {s.name: s for s in plugged}
        given = {}
        for name, text in addresses.items():
            key = (*table_key, "addresses", name)
            if name not in by_name:
                raise self._error(
                    key,
                    f"this host is not plugged into {value_text(name)}",
                    f"{nearest(name, by_name)}allowed: {allowed_words(by_name)}",
                )
            try:
                given[name] = parse_address(text, by_name[name])
            except ValueError as problem:
                raise self._error(
                    key, f"found {value_text(text)}: {problem}", f"allowed: an address in {by_name[name].subnet}"
                ) from None
        return given

    def _refuse_same_addresses(self, servers: Sequence[Server], hosts: Sequence[ClientHost]) -> None:
        taken: dict[IPv4Address, str] = {}
        tables = [("server", i, s) for i, s in enumerate(servers)] + [
            ("client_host", i, h) for i, h in enumerate(hosts)
        ]
        for table, index, host in tables:
            for nic in host.nics:
                if nic.address in taken:
                    raise self._error(
                        (table, index, "addresses", nic.switch),
                        f"{nic.address} is the address of {taken[nic.address]}, too",
                        "give one of the two another address",
                    )
                taken[nic.address] = host.host

    def _refuse_same_names(self, switches: Sequence[Switch], hosts: Sequence[ClientHost]) -> None:
        # Without [[client_host]] tables the clash can only be a switch called like a default host.
        taken = {s.name: ("switch", index, "name") for index, s in enumerate(switches)}
        for index, host in enumerate(hosts):
            if host.name in taken:
                key = ("client_host", index, "name") if self._table.client_host else taken[host.name]
                raise self._error(
                    key, f"the name {value_text(host.name)} is taken", "switches and hosts need different names"
                )
            taken[host.name] = ("client_host", index, "name")

    def _error(self, key: tuple[str | int, ...], what: str, next_step: str = "") -> TopologyError:
        return TopologyError(what, where=f"{self._source_name}:{key_path(key)}", next_step=next_step)


def _refuse_hopeless(topology: Topology, source_name: str) -> None:
    """Refuse what could be built and would never work, even with nothing broken."""
    _refuse_early_multi_address(topology, source_name)
    _refuse_proxied_multi_address(topology, source_name)
    for index, server in enumerate(topology.servers):
        plugged = {n.switch for n in server.nics}
        others = {n.switch for s in topology.servers for n in s.nics if s.id != server.id}
        if len(topology.servers) > 1 and not plugged & others:
            raise TopologyError(
                f"{server.host} shares no switch with any other server",
                where=f"{source_name}:{key_path(('server', index, 'switches'))}",
                next_step=f"allowed: at least one of {allowed_words(sorted(others))}",
            )
    whole = survives(topology)
    if not whole.quorum:
        several = any(len(s.nics) > 1 for s in topology.servers)
        first_only = (
            " by its first address (multi_address is off)" if several and not topology.zookeeper.multi_address else ""
        )
        raise TopologyError(
            f"no quorum can ever form: at most {len(whole.members)} of {len(topology.participants)} participants "
            f"reach each other{first_only}, and {topology.quorum_size} are needed",
            where=f"{source_name}:server",
            next_step="plug a majority of the participants into common switches",
        )
    served = {n.switch for s in topology.servers for n in s.nics}
    for index, host in enumerate(topology.client_hosts):
        if not served & {n.switch for n in host.nics}:
            raise TopologyError(
                f"client host {host.name} shares no switch with any server",
                where=f"{source_name}:{key_path(('client_host', index, 'switches'))}",
                next_step=f"allowed: at least one of {allowed_words(sorted(served))}",
            )


def _refuse_early_multi_address(topology: Topology, source_name: str) -> None:
    if not topology.zookeeper.multi_address:
        return
    for version in [topology.zookeeper.version, *(s.version for s in topology.servers if s.version)]:
        line = release_line(version)
        if line and line < _FIRST_MULTI_ADDRESS:
            raise TopologyError(
                f"ZooKeeper {version} knows one address per server, and multi-address is on",
                where=f"{source_name}:zookeeper.multi_address",
                next_step="choose 3.6 or later, or switch multi-address off",
            )


def _refuse_proxied_multi_address(topology: Topology, source_name: str) -> None:
    if topology.proxies.servers and topology.zookeeper.multi_address:
        # a proxy is there whatever becomes of the network behind it, so a server would never try the next address
        raise TopologyError(
            "a server behind proxies is known by one address, and multi-address is on",
            where=f"{source_name}:proxies.servers",
            next_step="write multi_address = false in [zookeeper], or let the streams of clients alone pass proxies",
        )

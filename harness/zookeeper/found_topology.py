"""An ensemble that was found running, written down as a topology: pure text, without an engine.

So faults, load, judges and pages need not know the difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from harness.errors import TestbedError, TopologyError
from harness.topology.loader import parse_topology
from harness.topology.model import Topology
from harness.topology.schema import check_name
from harness.topology.toml_document import one_line
from harness.zookeeper.found_config import members_of, number_of

#: Lines of zoo.cfg that a topology repeats, because the harness calculates with them.
_SETTINGS = ("tickTime", "initLimit", "syncLimit", "minSessionTimeout", "maxSessionTimeout")
#: What a server takes that says nothing about it (`QuorumPeerConfig`).
_DEFAULT_TICK_MS = 3000
_CLIENT = "c1"
_LONGEST_TITLE = 200
#: How the switches are called that plans are aimed at.
_COUNTED = re.compile(r"net[1-9]", re.ASCII)


@dataclass(frozen=True)
class PlacedServer:
    """A server, and where it stands."""

    id: int
    #: Its zoo.cfg with the dynamic part.
    config: Mapping[str, str]
    #: By network.
    addresses: Mapping[str, IPv4Address]
    #: By which of them the other servers know it, in their order; empty where nobody could tell.
    quorum_addresses: tuple[IPv4Address, ...] = ()
    version: str = ""

    @property
    def observer(self) -> bool:
        """Whether it has no vote."""
        own = members_of(self.config).get(self.id)
        return self.config.get("peerType") == "observer" or (own is not None and own.observer)


@dataclass(frozen=True)
class PlacedNetwork:
    """A bridge network."""

    #: As addresses refer to it; nobody sees it.
    key: str
    #: What it is called; at the end, what the engine calls it.
    names: tuple[str, ...]
    subnet: IPv4Network
    #: Addresses that are somebody's.
    taken: frozenset[IPv4Address] = field(default_factory=frozenset)
    #: What it is as a switch, where that is written on it.
    label: str = ""
    #: The part of the subnet that the engine chooses addresses from, if it is not all of it.
    pool: IPv4Network | None = None


def topology_of(
    name: str, servers: Sequence[PlacedServer], networks: Sequence[PlacedNetwork], called: str = ""
) -> Topology:
    """The topology that servers and networks amount to.

    Args:
        name: of the ensemble, for its title and for errors.
        servers: all of them.
        networks: all that they stand on; others are left out.
        called: the topology's name, if it is known.

    Raises:
        TestbedError: no topology can be written that says so; it may have too many servers, for instance.
    """
    text = topology_text(name, servers, networks)
    try:
        return parse_topology(text, called or name.replace("=", "-"))
    except TopologyError as problem:
        raise TestbedError(
            f"the harness has no topology like this: {problem.what}",
            where=one_line(name),
            cause=f"{len(servers)} servers on {', '.join(str(n.subnet) for n in networks)[:200]}",
            next_step=problem.next_step,
        ) from problem


def topology_text(name: str, servers: Sequence[PlacedServer], networks: Sequence[PlacedNetwork]) -> str:
    """The text of a topology file."""
    switches = switch_names(networks)
    text = [
        f"# As it was found running: {one_line(name)}",
        f"title = {_quoted(f'{len(servers)} servers of {name}, found running'[:_LONGEST_TITLE])}",
        "[zookeeper]",
        f"settings = {{ {_settings(servers)} }}",
        f"multi_address = {str(_has_multi_address(servers)).lower()}",
    ]
    if version := next((s.version for s in servers if s.version), ""):
        text.append(f'version = "{version}"')
    for network in networks:
        text += ["[[switch]]", f'name = "{switches[network.key]}"', f'subnet = "{network.subnet}"']
    for server in servers:
        role = "observer" if server.observer else "participant"
        text += ["[[server]]", f"id = {server.id}", f'role = "{role}"']
        if server.version and server.version != version:
            text.append(f'version = "{server.version}"')
        text += _nics({switches[key]: server.addresses[key] for key in _in_order(server, networks)})
    text += ["[[client_host]]", f'name = "{_CLIENT}"']
    taken = {address for server in servers for address in server.addresses.values()}
    text += _nics({switches[n.key]: free_address(n, taken) for n in networks})
    return "\n".join(text) + "\n"


def switch_names(networks: Sequence[PlacedNetwork]) -> dict[str, str]:
    """What each network is called as a switch, by its key.

    The plans that come with the harness are aimed at net1 and net2. So a network keeps its own name only if it is
    labelled with one, or has one like these; the others are counted.
    """
    names: dict[str, str] = {}
    for network in networks:
        best = network.label or next(filter(_COUNTED.fullmatch, network.names), "")
        if best and best not in {_CLIENT, *names.values()} and _is_name(best):
            names[network.key] = best
    free = (n for n in (f"net{number + 1}" for number in range(2 * len(networks))) if n not in names.values())
    return {network.key: names.get(network.key) or next(free) for network in networks}


def free_address(network: PlacedNetwork, taken: Collection[IPv4Address]) -> IPv4Address:
    """An address for the client host: from the end of the subnet, where engines give none out of their own.

    Raises:
        TestbedError: there is none.
    """
    used = network.taken | set(taken)
    last, first = int(network.subnet.broadcast_address) - 1, int(network.subnet.network_address)
    # so many are taken at the most; the range may have millions
    candidates = [IPv4Address(a) for a in range(last, max(first, last - len(used) - 1), -1)]
    outside = _from_outside(network, first, last)
    free = [a for a in (*outside, *candidates) if a not in used]
    if not free:
        name = one_line(network.names[-1])
        raise TestbedError("no address is free for a client", where=f"network {name}, {network.subnet}")
    return free[0]


def _from_outside(network: PlacedNetwork, first: int, last: int) -> Sequence[IPv4Address]:
    """Some addresses of a subnet that its engine gives nobody by itself, the last first."""
    if network.pool is None or not network.pool.subnet_of(network.subnet):
        return ()
    begin, end = int(network.pool.network_address), int(network.pool.broadcast_address)
    above, below = range(last, max(end, last - 256), -1), range(begin - 1, max(first, begin - 257), -1)
    return [IPv4Address(a) for a in (*above, *below)]


def _settings(servers: Sequence[PlacedServer]) -> str:
    config = servers[0].config
    found = {key: number_of(config, key) for key in _SETTINGS}
    found["tickTime"] = found["tickTime"] or _DEFAULT_TICK_MS
    return ", ".join(f"{key} = {value}" for key, value in found.items() if value is not None)


def _has_multi_address(servers: Sequence[PlacedServer]) -> bool:
    return any(len(m.addresses) > 1 for s in servers for m in members_of(s.config).values())


def _in_order(server: PlacedServer, networks: Sequence[PlacedNetwork]) -> list[str]:
    """Its networks; first those by whose address the others know it: with one address, that is its only way."""
    order = {address: number for number, address in reversed(list(enumerate(server.quorum_addresses)))}
    keys = [n.key for n in networks if n.key in server.addresses]
    return sorted(keys, key=lambda key: order.get(server.addresses[key], len(server.quorum_addresses)))


def _nics(addresses: Mapping[str, IPv4Address]) -> list[str]:
    pairs = ", ".join(f'{name} = "{address}"' for name, address in addresses.items())
    return [f"switches = [{', '.join(map(_quoted, addresses))}]", f"addresses = {{ {pairs} }}"]


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """As a string of TOML, which JSON's are where every character can be printed."""
    return json.dumps(one_line(text), ensure_ascii=False)

"""Which host has which address: server N is `.N` of its subnets, client host k `.(100+k)`, or what the file says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from harness.topology.model import Nic, Switch, Topology

_FIRST_CLIENT = 100

#: What a subnet may be part of: networks that are nobody's on the internet (RFC 1918, and RFC 2544 for benchmarks).
ALLOWED_NETWORKS = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")))

_SHORTEST_PREFIX = 16
#: A /25 is the smallest that has room for `.116`, the sixteenth client host.
_LONGEST_PREFIX = 25

SUBNET_FORM = (
    f"a network from /{_SHORTEST_PREFIX} to /{_LONGEST_PREFIX} within "
    + ", ".join(str(network) for network in ALLOWED_NETWORKS[:-1])
    + f" or {ALLOWED_NETWORKS[-1]}"
)


def default_subnet(position: int) -> IPv4Network:
    """10.77.N.0/24 for the N-th switch of a file, counted from 1."""
    return IPv4Network(f"10.77.{position}.0/24")


def parse_subnet(text: str) -> IPv4Network:
    """The subnet of a switch.

    Raises:
        ValueError: not an IPv4 network, with bits set behind its prefix, too small, too large, or a public one. The
            message is half a sentence about `text`.
    """
    address, slash, _ = text.partition("/")
    try:
        network = IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError):
        raise ValueError("this is not an IPv4 network") from None
    if not slash:
        raise ValueError("the length of the prefix is missing")
    if str(network.network_address) != address:
        raise ValueError(f"this is an address in the network {network}, not the network")
    if network.prefixlen > _LONGEST_PREFIX:
        raise ValueError("this network is too small")
    if network.prefixlen < _SHORTEST_PREFIX:
        raise ValueError("this network is larger than any ensemble needs")
    if not any(network.subnet_of(allowed) for allowed in ALLOWED_NETWORKS):
        raise ValueError("this network may be somebody's on the internet")
    return network


def parse_address(text: str, switch: Switch) -> IPv4Address:
    """A host's own address on a switch.

    Raises:
        ValueError: not an IPv4 address, or not one that a host of this subnet may have. The message is half a sentence.
    """
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise ValueError("this is not an IPv4 address") from None
    if address not in switch.subnet:
        raise ValueError(f"this address is not in {switch.subnet}")
    if address in (switch.subnet.network_address, switch.subnet.broadcast_address):
        raise ValueError("this is no host's address")
    return address


def gateway_address(topology: Topology, switch: Switch) -> IPv4Address:
    """For an engine's own address on a switch: the last that no host has, because `.1` is a server's."""
    taken = {nic.address for nic in topology.nics() if nic.switch == switch.name}
    address = switch.subnet.broadcast_address - 1
    while address in taken:
        address -= 1
    return address


#: The addresses that a file gives itself, by switch.
Given = Mapping[str, IPv4Address]


def server_nics(host: str, server_id: int, switches: Iterable[Switch], given: Given | None = None) -> tuple[Nic, ...]:
    """One NIC per switch for a server's host, in the order of `switches`; the first is the server's first address."""
    return _nics(host, server_id, switches, given or {})


def client_nics(host: str, position: int, switches: Iterable[Switch], given: Given | None = None) -> tuple[Nic, ...]:
    """One NIC per switch for the client host at `position` in its file, counted from 1."""
    return _nics(host, _FIRST_CLIENT + position, switches, given or {})


def _nics(host: str, offset: int, switches: Iterable[Switch], given: Given) -> tuple[Nic, ...]:
    return tuple(
        Nic(host, s.name, given.get(s.name, s.subnet.network_address + offset), s.subnet.prefixlen) for s in switches
    )

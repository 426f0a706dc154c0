"""The bridge networks of a Docker engine that an ensemble stands on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

import docker
from docker.models.networks import Network

from harness.testbed.engine import LABEL_SWITCH
from harness.zookeeper.found_topology import PlacedNetwork

_LABEL_NETWORK = "com.docker.compose.network"
_BRIDGE_OPTION = "com.docker.network.bridge.name"


@dataclass(frozen=True)
class FoundNetwork:
    """A bridge network."""

    placed: PlacedNetwork
    #: The interface.
    bridge: str
    #: The containers on it that run: their names, by id.
    containers: Mapping[str, str]


def networks_of(client: docker.DockerClient, ids: Collection[str]) -> list[FoundNetwork]:
    """Those of these networks that are bridges with IPv4, in the order of their names."""
    if not ids:
        return []
    fixed = _fixed_addresses(client)
    found = [_network(client.networks.get(i), fixed.get(i, frozenset())) for i in ids]
    return sorted((n for n in found if n is not None), key=lambda n: (n.placed.label, n.placed.names))


def neighbours_on(network: FoundNetwork, ours: Collection[str]) -> Sequence[str]:
    """The names of the containers on a network that are not ours."""
    return sorted(name for i, name in network.containers.items() if i not in ours)


def _network(network: Network, fixed: Collection[IPv4Address]) -> FoundNetwork | None:
    attrs = network.attrs
    pools = [p for p in (attrs.get("IPAM") or {}).get("Config") or [] if _subnet(p.get("Subnet")) is not None]
    if attrs["Driver"] != "bridge" or not pools:
        return None
    subnet = _subnet(pools[0]["Subnet"])
    assert subnet is not None, "others were left out"
    containers = attrs.get("Containers") or {}
    texts = [pool.get("Gateway") or "" for pool in pools]
    texts += [c.get("IPv4Address") or "" for c in containers.values()]
    texts += [a for pool in pools for a in (pool.get("AuxiliaryAddresses") or {}).values()]
    taken = frozenset(a for a in map(_address, texts) if a is not None)
    labels = attrs.get("Labels") or {}
    label, names = labels.get(LABEL_SWITCH) or "", (labels.get(_LABEL_NETWORK), attrs["Name"])
    placed = PlacedNetwork(
        key=str(network.id),
        names=tuple(str(n) for n in names if n),
        subnet=subnet,
        taken=taken | frozenset(fixed),
        label=str(label),
        pool=_subnet(pools[0].get("IPRange")),
    )
    # as its options say, else as the engine names it
    bridge = (attrs.get("Options") or {}).get(_BRIDGE_OPTION) or f"br-{str(network.id)[:12]}"
    return FoundNetwork(placed, str(bridge), {str(i): str(c["Name"]) for i, c in containers.items()})


def _fixed_addresses(client: docker.DockerClient) -> dict[str, frozenset[IPv4Address]]:
    """By network: the addresses that containers insist on, also those that do not run."""
    found: dict[str, set[IPv4Address]] = {}
    for container in client.api.containers(all=True):
        for network in ((container.get("NetworkSettings") or {}).get("Networks") or {}).values():
            address = _address((network.get("IPAMConfig") or {}).get("IPv4Address") or "")
            if address is not None:
                found.setdefault(str(network.get("NetworkID")), set()).add(address)
    return {key: frozenset(addresses) for key, addresses in found.items()}


def _subnet(text: str | None) -> IPv4Network | None:
    try:
        return IPv4Network(text or "", strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def _address(text: str) -> IPv4Address | None:
    """The address in `172.18.0.2/16`."""
    try:
        return IPv4Address(text.partition("/")[0])
    except AddressValueError:
        return None

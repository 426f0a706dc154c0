"""Finds an ensemble of containers that somebody else started: which servers, on which networks, with which settings.

What is found is written down as a topology, so that faults, load, judges and pages need not know the difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from itertools import pairwise
from pathlib import PurePosixPath

import docker
from docker.models.containers import Container
from docker.models.networks import Network

from harness.errors import TestbedError, UsageError
from harness.testbed.engine import LABEL_SWITCH, LABEL_TOPOLOGY
from harness.testbed.refusals import refusals
from harness.topology.loader import parse_topology
from harness.topology.model import Topology
from harness.topology.schema import check_name

_PROJECT, _PROJECT_NETWORK = "com.docker.compose.project", "com.docker.compose.network"
#: What the Compose projects of `zkchaos topology` are called.
_OUR_PROJECT = "zkchaos-{}"
#: Lines of zoo.cfg that a topology repeats, because the harness calculates with them.
_SETTINGS = ("tickTime", "initLimit", "syncLimit", "minSessionTimeout", "maxSessionTimeout")
_RELEASE = re.compile(r"\d\.\d{1,2}\.\d{1,3}", re.ASCII)
_SERVER_LINE = re.compile(r"server\.(\d{1,3})=(.+)", re.ASCII)


@dataclass(frozen=True)
class FoundServer:
    """A server in a container."""

    id: int
    container: Container
    #: Its zoo.cfg with the dynamic part.
    config: Mapping[str, str]
    #: By the name of the network.
    addresses: Mapping[str, IPv4Address]

    @property
    def data_folders(self) -> tuple[PurePosixPath, PurePosixPath]:
        """`dataDir` and `dataLogDir`, in the container."""
        data = self.config.get("dataDir", "/data")
        return PurePosixPath(data), PurePosixPath(self.config.get("dataLogDir", data))

    @property
    def version(self) -> str:
        """As its image's tag says; empty where that says nothing."""
        tag = str(self.container.attrs["Config"]["Image"]).rpartition(":")[2]
        found = _RELEASE.match(tag)
        return found.group() if found else ""


@dataclass(frozen=True)
class FoundEnsemble:
    """An ensemble that runs, and the topology that it amounts to."""

    name: str
    topology: Topology
    servers: Mapping[int, FoundServer]
    #: The bridge's interface name, by switch.
    bridges: Mapping[str, str]


def find_ensemble(client: docker.DockerClient, name: str) -> FoundEnsemble:
    """Find the servers of an ensemble.

    Args:
        client: the engine.
        name: a Compose project, a topology that `zkchaos topology up` brought up, or a label as `key=value`.

    Raises:
        UsageError: nothing of that name runs here, or nothing of it is a ZooKeeper server.
        TestbedError: it runs in a way that the harness cannot work with.
    """
    with refusals(name):
        containers = containers_of(client, name)
        servers = sorted(filter(None, map(_server, containers)), key=lambda server: server.id)
        if not servers:
            raise _nothing(client, name, len(containers))
        networks = _networks(client, servers)
    _refuse_twins(servers, name)
    if not networks:
        raise TestbedError(
            "its servers share no bridge network",
            where=name,
            cause="they are on the host's network, or on one that spans machines",
        )
    switches = _switch_names(networks)
    text = _as_topology(name, servers, networks, switches)
    label = servers[0].container.labels.get(LABEL_TOPOLOGY, "")
    topology = parse_topology(text, label or name.replace("=", "-"))
    bridges = {switches[network.name]: _bridge(network) for network in networks}
    return FoundEnsemble(name, topology, {server.id: server for server in servers}, bridges)


def containers_of(client: docker.DockerClient, name: str) -> list[Container]:
    """Every container of a name, as `find_ensemble` takes it, whether it runs or not."""
    if "=" in name:
        return list(client.containers.list(all=True, filters={"label": name}))
    for label in (f"{_PROJECT}={name}", f"{_PROJECT}={_OUR_PROJECT.format(name)}", f"{LABEL_TOPOLOGY}={name}"):
        if found := client.containers.list(all=True, filters={"label": label}):
            return list(found)
    return []


def _nothing(client: docker.DockerClient, name: str, others: int) -> UsageError:
    projects = {c.labels.get(_PROJECT) for c in client.containers.list(all=True)} - {None}
    what = f"none of its {others} containers runs a ZooKeeper server" if others else "nothing of that name runs here"
    known = f"Compose projects here: {', '.join(sorted(map(str, projects)))}" if projects else "no Compose project runs"
    return UsageError(what, where=name, next_step=f"{known}; `make topology-dual-net` brings one up")


# --- one server ---------------------------------------------------------------------------------------------


def _server(container: Container) -> FoundServer | None:
    """The server in a container; None if there is none, or if it does not run."""
    environment = dict(entry.partition("=")[::2] for entry in container.attrs["Config"]["Env"] or ())
    if container.status != "running":
        return None
    folder = environment.get("ZOO_CONF_DIR", "/conf")
    config = _settings(_read(container, f"{folder}/zoo.cfg"))
    if not config:
        return None
    if dynamic := config.get("dynamicConfigFile"):
        config |= _settings(_read(container, dynamic))
    number = _read(container, f"{config.get('dataDir', '/data')}/myid").strip() or environment.get("ZOO_MY_ID", "1")
    networks = container.attrs["NetworkSettings"]["Networks"]
    addresses = {name: IPv4Address(n["IPAddress"]) for name, n in networks.items() if n["IPAddress"]}
    return FoundServer(int(number), container, config, addresses) if number.isdigit() else None


def _read(container: Container, path: str) -> str:
    """A small file of a container; empty if it cannot be read. Not by the engine's copy, which sees no tmpfs."""
    code, output = container.exec_run(["cat", path], stderr=False)
    return bytes(output or b"").decode("utf-8", errors="replace") if code == 0 else ""


def _settings(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _refuse_twins(servers: Sequence[FoundServer], name: str) -> None:
    for one, other in pairwise(servers):
        if one.id == other.id:
            raise TestbedError(
                f"{one.container.name} and {other.container.name} both say that they are server {one.id}",
                where=name,
                cause="these are servers of two ensembles",
                next_step="name one Compose project, or a label that only one ensemble has",
            )


# --- the networks -------------------------------------------------------------------------------------------


def _networks(client: docker.DockerClient, servers: Sequence[FoundServer]) -> list[Network]:
    names = {name for server in servers for name in server.addresses}
    networks = [client.networks.get(name) for name in names]
    bridges = [n for n in networks if n.attrs["Driver"] == "bridge" and _subnet(n) is not None]
    return sorted(bridges, key=lambda n: _labels(n).get(LABEL_SWITCH) or str(n.name))


def _labels(network: Network) -> Mapping[str, str]:
    return network.attrs.get("Labels") or {}


def _subnet(network: Network) -> IPv4Network | None:
    pools = (network.attrs.get("IPAM") or {}).get("Config") or []
    subnets = [ip_network(pool["Subnet"]) for pool in pools if pool.get("Subnet")]
    return next((s for s in subnets if isinstance(s, IPv4Network)), None)


def _bridge(network: Network) -> str:
    """The interface of a bridge network: as its options say, else as the engine names it."""
    options = network.attrs.get("Options") or {}
    return str(options.get("com.docker.network.bridge.name") or f"br-{network.id[:12]}")


def _switch_names(networks: Sequence[Network]) -> dict[str, str]:
    """What each network is called as a switch: as its label says, else as Compose calls it, else by its number."""
    names: dict[str, str] = {}
    for number, network in enumerate(networks, 1):
        labels = _labels(network)
        candidates = (labels.get(LABEL_SWITCH), labels.get(_PROJECT_NETWORK), str(network.name))
        usable = [c for c in candidates if c and _is_name(c) and c not in names.values()]
        names[str(network.name)] = usable[0] if usable else f"net{number}"
    return names


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True


def _free_address(network: Network, taken: set[IPv4Address]) -> IPv4Address:
    """An address for the client host: from the end of the subnet, where engines give none out of their own."""
    subnet = _subnet(network)
    assert subnet is not None, "networks without one were left out"
    pools = network.attrs["IPAM"]["Config"]
    used = taken | {IPv4Address(pool["Gateway"]) for pool in pools if "." in pool.get("Gateway", "")}
    used |= {IPv4Address(c["IPv4Address"].split("/")[0]) for c in (network.attrs.get("Containers") or {}).values()}
    last = int(subnet.broadcast_address) - 1
    return next(a for a in map(IPv4Address, range(last, int(subnet.network_address), -1)) if a not in used)


# --- as a topology ------------------------------------------------------------------------------------------


def _as_topology(
    name: str, servers: Sequence[FoundServer], networks: Sequence[Network], switches: Mapping[str, str]
) -> str:
    """The text of a topology file."""
    first = servers[0].config
    lines = {
        m.group(1): m.group(2) for s in servers for k, v in s.config.items() if (m := _SERVER_LINE.match(f"{k}={v}"))
    }
    settings = ", ".join(f"{key} = {int(first[key])}" for key in _SETTINGS if first.get(key, "").isdigit())
    text = [
        f"# As it was found running: {name}",
        f"title = {json.dumps(f'{len(servers)} servers of {name}, found running'[:200])}",
        "[zookeeper]",
        f"settings = {{ {settings} }}",
        f"multi_address = {str(any('|' in line for line in lines.values())).lower()}",
    ]
    if version := next((s.version for s in servers if s.version), ""):
        text.append(f'version = "{version}"')
    for network in networks:
        text += ["[[switch]]", f'name = "{switches[str(network.name)]}"', f'subnet = "{_subnet(network)}"']
    for server in servers:
        role = "observer" if ":observer" in lines.get(str(server.id), "") else "participant"
        text += ["[[server]]", f"id = {server.id}", f'role = "{role}"']
        text += _nics({switches[n]: a for n, a in server.addresses.items() if n in switches})
    taken = {address for server in servers for address in server.addresses.values()}
    text += ["[[client_host]]", 'name = "c1"']
    text += _nics({switches[str(n.name)]: _free_address(n, taken) for n in networks})
    return "\n".join(text) + "\n"


def _nics(addresses: Mapping[str, IPv4Address]) -> list[str]:
    names = sorted(addresses)
    pairs = ", ".join(f'{name} = "{addresses[name]}"' for name in names)
    return [f"switches = [{', '.join(json.dumps(name) for name in names)}]", f"addresses = {{ {pairs} }}"]

"""Finds an ensemble of containers that somebody else started: which servers, on which networks, with which settings.

Looking changes nothing. What is found is written down as a topology (`found_topology`). An ensemble is found whole or
not at all: with a server that is down it is no smaller ensemble, and whoever took it for one would count quorums wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from itertools import pairwise

import docker
from docker.models.containers import Container

from harness.errors import TestbedError, UsageError
from harness.testbed.engine import LABEL_TOPOLOGY
from harness.testbed.refusals import refusals
from harness.topology.model import Topology
from harness.topology.toml_document import one_line
from harness.zookeeper.found_config import hindrance, members_of
from harness.zookeeper.found_container import LABEL_PROJECT, Absent, FoundServer, look_into, run_in
from harness.zookeeper.found_networks import neighbours_on, networks_of
from harness.zookeeper.found_topology import PlacedServer, switch_names, topology_of

#: What the Compose projects of `zkchaos up` are called.
_OUR_PROJECT = "zkchaos-{}"
#: How long a container that was just started may take until ZooKeeper runs in it, seconds.
_PATIENCE = 10.0
_POLL = 0.1
#: Containers that are looked into at the same time.
_AT_ONCE = 8
#: Containers of one name that are looked into at all.
_MOST = 200
#: A line for each name: the name, and what the container's own resolver says of it, first the preferred address.
_RESOLVE = 'for name; do echo "$name" $(getent ahostsv4 "$name"); done'


@dataclass(frozen=True)
class FoundEnsemble:
    """An ensemble that runs, and the topology that it amounts to."""

    name: str
    topology: Topology
    servers: Mapping[int, FoundServer]
    #: The bridge's interface name, by switch.
    bridges: Mapping[str, str]
    #: What the engine calls the network of each switch.
    networks: Mapping[str, str]
    #: The switch, by the other names that its network has.
    aliases: Mapping[str, str]
    #: Other containers that are on a switch, by switch: its death is theirs, too.
    neighbours: Mapping[str, Sequence[str]]


def find_ensemble(client: docker.DockerClient, name: str, *, patience: float = _PATIENCE) -> FoundEnsemble:
    """Find the servers of an ensemble.

    Args:
        client: the engine.
        name: a Compose project, a topology that `zkchaos up` brought up, or a label as `key=value`.
        patience: seconds that a container that runs may take until ZooKeeper runs in it.

    Raises:
        UsageError: nothing of that name runs here, or nothing of it is a ZooKeeper server.
        TestbedError: a server is down, or it runs in a way that the harness cannot work with.
    """
    deadline = time.monotonic() + patience
    with refusals(one_line(name)):
        while True:
            servers, absent = _look_around(client, name)
            if not any(a.starting for a in absent) or time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        _refuse_mixture(servers, name)
        _refuse_incomplete(servers, absent, name)
        for server in servers:
            if found := hindrance(server.config, members_of(server.config).get(server.id)):
                raise TestbedError(found[0], where=f"server {server.id} in {server.name}", next_step=found[1])
        return _whole(client, name, servers)


def containers_of(client: docker.DockerClient, name: str) -> list[Container]:
    """Every container of a name, as `find_ensemble` takes it, whether it runs or not.

    Raises:
        UsageError: it is no name.
    """
    key, equals, _value = name.partition("=")
    if not key.strip():
        raise UsageError("this names nothing", where=f"{one_line(name)!r}", next_step="a Compose project, or key=value")
    labels = [name] if equals else [f"{LABEL_PROJECT}={name}", f"{LABEL_PROJECT}={_OUR_PROJECT.format(name)}"]
    labels += [] if equals else [f"{LABEL_TOPOLOGY}={name}"]
    for label in labels:
        if found := client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
            return list(found)
    return []


def _look_around(client: docker.DockerClient, name: str) -> tuple[list[FoundServer], list[Absent]]:
    """Servers by id, and those that are not there although their containers are."""
    containers = containers_of(client, name)
    if len(containers) > _MOST:
        raise UsageError(f"{len(containers)} containers have it", where=one_line(name), next_step="be more specific")
    with ThreadPoolExecutor(_AT_ONCE, "zkchaos-look") as pool:
        looks = list(pool.map(look_into, containers))
    servers = sorted((s for s in looks if isinstance(s, FoundServer)), key=lambda s: s.id)
    absent = [a for a in looks if isinstance(a, Absent) and a.id not in {s.id for s in servers}]
    if not servers and not absent:
        raise _nothing(client, name, len(containers))
    return servers, absent


def _nothing(client: docker.DockerClient, name: str, others: int) -> UsageError:
    projects = {c.labels.get(LABEL_PROJECT) for c in client.containers.list(all=True, ignore_removed=True)} - {None}
    what = f"none of its {others} containers runs a ZooKeeper server" if others else "nothing of that name runs here"
    known = f"Compose projects here: {', '.join(sorted(map(str, projects)))}" if projects else "no Compose project runs"
    return UsageError(what, where=one_line(name), next_step=f"{known}; `zkchaos up dual-net` brings one up")


# --- is this one whole ensemble? ----------------------------------------------------------------------------


def _refuse_mixture(servers: Sequence[FoundServer], name: str) -> None:
    for one, other in pairwise(servers):
        ours, theirs = (set(members_of(server.config)) for server in (one, other))
        if one.id == other.id:
            what = f"{one.name} and {other.name} both say that they are server {one.id}"
        elif not ours or other.id not in ours or one.id not in theirs:
            what = f"{one.name} and {other.name} do not know each other"
        else:
            continue
        raise TestbedError(
            what,
            where=one_line(name),
            cause="these are servers of two ensembles",
            next_step="name one Compose project, or a label that only one ensemble has",
        )


def _refuse_incomplete(servers: Sequence[FoundServer], absent: Sequence[Absent], name: str) -> None:
    known = {i for server in servers for i in members_of(server.config)}
    down = [a for a in absent if not known or a.id is None or a.id in known]
    unseen = sorted(known - {s.id for s in servers} - {a.id for a in down})
    if down:
        who = [f"server {a.id}'s container {a.name}" if a.id else f"the container {a.name}" for a in down]
        said = "; ".join(f"{w} {a.why}" for w, a in zip(who, down, strict=True))
        raise TestbedError(said, where=one_line(name), next_step=f"`zkchaos attach {one_line(name)} --heal` starts it")
    if unseen:
        numbers = ", ".join(map(str, unseen))
        raise TestbedError(
            f"its servers know a server {numbers} that no container here is",
            where=one_line(name),
            cause="it was removed, runs elsewhere, or lacks the label",
            next_step="start it, or choose a name that all of them have",
        )
    for server in servers:
        if known and server.id not in members_of(server.config):
            raise TestbedError(
                f"{server.name} says that it is server {server.id}, which its configuration does not know",
                where=one_line(name),
                cause="it waits to be taken in by a reconfiguration",
            )


def _whole(client: docker.DockerClient, name: str, servers: Sequence[FoundServer]) -> FoundEnsemble:
    networks = networks_of(client, {key for server in servers for key in server.addresses})
    if not networks:
        raise TestbedError(
            "its servers are on no bridge network",
            where=one_line(name),
            cause="they are on the host's network, or on one that spans machines",
        )
    placed = [n.placed for n in networks]
    seen = _quorum_addresses(servers) if len(networks) > 1 else {}
    topology = topology_of(
        name,
        [PlacedServer(s.id, s.config, s.addresses, seen.get(s.id, ()), s.version) for s in servers],
        placed,
        servers[0].labels.get(LABEL_TOPOLOGY, ""),
    )
    switches = switch_names(placed)
    ours = {str(server.container.id) for server in servers}
    return FoundEnsemble(
        name,
        topology,
        {server.id: server for server in servers},
        {switches[n.placed.key]: n.bridge for n in networks},
        {switches[n.placed.key]: n.placed.names[-1] for n in networks},
        {name: switches[n.placed.key] for n in networks for name in n.placed.names if name not in switches.values()},
        {switches[n.placed.key]: neighbours_on(n, ours) for n in networks},
    )


# --- by which addresses they know each other -----------------------------------------------------------------


def _quorum_addresses(servers: Sequence[FoundServer]) -> dict[int, tuple[IPv4Address, ...]]:
    """By which addresses each server is known to the others, as another of them resolves its names."""
    members = members_of(servers[0].config)
    names = sorted({a for m in members.values() for a in m.addresses if _address(a) is None})
    views = [(server.id, _resolved(server.container, names)) for server in servers[:2]] if names else []
    found: dict[int, tuple[IPv4Address, ...]] = {}
    for server in servers:
        view = next((view for seer, view in views if seer != server.id), {})
        texts = members[server.id].addresses if server.id in members else ()
        found[server.id] = tuple(a for t in texts if (a := _address(t) or view.get(t)) is not None)
    return found


def _resolved(container: Container, names: Sequence[str]) -> dict[str, IPv4Address]:
    """The address of each name, as a container sees it; those are left out that it cannot tell."""
    answer = run_in(container, ["sh", "-c", _RESOLVE, "sh", *names]) or ""
    words = [line.split() for line in answer.splitlines()]
    return {w[0]: address for w in words if len(w) > 1 and (address := _address(w[1])) is not None}


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


# --- making it whole -----------------------------------------------------------------------------------------


def start_all(client: docker.DockerClient, name: str) -> None:
    """Start and continue every server of an ensemble; other containers of its name stay as they are.

    Raises:
        UsageError: as `find_ensemble`.
        TestbedError: the engine refused.
    """
    with refusals(one_line(name)):
        servers, absent = _look_around(client, name)
        for container in [*(s.container for s in servers), *(a.container for a in absent)]:
            revive(container)


def revive(container: Container) -> None:
    """Start a container if it has ended, and let it go on if it was paused or stopped."""
    container.reload()
    if container.status == "paused":
        container.unpause()
    container.start()  # nothing, if it runs
    container.kill(signal="SIGCONT")

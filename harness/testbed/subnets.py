"""A switch as a bridge network of a Docker engine, and who has its subnet where it is taken.

An engine gives a subnet to one network only. The addresses of a topology are fixed, so two ensembles of the same
topology cannot stand on one engine at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network

import docker
from docker.errors import APIError, DockerException
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from harness.errors import TestbedError
from harness.testbed.engine import LABEL_OWNER, LABEL_RUN, LABEL_TOPOLOGY
from harness.testbed.owners import Life, life_of
from harness.testbed.refusals import said
from harness.topology.addresses import gateway_address
from harness.topology.model import Switch, Topology

#: What Compose calls the project on everything that it makes.
_LABEL_PROJECT = "com.docker.compose.project"


def make_bridge(
    client: docker.DockerClient,
    topology: Topology,
    switch: Switch,
    *,
    name: str,
    labels: Mapping[str, str],
    internal: bool,
) -> Network:
    """Make the network of a switch.

    Args:
        client: the engine.
        topology: whose hosts' addresses the engine must not take for its own.
        switch: its subnet is the network's.
        name: what the engine shall call the network.
        labels: of the network.
        internal: without a way out, and so without published ports.

    Raises:
        TestbedError: another network has the subnet (it is named, with what to do), or the engine refused.
    """
    pool = IPAMPool(subnet=str(switch.subnet), gateway=str(gateway_address(topology, switch)))
    try:
        return client.networks.create(
            name,
            driver="bridge",
            internal=internal,
            ipam=IPAMConfig(pool_configs=[pool]),
            labels=dict(labels),
            check_duplicate=True,
        )
    except (DockerException, OSError) as problem:
        if isinstance(problem, APIError) and (taken := taken_subnet(client, switch)):
            raise taken from problem
        raise TestbedError(
            f"the Docker engine refused the network {switch.subnet}: {said(problem)}", where=f"switch {switch.name}"
        ) from problem


def taken_subnet(client: docker.DockerClient, switch: Switch, *, but_by: str = "") -> TestbedError | None:
    """Says who has a subnet; None where nobody has it, or nobody but this Compose project."""
    others = (n for n in client.networks.list() if not but_by or _labels(n).get(_LABEL_PROJECT) != but_by)
    holder = next((n for n in others if _overlaps(n, switch.subnet)), None)
    if holder is None:
        return None
    whose, next_step = _whose(_labels(holder), str(holder.name))
    return TestbedError(
        f"the subnet {switch.subnet} is taken by the network {holder.name}",
        where=f"switch {switch.name}",
        cause=whose,
        next_step=f"{next_step}, or give the switch another subnet in a topology of your own",
    )


def _labels(network: Network) -> Mapping[str, str]:
    return network.attrs.get("Labels") or {}


def _overlaps(network: Network, subnet: IPv4Network) -> bool:
    pools = (network.attrs.get("IPAM") or {}).get("Config") or []
    theirs = [ip_network(pool["Subnet"], strict=False) for pool in pools if pool.get("Subnet")]
    return any(isinstance(other, IPv4Network) and other.overlaps(subnet) for other in theirs)


def _whose(labels: Mapping[str, str], name: str) -> tuple[str, str]:
    """Whose a network is, and what can be done about it."""
    project, topology = labels.get(_LABEL_PROJECT), labels.get(LABEL_TOPOLOGY)
    if project and topology:
        return f"the topology {topology} is up", f"`zkchaos down {topology}`"
    if project:
        return f"the Compose project {project} is up", f"stop it: `docker compose --project-name {project} down`"
    run = labels.get(LABEL_RUN)
    if run is None:
        return "it was not made by this harness", f"`docker network rm {name}` if nobody needs it"
    life = life_of(labels.get(LABEL_OWNER, ""))
    if life is Life.DEAD:
        return f"it was left by run {run}", "`zkchaos clean` removes it"
    return (
        f"it belongs to run {run}: {life}",
        "wait for the end of that run (`zkchaos clean` removes what dead runs left)",
    )

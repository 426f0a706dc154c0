"""What the topology predicts of a fault: does the service survive it, and if not, is that the control experiment?"""

from __future__ import annotations

from collections.abc import Iterable

from harness.check.evidence import Evidence
from harness.history.records import FaultAction, FaultEvent
from harness.topology.model import Topology
from harness.topology.survival import Survival, survives

NETWORK_FAULTS = frozenset({"switch-down", "link-down", "nic-down"})
SERVER_FAULTS = frozenset({"kill", "pause", "restart"})


def predicted(fault: FaultEvent, evidence: Evidence) -> Survival | None:
    """What is left of the ensemble while this fault is on, with those that are on already when it comes.

    Returns:
        None if the topology is not known, or a fault is of a kind that this cannot predict.
    """
    if evidence.topology is None:
        return None
    healed = {event.id: event.at for event in evidence.faults if event.action is FaultAction.HEALED}
    active = [
        event
        for event in evidence.faults
        if event.action is FaultAction.INJECT and event.at <= fault.at and healed.get(event.id, fault.at + 1) > fault.at
    ]
    return _survival(evidence.topology, active)


def _survival(topology: Topology, active: Iterable[FaultEvent]) -> Survival | None:
    switches: set[str] = set()
    links: set[str] = set()
    servers: set[int] = set()
    hosts = {server.host: server.id for server in topology.servers}
    for fault in active:
        targets = fault.target.split(",")
        if fault.fault == "switch-down":
            switches.update(targets)
        elif fault.fault in ("link-down", "nic-down"):
            links.update(targets)
        elif fault.fault in SERVER_FAULTS and all(target in hosts for target in targets):
            servers.update(hosts[target] for target in targets)
        else:
            return None
    return survives(topology, switches, links, servers)


def sentence(fault: FaultEvent, evidence: Evidence) -> str | None:
    """The prediction of an outage in plain words, or None where the service should survive or nobody can tell."""
    survival = predicted(fault, evidence)
    if survival is None or survival.undisturbed or evidence.topology is None:
        return None
    what = f"{fault.fault} {fault.target}"
    if fault.fault not in NETWORK_FAULTS:
        return f"The topology predicts an outage under {what}: {survival.reason}."
    return (
        f"This is the outage that the topology predicts under {what}, the control experiment of NR-11: "
        f"{_why(evidence.topology)}, so {survival.reason}."
    )


def _why(topology: Topology) -> str:
    if len(topology.switches) == 1:
        return "all servers hang on one network"
    if not topology.zookeeper.multi_address:
        return "multi-address is off, and each server is known by its first address only"
    return "too few servers share another network"

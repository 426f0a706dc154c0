"""The configuration files of one server: zoo.cfg, the dynamic part, myid."""

from __future__ import annotations

from collections.abc import Mapping

from harness.history.folder import ServerFolder
from harness.topology.model import CLIENT_PORT, Nic, Server, Setting, Topology
from harness.zookeeper.paths import ServerPaths

#: What zoo.cfg says where the topology says nothing. Fast ticks, because outages are counted in them.
DEFAULTS: Mapping[str, Setting] = {
    "tickTime": 500,
    "initLimit": 10,
    "syncLimit": 4,
    "maxClientCnxns": 0,
    "admin.enableServer": False,
    "4lw.commands.whitelist": "*",
    "reconfigEnabled": True,
    "standaloneEnabled": False,
    # 4 MB instead of 64 MB of preallocated log: a run folder is copied and attached to issues
    "preAllocSize": 4096,
}


def dynamic_config(topology: Topology) -> str:
    """The `server.N=` lines, with every address of each server if multi-address is on, else its first."""
    return "".join(f"server.{server.id}={_server_line(server, topology)}\n" for server in topology.servers)


def _server_line(server: Server, topology: Topology) -> str:
    nics = server.nics if topology.zookeeper.multi_address else server.nics[:1]
    ports = f"{topology.quorum_port(server)}:{topology.election_port(server)}"
    addresses = "|".join(f"{_known_by(server, nic, topology)}:{ports}" for nic in nics)
    return f"{addresses}:{server.role.value};0.0.0.0:{CLIENT_PORT}"


def _known_by(server: Server, nic: Nic, topology: Topology) -> str:
    """The address by which the servers know each other."""
    return str(topology.proxy_address(server, nic) if topology.proxies.servers else nic.address)


def static_config(topology: Topology, paths: ServerPaths | ServerFolder) -> str:
    """The text of zoo.cfg, with paths as the server sees them."""
    settings = {**DEFAULTS, **topology.zookeeper.settings}
    if topology.proxies.servers:
        # it is known by an address of its loopback, and the others' proxies come to its NIC
        settings["quorumListenOnAllIPs"] = True
    lines = [f"{key}={setting_text(value)}" for key, value in settings.items()]
    lines += [
        f"dataDir={paths.snapshot}",
        f"dataLogDir={paths.txnlog}",
        f"dynamicConfigFile={paths.config / 'zoo.cfg.dynamic'}",
    ]
    return "\n".join(lines) + "\n"


def setting_text(value: Setting) -> str:
    """A value as zoo.cfg has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_config(topology: Topology, server: Server, folder: ServerFolder, paths: ServerPaths | None = None) -> None:
    """Write a server's files into its folder; `paths` as the server sees them, None where it sees what we see."""
    folder.create()
    text = static_config(topology, paths or folder)
    (folder.config / "zoo.cfg").write_text(text, encoding="utf-8")
    (folder.config / "zoo.cfg.dynamic").write_text(dynamic_config(topology), encoding="utf-8")
    (folder.snapshot / "myid").write_text(f"{server.id}\n", encoding="ascii")


def system_properties(topology: Topology) -> tuple[str, ...]:
    """JVM arguments that zoo.cfg cannot replace.

    QuorumServer reads multiAddress.enabled only as a system property; in zoo.cfg alone it is refused with
    "Multiple address feature is disabled" (3.8.0 to 3.9.5).
    """
    enabled = str(topology.zookeeper.multi_address).lower()
    return (f"-Dzookeeper.multiAddress.enabled={enabled}",)

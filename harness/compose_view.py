"""What `zkchaos up` says when a topology is up: who is who, how to reach it, how to break it, how to end it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compose import project_name, published_port
from harness.compose_project import ServerThere
from harness.topology.model import CLIENT_PORT, Server, Topology


def how_to_use(topology: Topology, servers: Sequence[ServerThere], seconds: float) -> str:
    """The text, for a fixed-width font.

    Args:
        topology: what is up.
        servers: as they are now.
        seconds: how long it took to bring them up.
    """
    by_host = {server.host: server for server in servers}
    table: list[tuple[str, ...]] = [("server", "role", "addresses", "published", "container")]
    table += [_row(server, by_host.get(server.host)) for server in topology.servers]
    published = ",".join(_published(server) for server in topology.servers)
    lines = [
        f"{topology.name} is up after {seconds:.1f} s.",
        "",
        *_columns(table),
        "",
        f"  connect here     {published}",
        f"  on its networks  {topology.connection_string()}",
        *_one_way(topology),
        "",
        f"  break it         zkchaos attach {topology.name}",
        f"                   zkchaos fault switch-down {topology.switches[0].name} --for 10s",
        f"  look             docker compose --project-name {project_name(topology.name)} logs --follow",
        f"  end it           zkchaos down {topology.name}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _row(server: Server, there: ServerThere | None) -> tuple[str, ...]:
    role, container = (there.status.role, there.container) if there else ("missing", "")
    addresses = ", ".join(str(nic.address) for nic in server.nics)
    return server.host, role, f"{addresses} (port {CLIENT_PORT})", _published(server), container


def _one_way(topology: Topology) -> list[str]:
    if len(topology.switches) == 1:
        return []
    return ["                   (a published port leads over one switch, and the death of that one cuts it off)"]


def _published(server: Server) -> str:
    return f"127.0.0.1:{published_port(server)}"


def _columns(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]

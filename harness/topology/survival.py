"""What a topology predicts: with these parts dead, can a quorum form, and who reaches it?

Pure graph arithmetic on what is declared; nothing is measured. A majority of the participants counts as able to
work when any two of them share a living path, because leader election needs votes from a whole quorum at every
member and votes are not passed on. A report can so tell an outage that must be (the control experiment without
multi-address, NR-11) from one that should not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from harness.topology.model import ClientHost, Server, Topology


@dataclass(frozen=True)
class Survival:
    """What is left of an ensemble."""

    #: Whether a majority of the participants can reach each other.
    quorum: bool
    #: One sentence for the reader of a report, without a full stop.
    reason: str
    #: Ids of the largest set of participants that reach each other (of several, the one of the lowest ids), also where
    #: it is too small to be a quorum.
    members: tuple[int, ...]
    #: Ids of the servers that can serve clients: the members and whoever reaches all of them. Empty without a quorum.
    serving: tuple[int, ...]
    #: Client hosts that reach a serving server, and those that reach none, in the order of the topology.
    clients: tuple[str, ...]
    cut_off: tuple[str, ...]

    @property
    def undisturbed(self) -> bool:
        """Whether there is a quorum and every client host reaches it."""
        return self.quorum and not self.cut_off


def survives(
    topology: Topology,
    dead_switches: Collection[str] = frozenset(),
    dead_links: Collection[str] = frozenset(),
    dead_servers: Collection[int] = frozenset(),
) -> Survival:
    """Predict what is left of an ensemble when parts of it are dead at the same time.

    Args:
        topology: the whole, `multi_address` included: without it a server is known by its first address only.
        dead_switches: names of switches.
        dead_links: names of NICs, `zk2:net1` or `c1:net1`.
        dead_servers: ids of servers that are killed or paused.
    """
    network = _Living(topology, frozenset(dead_switches), frozenset(dead_links))
    alive = tuple(s for s in topology.servers if s.id not in dead_servers)
    participants = [s for s in topology.participants if s.id not in dead_servers]
    members = _largest_group(participants, network)
    needed = topology.quorum_size
    quorum = len(members) >= needed
    serving = tuple(s for s in alive if all(network.joined(s, m) for m in members)) if quorum else ()
    reached = tuple(c.name for c in topology.client_hosts if any(network.client_reaches(c, s) for s in serving))
    cut_off = tuple(c.name for c in topology.client_hosts if c.name not in reached)
    together = f"{_hosts(members)} reach each other" if len(members) > 1 else f"{_hosts(members)} is a quorum by itself"
    if not quorum:
        reason = f"no quorum: at most {len(members)} of {len(topology.participants)} participants reach each other"
        reason += f" ({_hosts(members)}), and {needed} are needed" if members else f", and {needed} are needed"
    elif cut_off:
        reason = f"{together}, but {', '.join(cut_off)} reaches no server of that quorum"
    else:
        reason = f"{together}, and every client host reaches {'them' if len(members) > 1 else 'it'}"
    return Survival(
        quorum=quorum,
        reason=reason,
        members=tuple(sorted(m.id for m in members)),
        serving=tuple(sorted(s.id for s in serving)),
        clients=reached,
        cut_off=cut_off,
    )


class _Living:
    """Which living paths are left between hosts."""

    def __init__(self, topology: Topology, dead_switches: frozenset[str], dead_links: frozenset[str]) -> None:
        self._multi_address = topology.zookeeper.multi_address
        self._dead_switches = dead_switches
        self._dead_links = dead_links

    def switches(self, host: Server | ClientHost) -> frozenset[str]:
        """The living switches that a host still has a living link to."""
        return frozenset(
            n.switch for n in host.nics if n.switch not in self._dead_switches and n.name not in self._dead_links
        )

    def joined(self, one: Server, other: Server) -> bool:
        """Whether two servers can connect to each other, either way round, by the addresses in their configuration."""
        if one.id == other.id:
            return True
        common = self.switches(one) & self.switches(other)
        if self._multi_address:
            return bool(common)
        return one.nics[0].switch in common and other.nics[0].switch in common

    def client_reaches(self, client: ClientHost, server: Server) -> bool:
        """Whether a client host has a path to a server; clients are given every address, multi-address or not."""
        return bool(self.switches(client) & self.switches(server))


def _largest_group(servers: list[Server], network: _Living) -> tuple[Server, ...]:
    """The largest set of servers that are pairwise joined; the lexicographically first of several.

    Exact, by branch and bound. A topology has at most 21 servers, and so at most 3**7 maximal groups.
    """
    ordered = sorted(servers, key=lambda s: s.id)
    neighbours = {s.id: frozenset(o.id for o in ordered if o.id != s.id and network.joined(s, o)) for s in ordered}
    best: tuple[int, ...] = ()
    pending: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), tuple(s.id for s in ordered))]
    while pending:
        group, candidates = pending.pop()
        if len(group) + len(candidates) <= len(best):
            continue
        if not candidates:
            best = group
            continue
        first, rest = candidates[0], candidates[1:]
        pending.append((group, rest))
        pending.append(((*group, first), tuple(c for c in rest if c in neighbours[first])))
    return tuple(s for s in ordered if s.id in best)


def _hosts(servers: tuple[Server, ...]) -> str:
    return ", ".join(s.host for s in servers)

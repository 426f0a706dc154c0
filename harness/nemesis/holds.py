"""What faults hold, so that overlapping faults heal right.

Two faults may hold the same thing: a dead switch also cuts the cables that a `link-down` has cut. A thing comes
back only when nobody holds it any more; each change is computed from all holds and applied in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from harness.testbed.handles import Link, Testbed
from harness.testbed.wire import Rule
from harness.topology.model import Topology
from harness.zookeeper.ensemble import Ensemble


class LinkHolds:
    """Which switches and cables are cut, and by which faults (by id)."""

    def __init__(self, testbed: Testbed, topology: Topology) -> None:
        self._testbed, self._topology = testbed, topology
        self._holds: dict[Link, set[int]] = {}

    def cut(self, fault: int, links: Iterable[Link]) -> None:
        """Cut, as one batch."""
        links = tuple(links)
        for link in links:
            self._holds.setdefault(link, set()).add(fault)
        self._testbed.set_links(links, up=False)

    def release(self, fault: int, links: Iterable[Link]) -> None:
        """Restore what nobody else holds. Idempotent."""
        freed = []
        for link in links:
            holders = self._holds.get(link, set())
            holders.discard(fault)
            if not holders:
                self._holds.pop(link, None)
                freed.append(link)
        switches = [link for link in freed if link.host is None]
        cables = [link for link in freed if link.host is not None and not self.is_cut(link)]
        # a switch brings all its ports up with it, but for those that are still cut
        still_cut = [link for link in self._holds if link.host is not None]
        self._testbed.set_links([*switches, *cables], up=True, but=still_cut)

    def held_by(self, fault: int, link: Link) -> bool:
        """Whether this fault itself holds this very switch or cable."""
        return fault in self._holds.get(link, set())

    def is_cut(self, link: Link, *, but: int | None = None) -> bool:
        """Whether any fault, except the one with the id `but`, holds this switch or cable, or the cable's switch."""
        holders = set(self._holds.get(link, set()))
        if link.host is not None:
            holders |= self._holds.get(Link(link.switch), set())
        return bool(holders - {but})


class RuleHolds:
    """Which packet filters hold, and for which faults (by id)."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._holds: dict[int, tuple[Rule, ...]] = {}

    def hold(self, fault: int, rules: Iterable[Rule]) -> None:
        """Let them hold too, in one batch."""
        self._holds[fault] = tuple(rules)
        self._apply()

    def release(self, fault: int) -> None:
        """Lift what no other fault holds. Idempotent."""
        self._holds.pop(fault, None)
        self._apply()

    def is_cut(self, host: str, source: str, *, but: int) -> bool:
        """Whether another fault has a filter on what comes from an address to a host, on whatever port."""
        others = (rule for fault, rules in self._holds.items() if fault != but for rule in rules)
        return any((rule.host, rule.source) == (host, source) for rule in others)

    def _apply(self) -> None:
        self._testbed.set_rules(list(dict.fromkeys(rule for rules in self._holds.values() for rule in rules)))


class Hold(Enum):
    """How a process fault holds a server."""

    DOWN = "down"
    PAUSED = "paused"


class ServerHolds:
    """Which servers are down or paused, and by which faults (by id)."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._holds: dict[int, dict[int, Hold]] = {}

    def hold(self, fault: int, server: int, how: Hold, *, gently: bool = False) -> None:
        """Take a server down (`gently`: by SIGTERM) or pause it."""
        self._holds.setdefault(server, {})[fault] = how
        if how is Hold.PAUSED:
            if self._ensemble.is_running(server):
                self._ensemble.pause(server)
        elif gently:
            self._ensemble.stop_server(server)
        else:
            self._ensemble.kill(server)

    def release(self, fault: int, server: int) -> None:
        """Bring a server back to what the remaining holds say. Idempotent."""
        self._holds.get(server, {}).pop(fault, None)
        left = set(self._holds.get(server, {}).values())
        if Hold.DOWN in left:
            return
        self._ensemble.start_server(server)
        if Hold.PAUSED in left:
            self._ensemble.pause(server)
        else:
            self._ensemble.resume(server)

    def held_by(self, fault: int, server: int) -> bool:
        """Whether this fault itself holds this server."""
        return fault in self._holds.get(server, {})

    def held(self, server: int, *, but: int | None = None) -> bool:
        """Whether any fault, except the one with the id `but`, holds this server."""
        return bool(self._holds.get(server, {}).keys() - {but})

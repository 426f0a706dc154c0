"""What faults hold, so that overlapping faults heal right.

Two faults may hold the same thing: a dead switch also cuts the cables that a `link-down` has cut. A thing comes
back only when nobody holds it any more; each change is computed from all holds and applied in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from harness.nemesis.packets import combine
from harness.testbed.handles import Link, Testbed
from harness.testbed.wire import Effects, Manner, Rule, Shape, Side
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
        return any((r.host, r.source) == (host, source) for r in others if r.manner is not Manner.LOSE)

    def _apply(self) -> None:
        held = [rule for rules in self._holds.values() for rule in rules]
        # of two that lose by chance each has its own; of two that cut, one is enough
        lossy = [rule for rule in held if rule.manner is Manner.LOSE]
        self._testbed.set_rules([*dict.fromkeys(r for r in held if r.manner is not Manner.LOSE), *lossy])


class ShapeHolds:
    """Which shapes packets have, and for which faults (by id).

    Loss is netem's; where the kernel has none, filters lose packets by chance.
    """

    def __init__(self, testbed: Testbed, topology: Topology, rules: RuleHolds) -> None:
        self._testbed, self._rules = testbed, rules
        self._holds: dict[int, tuple[Shape, ...]] = {}
        #: Faults whose loss is made by filters.
        self._filtered: set[int] = set()
        self._nics = {(nic.host, nic.switch): str(nic.address) for nic in topology.nics()}

    def hold(self, fault: int, shapes: Iterable[Shape]) -> None:
        """Let them hold too, in one batch.

        Raises:
            ValueError: they cannot hold beside those that do.
        """
        shapes = tuple(shapes)
        combine((*self.held(), *shapes))
        self._holds[fault] = shapes
        if any(s.effects.loss for s in shapes) and "netem" in self._testbed.lacking():
            self._filtered.add(fault)
            self._rules.hold(fault, self._lossy_rules(shapes))
        self._apply()

    def release(self, fault: int) -> None:
        """Undo what no other fault holds. Idempotent."""
        self._holds.pop(fault, None)
        if fault in self._filtered:
            self._rules.release(fault)
            self._filtered.discard(fault)
        self._apply()

    def held(self, *, but: int | None = None) -> tuple[Shape, ...]:
        """All of them, except those of the fault `but`."""
        return tuple(shape for fault, shapes in self._holds.items() if fault != but for shape in shapes)

    def ways_of(self, shape: Shape) -> list[tuple[str, str, str]]:
        """The paths that a shape is on: source, destination and switch."""
        others = [
            host
            for (host, switch), address in self._nics.items()
            if switch == shape.switch and host != shape.host and shape.peer in (None, address)
        ]
        if shape.side is Side.OUT:
            return [(shape.host, other, shape.switch) for other in others]
        return [(other, shape.host, shape.switch) for other in others]

    def on_path(self, source: str, destination: str, switch: str, *, but: int | None = None) -> list[Effects]:
        """What packets suffer on a path, one after the other; except from the fault `but`."""
        return [s.effects for s in self.held(but=but) if (source, destination, switch) in self.ways_of(s)]

    def _apply(self) -> None:
        queued = [
            msgspec.structs.replace(s, effects=_without_loss(s.effects)) if fault in self._filtered else s
            for fault, shapes in self._holds.items()
            for s in shapes
        ]
        self._testbed.set_shapes(combine(s for s in queued if s.effects != Effects()))

    def _lossy_rules(self, shapes: Iterable[Shape]) -> list[Rule]:
        return [
            Rule(destination, self._nics[source, switch], Manner.LOSE, share=shape.effects.loss)
            for shape in shapes
            if shape.effects.loss
            for source, destination, switch in self.ways_of(shape)
        ]


def _without_loss(effects: Effects) -> Effects:
    return msgspec.structs.replace(effects, loss=0.0)


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

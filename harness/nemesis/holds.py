"""What faults hold, so that overlapping faults heal right.

Two faults may hold the same thing: a dead switch also cuts the cables that a `link-down` has cut. A thing comes
back only when nobody holds it any more; each change is computed from all holds and applied in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from harness.nemesis.packets import combine
from harness.testbed.handles import Limits, Link, Testbed
from harness.testbed.wire import Effects, Manner, Rule, Shape, Side
from harness.topology.model import Topology
from harness.zookeeper.ensemble import Ensemble


class LinkHolds:
    """Which switches and cables are cut, or are now and then, and by which faults (by id)."""

    def __init__(self, testbed: Testbed, topology: Topology) -> None:
        self._testbed, self._topology = testbed, topology
        self._holds: dict[Link, set[int]] = {}
        self._restless: dict[int, set[Link]] = {}

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
        cables = [link for link in freed if link.host is not None and not self._holders(link)]
        # a switch brings all its ports up with it, but for those that are still cut
        still_cut = [link for link in self._holds if link.host is not None]
        self._testbed.set_links([*switches, *cables], up=True, but=still_cut)

    def stir(self, fault: int, links: Iterable[Link]) -> None:
        """From now on this fault cuts and restores them as it pleases; nothing is changed yet."""
        self._restless.setdefault(fault, set()).update(links)

    def calm(self, fault: int) -> None:
        """Restore whatever this fault holds; it does so no more. Idempotent."""
        self.release(fault, self._restless.get(fault, set()))
        self._restless.pop(fault, None)

    def held_by(self, fault: int, link: Link) -> bool:
        """Whether this fault itself holds this very switch or cable."""
        return fault in self._holds.get(link, set())

    def is_cut(self, link: Link, *, but: int | None = None) -> bool:
        """Whether any fault, except the one with the id `but`, holds this switch or cable, or the cable's switch.

        What a fault cuts and restores as it pleases counts as cut: nobody can say what it was a moment ago.
        """
        places = {link, Link(link.switch)}
        restless = {fault for fault, links in self._restless.items() if links & places}
        return bool((self._holders(link) | restless) - {but})

    def is_dead(self, link: Link, *, but: int) -> bool:
        """Whether another fault holds it, or its switch, all the time; a restless one does not."""
        restless = {fault for fault, links in self._restless.items() if links & {link, Link(link.switch)}}
        return bool(self._holders(link) - restless - {but})

    def _holders(self, link: Link) -> set[int]:
        """Who holds it now, or its switch."""
        return self._holds.get(link, set()) | self._holds.get(Link(link.switch), set())


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
        # the testbed sees which of them say the same; of two that lose by chance, each has its own
        self._testbed.set_rules([rule for rules in self._holds.values() for rule in rules])


#: What is left for a queue to do where filters do it all.
_NOTHING = Effects()


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
        if self._holds:
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
        self._testbed.set_shapes(combine(s for s in queued if s.effects != _NOTHING))

    def _lossy_rules(self, shapes: Iterable[Shape]) -> list[Rule]:
        return [
            Rule(destination, self._nics[source, switch], Manner.LOSE, share=shape.effects.loss)
            for shape in shapes
            if shape.effects.loss
            for source, destination, switch in self.ways_of(shape)
        ]


def _without_loss(effects: Effects) -> Effects:
    return msgspec.structs.replace(effects, loss=0.0)


class LimitHolds:
    """What servers' processes get of the machine, and which faults (by id) let them have no more."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._holds: dict[str, dict[int, Limits]] = {}

    def hold(self, fault: int, host: str, limits: Limits) -> None:
        """Let the processes of a server's host have no more than that. Of several limits the least holds."""
        self._holds.setdefault(host, {})[fault] = limits
        self._apply(host)

    def release(self, fault: int, host: str) -> None:
        """Let them have what the remaining holds say. Idempotent."""
        if host in self._holds:
            self._holds[host].pop(fault, None)
            self._apply(host)

    def held(self, host: str, *, but: int) -> tuple[Limits, ...]:
        """The limits of all faults but one."""
        return tuple(limits for fault, limits in self._holds.get(host, {}).items() if fault != but)

    def _apply(self, host: str) -> None:
        held = self._holds[host].values()
        cpu = min((limits.cpu for limits in held if limits.cpu is not None), default=None)
        memory = min((limits.memory for limits in held if limits.memory is not None), default=None)
        self._testbed.limit(host, Limits(cpu, memory))


class Hold(Enum):
    """How a process fault holds a server."""

    DOWN = "down"
    PAUSED = "paused"
    #: It is up or down, answers or not, as the fault pleases; see `ServerHolds.strike`.
    RESTLESS = "restless"


class ServerHolds:
    """Which servers are down, paused or restless, and by which faults (by id)."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._holds: dict[int, dict[int, Hold]] = {}

    def hold(self, fault: int, server: int, how: Hold, *, gently: bool = False) -> None:
        """Take a server down (`gently`: by SIGTERM) or pause it; where it is restless, the fault itself does more."""
        self._holds.setdefault(server, {})[fault] = how
        if how is Hold.RESTLESS:
            return
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
        self.restore(server)

    def strike(self, server: int) -> None:
        """Kill a server that is restless; whoever does so restores it."""
        self._ensemble.kill(server)

    def restore(self, server: int) -> None:
        """Bring a server to what its holds say: up, unless one of them has it down. Idempotent."""
        left = self.kinds(server)
        if Hold.DOWN in left:
            return
        self._ensemble.start_server(server)
        if Hold.PAUSED in left:
            self._ensemble.pause(server)
        else:
            self._ensemble.resume(server)

    def kinds(self, server: int, *, but: int | None = None) -> set[Hold]:
        """How faults, except the one with the id `but`, hold this server."""
        return {how for fault, how in self._holds.get(server, {}).items() if fault != but}

    def held_by(self, fault: int, server: int) -> bool:
        """Whether this fault itself holds this server."""
        return fault in self._holds.get(server, {})

    def held(self, server: int, *, but: int | None = None) -> bool:
        """Whether any fault, except the one with the id `but`, holds this server."""
        return bool(self._holds.get(server, {}).keys() - {but})

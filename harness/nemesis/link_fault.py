"""Switches and cables without carrier, and the datagrams that prove it."""

from __future__ import annotations

from harness.history.records import Measurement
from harness.nemesis.targets import link_parts
from harness.nemesis.world import Fault, Probe, World, path_measurement
from harness.testbed.handles import Link
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import Path


class LinkFault(Fault):
    """A dead switch, or a cut cable."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        host, switch = link_parts(target) if kind == "link-down" else (None, target)
        self._link, self._world = Link(switch, host), world

    def inject(self) -> None:
        """Take the carrier away, in one batch."""
        self._world.links.cut(self.id, [self._link])

    def heal(self) -> None:
        """Give the carrier back."""
        self._world.links.release(self.id, [self._link])

    def probe(self) -> Probe:
        """Send datagrams over every path of the link, and over all others for comparison.

        Where a server is a container, a killed one has no NICs; its paths say nothing of this fault.
        """
        reached = self._world.reach(self._world.topology.switch_names)
        paths = [p for p in reached if p.error != HOST_DOWN]
        mine = [p for p in paths if self._uses(p)]
        others = [p for p in paths if not self._uses(p) and not self._held_by_others(p)]
        measured = [p for p in mine if not self._held_by_others(p)]
        measurements = tuple(path_measurement(p) for p in measured)
        if not measured:
            return self._by_kernel_state()
        answered = sum(p.micros is not None for p in measured)
        rest = f"; elsewhere {sum(p.micros is not None for p in others)} of {len(others)}" if others else ""
        summary = f"{answered} of {len(measured)} paths over {self._link.name} answer{rest}"
        bites = {0: True, len(measured): False}.get(answered)
        return Probe(bites, summary, measurements)

    def _uses(self, path: Path) -> bool:
        same_switch = path.switch == self._link.switch
        return same_switch and self._link.host in (None, path.source, path.destination)

    def _held_by_others(self, path: Path) -> bool:
        return self._world.holds_path(path, but=self.id)

    def _by_kernel_state(self) -> Probe:
        """Where other faults hold every path, only the kernel's own word is left: the link is down or it is not.

        A link that others keep down is as dead as this fault wants it; once this one has let go, it is not to blame.
        """
        links = self._world.links
        if links.is_cut(self._link, but=self.id) and not links.held_by(self.id, self._link):
            found = Measurement(self._link.name, "held by another fault", healthy=True)
            return Probe(False, f"{self._link.name} is held by another fault; this one has let go", (found,))
        for state in self._world.testbed.link_states():
            if (state.switch, state.host) == (self._link.switch, self._link.host):
                found = Measurement(self._link.name, "up" if state.up else "down", healthy=state.up)
                return Probe(not state.up, f"the kernel says that {self._link.name} is {found.found}", (found,))
        return Probe(None, f"there is no path over {self._link.name} to measure")

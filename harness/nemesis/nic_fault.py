"""A NIC that its own host has set down: it sends nothing, hears nothing, and unlike one whose cable is cut, knows it.

What a host sends by such a NIC is refused at once, instead of lost. Its addresses stay, and routes come back.
"""

from __future__ import annotations

import errno

from harness.history.records import Measurement
from harness.nemesis.targets import link_parts
from harness.nemesis.world import Fault, Probe, World, path_measurement
from harness.testbed.handles import Link
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import Path

#: What a host says of a packet that has to leave by a NIC that is down.
_REFUSED = errno.errorcode[errno.ENETUNREACH]


class NicFault(Fault):
    """One NIC that is down in its host."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._host, switch = link_parts(target)
        self._nic, self._world = Link(switch, self._host), world

    def inject(self) -> None:
        """Set it down."""
        self._world.nics.hold(self.id, self._nic)

    def heal(self) -> None:
        """Set it up."""
        self._world.nics.release(self.id, self._nic)

    def probe(self) -> Probe:
        """Send datagrams from it and to it: its host refuses those, and nobody hears these.

        Where other faults hold a path, it is only seen whether its host refuses.
        """
        nics = self._world.nics
        if nics.is_down(self._nic, but=self.id) and not nics.held_by(self.id, self._nic):
            found = Measurement(self._nic.name, "held by another fault", healthy=True)
            return Probe(False, f"{self._nic.name} is held by another fault; this one has let go", (found,))
        paths = [p for p in self._world.reach([self._nic.switch]) if p.error != HOST_DOWN]
        mine = [p for p in paths if self._host in (p.source, p.destination)]
        others = [p for p in paths if p not in mine and not self._world.holds_path(p, but=self.id)]
        kernel = self._in_kernel()
        if not mine:
            return Probe(not kernel.healthy, f"the kernel says that {self._nic.name} is {kernel.found}", (kernel,))
        refused = [p.error == _REFUSED for p in mine if p.source == self._host]
        free = [p for p in mine if not self._world.holds_path(p, but=self.id)]
        answered = sum(p.micros is not None for p in mine)
        rest = f"; elsewhere {sum(p.micros is not None for p in others)} of {len(others)}" if others else ""
        summary = (
            f"{self._nic.name} is {kernel.found}: its host refuses to send on {sum(refused)} of {len(refused)} paths, "
            f"and {answered} of {len(mine)} answer{rest}"
        )
        bites: bool | None = None
        if all(refused) and not answered and not kernel.healthy:
            bites = True
        elif kernel.healthy and not any(refused) and all(p.micros is not None for p in free):
            bites = False
        return Probe(bites, summary, (kernel, *(path_measurement(p) for p in _shown(mine, free, refused))))

    def _in_kernel(self) -> Measurement:
        (state,) = (s for s in self._world.testbed.nic_states([self._nic.switch]) if s.host == self._host)
        return Measurement(f"{self._nic.name} in its host", "up" if state.up else "down", healthy=state.up)


def _shown(mine: list[Path], free: list[Path], refused: list[bool]) -> list[Path]:
    """What this fault shows in: what its host refuses, else the paths that no other fault holds."""
    return mine if any(refused) else free

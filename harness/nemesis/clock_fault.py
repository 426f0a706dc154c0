"""To be written."""

from __future__ import annotations

from harness.nemesis.world import Fault, Probe, World


class ClockFault(Fault):
    """To be written."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._world = world
        raise NotImplementedError(kind)

    def inject(self) -> None:
        """Break it."""
        raise NotImplementedError

    def heal(self) -> None:
        """Mend it. Idempotent."""
        raise NotImplementedError

    def probe(self) -> Probe:
        """Measure whether it bites now."""
        raise NotImplementedError

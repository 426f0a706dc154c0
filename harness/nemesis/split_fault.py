"""A switch in islands, and the proof: nothing passes between two of them, be it said to one or to all.

See `harness.testbed.islands` for how it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.errors import KernelLacking
from harness.history.records import Measurement
from harness.nemesis import islands
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.plan import Step
from harness.nemesis.targets import target_parts
from harness.nemesis.world import Fault, Probe, World, path_measurement
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import Path, Split


class SplitFault(Fault):
    """A switch whose ports are on two islands or more."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        switch, manner = target_parts(Aim.SPLIT, target)
        self._split = Split(switch, islands.parse(manner, switch, world.topology))
        self._world = world

    def inject(self) -> None:
        """Split it, in one transaction.

        Raises:
            KernelLacking: this kernel has no filters for bridges.
        """
        _refuse(self._world.testbed.lacking(), self.name)
        self._world.splits.hold(self.id, self._split)

    def heal(self) -> None:
        """Let frames pass again."""
        self._world.splits.release(self.id)

    def probe(self) -> Probe:
        """Send datagrams over every path of the switch, and broadcasts, which are what hosts find each other by."""
        switch = self._split.switch
        said_to_one = [p for p in self._world.reach([switch]) if p.error != HOST_DOWN]
        heard = {
            (p.source, p.destination)
            for p in self._world.reach([switch], broadcast=True)
            if p.micros is not None and self._parts(p)
        }
        across = [p for p in said_to_one if self._parts(p)]
        mine = [p for p in across if not self._world.holds_path(p, but=self.id)]
        within = [p for p in said_to_one if not self._parts(p) and not self._world.holds_path(p, but=self.id)]
        leaks = len(heard | {(p.source, p.destination) for p in across if p.micros is not None})
        if not mine:
            return self._by_hidden(leaks)
        answered = sum(p.micros is not None for p in mine)
        all_heard = sum((p.source, p.destination) in heard for p in mine)
        whole = all(p.micros is not None for p in within)
        rest = f"; within them {sum(p.micros is not None for p in within)} of {len(within)}" if within else ""
        summary = (
            f"{answered} of {len(mine)} paths between the islands of {switch} answer, and {all_heard} carry what is "
            f"said to all{rest}"
        )
        bites: bool | None = None
        if not leaks and whole:
            bites = True
        elif answered == all_heard == len(mine):
            bites = False
        broadcasts = Measurement(
            f"broadcasts between the islands of {switch}",
            f"{all_heard} of {len(mine)} arrive",
            healthy=all_heard == len(mine),
        )
        return Probe(bites, summary, (*(path_measurement(p) for p in (*mine, *within)), broadcasts))

    def _by_hidden(self, leaks: int) -> Probe:
        """Where other faults hold every path between the islands, what passes there all the same is all there is."""
        if not self._world.splits.held_by(self.id):
            return Probe(False, "other faults hold every path between the islands; this one has let go")
        return Probe(not leaks, f"other faults hold every path between the islands; {leaks} pass something")

    def _parts(self, path: Path) -> bool:
        return self._split.parts(path.switch, path.source, path.destination)


def refuse_steps(steps: Iterable[Step], lacking: Callable[[], Mapping[str, str]]) -> None:
    """Refuse a schedule that splits a switch, where this kernel cannot. To be called before anything is broken.

    Raises:
        KernelLacking: with the kernel's words and the next step.
    """
    for step in steps:
        if KINDS[step.fault].aim is Aim.SPLIT:
            _refuse(lacking(), f"{step.fault} {step.target}")


def _refuse(lacking: Mapping[str, str], where: str) -> None:
    if "bridge" in lacking:
        raise KernelLacking(
            "this kernel has no nftables for bridges, which the fault is made of",
            where=where,
            cause=f"it says: {lacking['bridge']}",
            next_step="`zkchaos usermode -- zkchaos run ...` runs it in a kernel that has it",
        )

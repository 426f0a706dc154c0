"""What faults hold of hosts' own ends of cables and of the ports of switches, so that overlapping faults heal right."""

from __future__ import annotations

from harness.testbed.handles import Link, Testbed
from harness.testbed.wire import Split


class NicHolds:
    """Which hosts' own ends of cables are set down, and by which faults (by id).

    Whether a cable is cut is another matter: the kernel gives a carrier where both ends are up.
    """

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._holds: dict[Link, set[int]] = {}

    def hold(self, fault: int, nic: Link) -> None:
        """Set it down."""
        self._holds.setdefault(nic, set()).add(fault)
        self._testbed.set_nics([nic], up=False)

    def release(self, fault: int, nic: Link) -> None:
        """Set it up, unless another fault holds it. Idempotent."""
        holders = self._holds.get(nic, set())
        holders.discard(fault)
        if not holders:
            self._holds.pop(nic, None)
            self._testbed.set_nics([nic], up=True)

    def held_by(self, fault: int, nic: Link) -> bool:
        """Whether this fault itself holds it."""
        return fault in self._holds.get(nic, set())

    def is_down(self, nic: Link, *, but: int | None = None) -> bool:
        """Whether any fault, except the one with the id `but`, holds it."""
        return bool(self._holds.get(nic, set()) - {but})


class SplitHolds:
    """Which switches have fallen into islands, and by which faults (by id)."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._holds: dict[int, Split] = {}

    def hold(self, fault: int, split: Split) -> None:
        """Let it hold too, in one batch with those that do; of two of one switch a frame must pass both."""
        self._holds[fault] = split
        self._testbed.set_splits(tuple(self._holds.values()))

    def release(self, fault: int) -> None:
        """Lift it. Idempotent."""
        self._holds.pop(fault, None)
        self._testbed.set_splits(tuple(self._holds.values()))

    def held_by(self, fault: int) -> bool:
        """Whether this fault holds anything."""
        return fault in self._holds

    def parts(self, switch: str, one: str, other: str, *, but: int) -> bool:
        """Whether another fault has put two hosts of a switch on different islands."""
        return any(split.parts(switch, one, other) for fault, split in self._holds.items() if fault != but)

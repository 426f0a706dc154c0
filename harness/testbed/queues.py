"""The queues of all NICs: what shall become of packets, and the interfaces on which that is made so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.testbed import kernel, wire
from harness.testbed.shaping import Shaper, remove
from harness.testbed.spaces import Cable, Space

#: Finds the interface that packets leave by, and its namespace; None while it is not there.
WayOut = Callable[[Cable, wire.Side], tuple[Space, int] | None]


class Queues:
    """Remembers what is wanted, so that a container that starts meanwhile gets it, too.

    Args:
        way_out: finds interfaces.
    """

    def __init__(self, way_out: WayOut) -> None:
        self._way_out = way_out
        self._wanted: dict[tuple[Cable, wire.Side], dict[str | None, wire.Effects]] = {}
        self._shapers: dict[tuple[Cable, wire.Side], Shaper] = {}

    def want(self, shapes: Iterable[wire.Shape]) -> None:
        """From now on, these and no others; nothing is changed before `apply`."""
        self._wanted = {}
        for shape in shapes:
            key = ((shape.host, shape.switch), shape.side)
            self._wanted.setdefault(key, {})[shape.peer] = shape.effects

    def apply(self, cable: Cable) -> None:
        """Let both sides of a NIC have what is wanted, if it is there.

        Raises:
            NetlinkError: the kernel refused, or the interface has just gone.
        """
        for side in wire.Side:
            key = (cable, side)
            if key not in self._wanted and key not in self._shapers:
                continue
            if (found := self._way_out(cable, side)) is None:
                continue
            if key not in self._shapers:
                space, index = found
                self._shapers[key] = Shaper(space.netlink, index, side)
            self._shapers[key].set(self._wanted.get(key, {}))

    def forget(self, cable: Cable) -> None:
        """A NIC has gone, and its queues with it."""
        for side in wire.Side:
            self._shapers.pop((cable, side), None)

    def restore(self) -> None:
        """Give every interface its own queue back, in whatever thread; raises nothing."""
        for cable, side in list(self._shapers):
            if (found := self._way_out(cable, side)) is None:
                continue
            space, index = found
            kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
            with IPRoute() as netlink, contextlib.suppress(NetlinkError):
                remove(netlink, index)

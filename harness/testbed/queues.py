"""The queues of all NICs: what shall become of packets, and the interfaces on which that is made so."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable

from harness.testbed import wire
from harness.testbed.netlink import Channel, Message
from harness.testbed.shaping import Shaper, remove
from harness.testbed.spaces import Cable, Space

#: One direction through a NIC.
_Way = tuple[Cable, wire.Side]
_UNTOUCHED: dict[str | None, wire.Effects] = {}
#: Finds the interface that packets leave by, and its namespace; None while it is not there.
WayOut = Callable[[Cable, wire.Side], tuple[Space, int] | None]


class Queues:
    """Remembers what is wanted, so that a container that starts meanwhile gets it, too.

    Args:
        way_out: finds interfaces.
    """

    def __init__(self, way_out: WayOut) -> None:
        self._way_out = way_out
        self._wanted: dict[_Way, dict[str | None, wire.Effects]] = {}
        self._shapers: dict[_Way, Shaper] = {}

    def want(self, shapes: Iterable[wire.Shape]) -> None:
        """From now on, these and no others; nothing is changed before `apply`."""
        self._wanted = {}
        for shape in shapes:
            key = ((shape.host, shape.switch), shape.side)
            self._wanted.setdefault(key, {})[shape.peer] = shape.effects

    def apply(self, only: str | None = None) -> set[str]:
        """Let all NICs (or those of one host) have what is wanted, as far as they are there.

        Those whose way out is in one namespace, as of all that a switch does, are changed by one call.

        Returns:
            The hosts that have gone meanwhile.

        Raises:
            OSError: the kernel refused.
        """
        batches: dict[Channel, tuple[list[Message], list[_Way]]] = {}
        # a fault may mean a hundred of them: nothing is done for each that could be done once
        for way in {**self._wanted, **self._shapers}:
            cable, side = way
            if (only is not None and only != cable[0]) or (found := self._way_out(cable, side)) is None:
                continue
            space, index = found
            if (shaper := self._shapers.get(way)) is None:
                shaper = self._shapers[way] = Shaper(index, side)
            if messages := shaper.change(self._wanted.get(way, _UNTOUCHED)):
                batch, ways = batches.setdefault(space.route, ([], []))
                batch += messages
                ways += [way] * len(messages)
        gone: set[str] = set()
        for channel, (batch, ways) in batches.items():
            refused = {ways[r.index]: r for r in reversed(channel.send(batch))}
            for way in dict.fromkeys(ways):
                if not refused or way not in refused:
                    self._shapers[way].changed()
                elif refused[way].errno == errno.ENODEV:
                    gone.add(way[0][0])
                else:
                    raise refused[way]
        return gone

    def forget(self, cable: Cable) -> None:
        """A NIC has gone, and its queues with it."""
        for side in wire.Side:
            self._shapers.pop((cable, side), None)

    def restore(self) -> None:
        """Give every interface its own queue back, in whatever thread; raises nothing."""
        for way in list(self._shapers):
            if (found := self._way_out(*way)) is not None:
                space, index = found
                with contextlib.suppress(OSError):
                    space.route.send([remove(index)])

"""One measurement after the other: the sockets that trains start from and arrive at, and who is under way."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.spaces import Cable
from harness.testbed.trains import MAX_DATAGRAMS, SIZES, Measurement, Track


class Measurer:
    """Sends trains, in a thread of their own, and keeps what became of the last ones.

    Args:
        open_socket: makes the socket of a NIC; None while its host is down.
    """

    def __init__(self, open_socket: Callable[[Cable], socket.socket | None]) -> None:
        self._open_socket = open_socket
        self._sockets: dict[Cable, socket.socket] = {}
        self._current: Measurement | None = None
        self._count = 0

    def start(self, request: wire.StartTrains, addresses: Mapping[Cable, str]) -> None:
        """Begin; an earlier measurement is waited for.

        Raises:
            TestbedError: more, smaller or larger datagrams are asked for than can be sent.
        """
        if sum(train.count for train in request.trains) > MAX_DATAGRAMS:
            raise TestbedError(f"a measurement takes at most {MAX_DATAGRAMS} datagrams")
        for train in request.trains:
            if not SIZES[0] <= train.size <= SIZES[1]:
                raise TestbedError(f"a datagram has from {SIZES[0]} to {SIZES[1]} bytes", where=f"{train.size} bytes")
        self._finish()
        self._count = (self._count + 1) & 0xFFFFFFFF
        tracks = []
        for train in request.trains:
            source, destination = (train.source, train.switch), (train.destination, train.switch)
            tracks.append(Track(train, self._socket(source), self._socket(destination), addresses[destination]))
        self._current = Measurement(self._count, tracks, request)

    def arrivals(self) -> tuple[wire.Arrivals, ...] | None:
        """What became of them; None while they are on their way.

        Raises:
            TestbedError: nothing was sent.
        """
        if self._current is None:
            raise TestbedError("no datagrams were sent")
        return self._current.arrivals()

    def forget(self, cable: Cable) -> None:
        """A NIC has gone."""
        if (old := self._sockets.pop(cable, None)) is not None:
            self._finish()
            old.close()

    def _finish(self) -> None:
        if self._current is not None:
            self._current.stop()

    def _socket(self, cable: Cable) -> socket.socket | None:
        if cable not in self._sockets:
            opened = self._open_socket(cable)
            if opened is None:
                return None
            self._sockets[cable] = opened
        return self._sockets[cable]

"""Trains of numbered datagrams: how long each takes, and which are lost, doubled, damaged or overtaken.

Departure is the moment before it is sent; arrival is the kernel's own time stamp, so a busy receiver delays nothing.
Each datagram ends in a checksum of its own; UDP's is left out, so that damaged ones are seen and not just missed.
"""

from __future__ import annotations

import errno
import heapq
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.testbed import wire

#: UDP port; beside that of `reach`.
PORT = 7078
#: Most datagrams of one measurement.
MAX_DATAGRAMS = 100_000
_HEADER = struct.Struct(">IHI")
_CHECKSUM = struct.Struct(">I")
#: The smallest and the largest datagram.
SIZES = (_HEADER.size + _CHECKSUM.size, 8000)
#: Bytes that may wait in a socket: half a second of delay holds thousands of datagrams.
_BUFFER = 16 * 2**20
#: From Linux's headers; Python has no names for them.
_SO_NO_CHECK, _SO_TIMESTAMPNS, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 11, 35, 32, 33
_TIMESPEC = struct.Struct("=qq")
_SPACE = socket.CMSG_SPACE(_TIMESPEC.size)
#: How many are sent before it is looked at what has arrived, and how many are taken at once.
_SEND_AT_ONCE, _TAKE_AT_ONCE = 16, 64


def train_socket(interface: str, address: str) -> socket.socket:
    """A socket for one NIC; to be made while the thread stands on its host."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    for option, value in (
        (_SO_NO_CHECK, 1),
        (_SO_TIMESTAMPNS, 1),
        (_SO_SNDBUFFORCE, _BUFFER),
        (_SO_RCVBUFFORCE, _BUFFER),
    ):
        try:
            opened.setsockopt(socket.SOL_SOCKET, option, value)
        except PermissionError:  # buffers as large as they may be without the capability
            plain = {_SO_SNDBUFFORCE: socket.SO_SNDBUF, _SO_RCVBUFFORCE: socket.SO_RCVBUF}[option]
            opened.setsockopt(socket.SOL_SOCKET, plain, value)
    opened.bind((address, PORT))
    return opened


@dataclass
class Track:
    """A train, the sockets at its two ends (None: that host is down), and what became of it so far."""

    train: wire.Train
    source: socket.socket | None
    destination: socket.socket | None
    address: str
    error: str = ""
    sent: list[int] = field(default_factory=list)
    arrived: dict[int, int] = field(default_factory=dict)
    duplicates: int = 0
    damaged: int = 0

    def arrivals(self, start: int) -> wire.Arrivals:
        """What became of it."""
        micros = tuple(
            (self.arrived[number] - at) / 1000 if number in self.arrived else None
            for number, at in enumerate(self.sent)
        )
        sent = tuple((at - start) / 1000 for at in self.sent)
        return wire.Arrivals(sent, micros, self.duplicates, self.damaged, self.error)


class Measurement:
    """Trains under way, in a thread of its own."""

    def __init__(self, run: int, tracks: Sequence[Track], request: wire.StartTrains) -> None:
        self._run, self._tracks = run, list(tracks)
        self._timeout_ns, self._linger_ns = round(request.timeout_ms * 1e6), round(request.linger_ms * 1e6)
        self._limit_ns = round(request.limit_ms * 1e6)
        self._start = 0
        self._problem: OSError | None = None
        self._sockets = {t.destination.fileno(): t.destination for t in self._tracks if t.destination is not None}
        self._thread = threading.Thread(target=self._work, name="trains", daemon=True)
        self._thread.start()

    def arrivals(self) -> tuple[wire.Arrivals, ...] | None:
        """What became of all trains; None while they are under way.

        Raises:
            OSError: a socket failed in an unforeseen way.
        """
        if self._thread.is_alive():
            return None
        if self._problem is not None:
            raise self._problem
        return tuple(track.arrivals(self._start) for track in self._tracks)

    def stop(self) -> None:
        """Wait for the end of it, which is near."""
        self._thread.join()

    def _work(self) -> None:
        try:
            self._send_and_receive()
        except OSError as problem:
            self._problem = problem

    def _send_and_receive(self) -> None:
        poller = select.poll()
        for descriptor in self._sockets:
            poller.register(descriptor, select.POLLIN)
        for track in self._tracks:
            if track.source is None or track.destination is None:
                track.error = errno.errorcode[errno.EHOSTDOWN]
        start = time.monotonic_ns()
        self._start = time.time_ns()
        due = [(start, number) for number, track in enumerate(self._tracks) if track.train.count and not track.error]
        heapq.heapify(due)
        while due and time.monotonic_ns() - start < self._limit_ns:
            for _ in range(_SEND_AT_ONCE):
                if not due or due[0][0] > time.monotonic_ns():
                    break
                moment, number = heapq.heappop(due)
                track = self._tracks[number]
                if self._send(number, track) and len(track.sent) < track.train.count:
                    heapq.heappush(due, (moment + round(track.train.gap_us * 1000), number))
            wait = max(0, due[0][0] - time.monotonic_ns()) if due else 0
            self._take(poller, wait)
        self._await_rest(poller)

    def _await_rest(self, poller: select.poll) -> None:
        end = time.monotonic_ns() + self._timeout_ns
        while self._missing() and (left := end - time.monotonic_ns()) > 0:
            self._take(poller, left)
        end = min(end, time.monotonic_ns() + self._linger_ns)
        while (left := end - time.monotonic_ns()) > 0:
            self._take(poller, left)

    def _missing(self) -> bool:
        return any(len(track.arrived) + track.damaged < len(track.sent) for track in self._tracks)

    def _send(self, number: int, track: Track) -> bool:
        """Send the next one; False where nothing can be sent at all."""
        body = _HEADER.pack(self._run, number, len(track.sent))
        body += bytes(max(0, track.train.size - len(body) - _CHECKSUM.size))
        at = time.time_ns()
        try:
            assert track.source is not None, "those without were left out"
            track.source.sendto(body + _CHECKSUM.pack(zlib.crc32(body)), (track.address, PORT))
        except BlockingIOError:
            return True  # its buffer is full; it comes again when it is due next
        except OSError as problem:
            track.error = errno.errorcode.get(problem.errno or 0, str(problem.errno))
            return False
        track.sent.append(at)
        return True

    def _take(self, poller: select.poll, wait_ns: int) -> None:
        """Wait for what arrives, for a while at most, and take it."""
        for descriptor, _event in poller.poll(wait_ns / 1e6):
            for _ in range(_TAKE_AT_ONCE):
                try:
                    body, ancillary, _flags, _sender = self._sockets[descriptor].recvmsg(SIZES[1], _SPACE)
                except BlockingIOError:
                    break
                except OSError:  # the answer to an earlier datagram ("no route to host"); the next read goes on
                    continue
                self._note(body, _stamp(ancillary))

    def _note(self, body: bytes, at: int) -> None:
        if len(body) < SIZES[0]:
            return
        run, number, place = _HEADER.unpack_from(body)
        if run != self._run or number >= len(self._tracks):
            return  # of an earlier measurement, or damaged beyond recognition: then it counts as lost
        track = self._tracks[number]
        if _CHECKSUM.unpack_from(body, len(body) - _CHECKSUM.size)[0] != zlib.crc32(body[: -_CHECKSUM.size]):
            track.damaged += 1
        elif place in track.arrived:
            track.duplicates += 1
        else:
            track.arrived[place] = at


def _stamp(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()

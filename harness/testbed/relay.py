"""Carries the connection to an agent, and the sockets that the agent hands over, over one stream of bytes.

Caller and agent speak over a Unix socket, which carries descriptors. To an agent in a container there is but the
container's standard input and output. So a `Relay` stands at each end of those, and neither side notices:

    caller == Unix socket == Relay -- bytes -- Relay == Unix socket == agent

A descriptor that the agent hands over stays with the relay at its side. The caller's relay hands over one end of a
socket pair instead, and what is written to either travels in frames of its own, in both directions, up to an end
of file for each.

A frame is its kind (1 byte), the number of the stream that it belongs to and the length of its payload (4 bytes
each, big-endian), and the payload. Of each stream no more than `WINDOW` bytes travel until the other side has
passed them on, so whoever does not read stops that one stream and nothing else, and memory is bounded.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Protocol

from harness.testbed import wire

#: How many bytes of a stream may be on their way, and are kept at most where nobody reads them.
WINDOW = 256 * 1024
#: Streams at a time; a load has one for each session.
MAX_STREAMS = 4096
#: The payload of a frame of data: small, so that a request never waits for long behind one.
_PIECE = 32 * 1024
#: With so many bytes waiting to be sent, the streams wait.
_ENOUGH = 64 * 1024
#: How long the last words of an agent that ended may take, seconds.
_FAREWELL = 5.0
_HEADER = struct.Struct(">BII")
_AMOUNT = struct.Struct(">I")


class Kind(enum.IntEnum):
    """What a frame says about its stream."""

    #: A message between caller and agent; the stream, unless 0, is that of the socket that comes with it.
    MESSAGE = 1
    DATA = 2
    #: No more data in this direction.
    END = 3
    #: The socket is closed; no more in either direction.
    GONE = 4
    #: So many bytes were passed on; as many more may come.
    CREDIT = 5


class ByteStream(Protocol):
    """Two directions of bytes. Neither call blocks."""

    def descriptors(self) -> tuple[int, int]:
        """What to poll for reading and for writing; may be the same."""
        ...

    def read(self) -> bytes | None:
        """What there is; nothing: the end; None: nothing yet."""
        ...

    def write(self, data: bytes | bytearray) -> int:
        """How many of these bytes were taken; may be 0.

        Raises:
            OSError: the other side is gone.
        """
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class SocketStream:
    """A connected socket."""

    #: What the socket raises where it would block.
    not_yet: tuple[type[OSError], ...] = (BlockingIOError,)

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection

    def descriptors(self) -> tuple[int, int]:
        """The socket, twice."""
        return self._connection.fileno(), self._connection.fileno()

    def read(self) -> bytes | None:
        """What there is; an error is an end."""
        try:
            return self._connection.recv(_ENOUGH)
        except self.not_yet:
            return None
        except OSError:
            return b""

    def write(self, data: bytes | bytearray) -> int:
        """How many of these bytes were taken."""
        try:
            return self._connection.send(data)
        except self.not_yet:
            return 0

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()


class PipeStream:
    """Two pipes, as a process has them for its input and output."""

    def __init__(self, reading: int, writing: int) -> None:
        self._open: tuple[int, ...] = (reading, writing)
        self._reading, self._writing = reading, writing
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def descriptors(self) -> tuple[int, int]:
        """Both pipes."""
        return self._reading, self._writing

    def read(self) -> bytes | None:
        """What there is."""
        try:
            return os.read(self._reading, _ENOUGH)
        except BlockingIOError:
            return None

    def write(self, data: bytes | bytearray) -> int:
        """How many of these bytes were taken."""
        try:
            return os.write(self._writing, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close both pipes."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open = ()


@dataclass
class _Stream:
    """One relayed socket."""

    number: int
    socket: socket.socket
    #: Bytes that we may still send to the other relay.
    credit: int = WINDOW
    #: What came from there and was not written to the socket yet.
    inbox: bytearray = field(default_factory=bytearray)
    #: Bytes that were written and that the other relay does not know of.
    owed: int = 0
    #: We have told, or need not tell any more, that the socket gives no more.
    read_ended: bool = False
    #: The other relay has told that no more comes.
    write_ended: bool = False
    #: The other relay's socket is closed: so will be ours, when the inbox is written.
    leaving: bool = False
    #: The socket takes no more; it may still give some.
    deaf: bool = False
    #: The socket is at its end (as `poll` has it), but what it holds cannot be sent yet.
    hung: bool = False

    @property
    def done(self) -> bool:
        return not self.inbox and (self.leaving or (self.read_ended and self.write_ended))


class _Ended(Exception):
    """The other relay is gone, or does not speak as it should."""


class Relay:
    """One end. Everything is done in `run`, by one thread; whoever closes the Unix socket ends it.

    Args:
        local: the Unix socket to the caller or to the agent.
        remote: leads to the other relay.
    """

    def __init__(self, local: socket.socket, remote: ByteStream) -> None:
        self._local, self._remote = local, remote
        self._out = bytearray()
        self._in = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._by_descriptor: dict[int, _Stream] = {}
        self._opened = 0
        self._full = False
        self._poller = select.poll()
        self._watched: dict[int, int] = {}

    def run(self) -> None:
        """Relay until either side ends; then both sides, and all streams, are closed."""
        reading, writing = self._remote.descriptors()
        local = self._local.fileno()
        self._watch(local, select.POLLIN)
        try:
            while True:
                self._watch_remote(reading, writing)
                for descriptor, events in self._poller.poll():
                    if descriptor == local:
                        self._from_local()
                    elif descriptor in self._by_descriptor:
                        self._on_stream(self._by_descriptor[descriptor], events)
                    elif descriptor == reading and events & ~select.POLLOUT:
                        self._from_remote()
                self._flush()
        except wire.ConnectionEnded:
            self._say_farewell(writing)
        except _Ended:
            pass
        finally:
            for stream in tuple(self._streams.values()):
                self._remove(stream)
            self._remote.close()
            self._local.close()  # last: who sees this end finds everything else ended

    def _watch(self, descriptor: int, events: int | None) -> None:
        """Poll for these events, besides the end and errors; None: not at all."""
        if self._watched.get(descriptor) == events:
            return
        if events is None:
            self._poller.unregister(descriptor)
            del self._watched[descriptor]
        else:
            self._poller.register(descriptor, events)
            self._watched[descriptor] = events

    def _watch_remote(self, reading: int, writing: int) -> None:
        waiting = select.POLLOUT if self._out else 0
        if reading == writing:
            self._watch(reading, select.POLLIN | waiting)
        else:
            self._watch(reading, select.POLLIN)
            self._watch(writing, waiting or None)

    def _from_local(self) -> None:
        """Pass a message on. It is read in one go: caller and agent write whole ones, and take turns."""
        body, descriptor = wire.receive(self._local)
        if descriptor is None:
            self._put(Kind.MESSAGE, 0, body)
            return
        self._opened += 1
        self._put(Kind.MESSAGE, self._opened, body)
        carried = socket.socket(fileno=descriptor)
        if len(self._streams) < MAX_STREAMS:
            self._adopt(self._opened, carried)
        else:
            carried.close()
            self._put(Kind.GONE, self._opened)

    def _adopt(self, number: int, carried: socket.socket) -> None:
        carried.setblocking(False)
        with contextlib.suppress(OSError):  # not a socket of TCP. Who writes waits for the network here, not there.
            carried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = _Stream(number, carried)
        self._streams[number] = self._by_descriptor[carried.fileno()] = stream
        self._watch_stream(stream)

    def _remove(self, stream: _Stream) -> None:
        descriptor = stream.socket.fileno()
        self._watch(descriptor, None)
        del self._streams[stream.number], self._by_descriptor[descriptor]
        stream.socket.close()

    def _give_up(self, stream: _Stream) -> None:
        """Its socket is closed at the other end, or failed."""
        if not stream.leaving:
            self._put(Kind.GONE, stream.number)
        self._remove(stream)

    def _watch_stream(self, stream: _Stream) -> None:
        events = select.POLLOUT if stream.inbox else 0
        if self._may_read(stream):
            events |= select.POLLIN
        # An end is reported whether it is asked for or not: where nothing can follow from it yet, it must not be.
        self._watch(stream.socket.fileno(), None if stream.hung and not events else events)

    def _may_read(self, stream: _Stream) -> bool:
        return not stream.read_ended and stream.credit > 0 and not self._full

    def _on_stream(self, stream: _Stream, events: int) -> None:
        over = bool(events & ~(select.POLLIN | select.POLLOUT))
        if stream.inbox:
            self._write_out(stream)
        if self._may_read(stream):
            self._read_from(stream)
        elif over and stream.read_ended and not stream.inbox:
            self._give_up(stream)
        else:
            stream.hung = over
        self._settle(stream)

    def _read_from(self, stream: _Stream) -> None:
        try:
            data = stream.socket.recv(min(_PIECE, stream.credit))
        except BlockingIOError:
            return
        except OSError:  # no connection came about, or it was reset
            self._give_up(stream)
            return
        if data:
            stream.credit -= len(data)
            self._put(Kind.DATA, stream.number, data)
            if len(self._out) > _ENOUGH:
                self._hold(full=True)
        else:
            stream.read_ended = True
            self._put(Kind.END, stream.number)

    def _write_out(self, stream: _Stream) -> None:
        try:
            written = stream.socket.send(stream.inbox[:_PIECE])
        except BlockingIOError:
            return
        except OSError:  # what it has said before is still read
            stream.deaf = True
            stream.inbox.clear()
            return
        del stream.inbox[:written]
        stream.owed += written
        if stream.owed >= WINDOW // 4 and not stream.leaving:
            self._put(Kind.CREDIT, stream.number, _AMOUNT.pack(stream.owed))
            stream.owed = 0
        self._end_writing(stream)

    @staticmethod
    def _end_writing(stream: _Stream) -> None:
        if stream.write_ended and not stream.inbox:
            with contextlib.suppress(OSError):  # its other end is closed already
                stream.socket.shutdown(socket.SHUT_WR)

    def _settle(self, stream: _Stream) -> None:
        """After anything that happened to a stream: it is over, or what to wait for may have changed."""
        if stream.number not in self._streams:
            return
        if stream.done:
            self._remove(stream)
        else:
            self._watch_stream(stream)

    def _hold(self, *, full: bool) -> None:
        self._full = full
        for stream in self._streams.values():
            self._watch_stream(stream)

    def _put(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        self._out += _HEADER.pack(kind, number, len(payload)) + payload

    def _flush(self) -> None:
        try:
            while self._out and (taken := self._remote.write(self._out)):
                del self._out[:taken]
        except OSError as gone:
            raise _Ended from gone
        if self._full and len(self._out) <= _ENOUGH // 2:
            self._hold(full=False)

    def _say_farewell(self, writing: int) -> None:
        """The caller or the agent is gone: send what is left to send, as it may say why."""
        poller = select.poll()
        poller.register(writing, select.POLLOUT)
        deadline = time.monotonic() + _FAREWELL
        with contextlib.suppress(_Ended):
            self._flush()
            while self._out and (left := deadline - time.monotonic()) > 0:
                poller.poll(left * 1000)
                self._flush()

    def _from_remote(self) -> None:
        while (data := self._remote.read()) is not None:
            if not data:
                raise _Ended
            self._in += data
            while len(self._in) >= _HEADER.size:
                kind, number, length = _HEADER.unpack_from(self._in)
                if length > wire.MAX_FRAME:
                    raise _Ended
                if len(self._in) < _HEADER.size + length:
                    break
                payload = bytes(self._in[_HEADER.size : _HEADER.size + length])
                del self._in[: _HEADER.size + length]
                self._take(kind, number, payload)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.MESSAGE:
            self._to_local(number, payload)
            return
        stream = self._streams.get(number)
        if stream is None:
            return  # it was closed on this side while the frame was on its way
        if kind == Kind.DATA and not stream.write_ended and len(stream.inbox) + len(payload) <= WINDOW:
            if not stream.deaf:
                stream.inbox += payload
        elif kind == Kind.CREDIT and len(payload) == _AMOUNT.size:
            stream.credit += _AMOUNT.unpack(payload)[0]
        elif kind == Kind.END:
            stream.write_ended = True
            self._end_writing(stream)
        elif kind == Kind.GONE:
            stream.leaving = stream.read_ended = True
        else:
            raise _Ended
        self._settle(stream)

    def _to_local(self, number: int, body: bytes) -> None:
        if not number:
            wire.send_frame(self._local, body)
            return
        if number in self._streams:
            raise _Ended
        try:
            kept, handed = socket.socketpair()
        except OSError:  # no descriptors left: as where the kernel cannot hand one over, the message comes alone
            self._put(Kind.GONE, number)
            wire.send_frame(self._local, body)
            return
        with handed:
            self._adopt(number, kept)
            wire.send_frame(self._local, body, handed.fileno())

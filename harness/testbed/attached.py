"""The standard streams of a container, as the engine carries them, for a `Relay`.

The engine's own framing of the output: the stream (1 byte: 1 output, 2 errors), three zeros, and the length of what
follows (4 bytes, big-endian). The input is not framed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Protocol

from harness.testbed.relay import SocketStream

_HEADER = struct.Struct(">BxxxI")
_OUTPUT = 1
#: How much of what the container says on its standard error is kept, bytes.
_MAX_ERRORS = 8 * 1024
_PIECE = 64 * 1024


class Channel(Protocol):
    """A connection over SSH, as the SDK has it. It cannot be polled."""

    def recv(self, count: int, /) -> bytes:
        """Wait for bytes; nothing: the end."""
        ...

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""
        ...

    def settimeout(self, seconds: float | None, /) -> None:
        """How long each may take."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


#: What the SDK has for a connection: plain, with TLS, or over SSH.
Attachment = socket.SocketIO | ssl.SSLSocket | Channel


class AttachedStream(SocketStream):
    """The standard streams of a container.

    Args:
        attachment: what the SDK's `attach_socket` returned.
    """

    not_yet = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        super().__init__(_as_socket(attachment))
        self._in = bytearray()
        self._errors = bytearray()
        #: The stream that the bytes in front belong to, and how many of them.
        self._kind, self._left = 0, 0
        self.closed = False

    @property
    def errors(self) -> str:
        """The last that the container said on its standard error."""
        return self._errors.decode(errors="replace").strip()

    def read(self) -> bytes | None:
        """The output, without the framing."""
        while True:
            data = super().read()
            if not data:
                return data
            self._in += data
            if output := self._unpack():
                return output

    def _unpack(self) -> bytes:
        output = bytearray()
        while True:
            if not self._left:
                if len(self._in) < _HEADER.size:
                    break
                self._kind, self._left = _HEADER.unpack_from(self._in)
                del self._in[: _HEADER.size]
                continue
            piece = self._in[: self._left]
            if not piece:
                break
            del self._in[: len(piece)]
            self._left -= len(piece)
            if self._kind == _OUTPUT:
                output += piece
            else:
                self._errors = (self._errors + piece)[-_MAX_ERRORS:]
        return bytes(output)

    def close(self) -> None:
        """Close the connection: to the container, its input has ended. Idempotent."""
        if self.closed:
            return
        closes: list[Callable[[], None]] = [self._attachment.close, super().close]
        response = getattr(self._attachment, "_response", None)  # of the SDK, which holds the connection, too
        if response is not None:
            # A plain file must be the response's to close; a response over SSH waits for whoever is reading.
            closes.insert(0 if isinstance(self._attachment, socket.SocketIO) else 1, response.close)
        for close in closes:
            with contextlib.suppress(OSError):
                close()
        self.closed = True


def _as_socket(attachment: Attachment) -> socket.socket:
    """A socket that leads where the attachment does, and can be polled."""
    if isinstance(attachment, ssl.SSLSocket):
        return attachment
    if isinstance(attachment, socket.SocketIO):
        # Its socket itself, as the SDK does with TLS: nobody else closes it.
        underlying: socket.socket = attachment._sock  # type: ignore[attr-defined]  # of the standard library
        return underlying
    ours, theirs = socket.socketpair()
    attachment.settimeout(None)
    threading.Thread(target=_pump, args=(attachment, theirs), daemon=True).start()
    return ours


def _pump(channel: Channel, ours: socket.socket) -> None:
    """Carry both directions until the channel is closed."""
    output = threading.Thread(target=_pump_output, args=(channel, ours), daemon=True)
    output.start()
    with ours:
        with contextlib.suppress(OSError):
            while piece := ours.recv(_PIECE):
                channel.sendall(piece)
        output.join()


def _pump_output(channel: Channel, ours: socket.socket) -> None:
    """What the engine sends. It is asked for exactly what comes next: some channels wait until all of it is there."""
    with contextlib.suppress(OSError):
        while header := _receive(channel, _HEADER.size):
            _kind, length = _HEADER.unpack(header)
            ours.sendall(header + _receive(channel, length))
    with contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)


def _receive(channel: Channel, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = channel.recv(min(_PIECE, count - len(data)))
        if not piece:
            return b""
        data += piece
    return bytes(data)

"""Frames on a Unix socket: a 4-byte big-endian length and a body, maybe with one descriptor (SCM_RIGHTS)."""

from __future__ import annotations

import array
import socket
import struct

#: Largest frame, bytes; the largest topology's Build request has about 20 kB.
MAX_FRAME = 4 * 1024 * 1024

#: Descriptors that arrive are nobody's heirloom. A Mac has no such flag.
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_LENGTH = struct.Struct(">I")


class ConnectionEnded(Exception):
    """The other side is gone. Not: a time-out."""


def send_frame(connection: socket.socket, body: bytes, descriptor: int | None = None) -> None:
    """Send one frame's body, with a descriptor if one is given.

    Raises:
        ConnectionEnded: the other side closed the socket.
    """
    frame = _LENGTH.pack(len(body)) + body
    try:
        if descriptor is not None:
            rights = array.array("i", [descriptor])
            sent = connection.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            frame = frame[sent:]
        connection.sendall(frame)
    except (BrokenPipeError, ConnectionResetError) as gone:
        raise ConnectionEnded from gone


def receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Receive one frame's body and the descriptor that came with it.

    Raises:
        ConnectionEnded: the other side closed the socket.
    """
    header, descriptor = _read(connection, _LENGTH.size)
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ConnectionEnded(f"a frame of {length} bytes is not one of ours")
    body, late = _read(connection, length)
    return body, descriptor if descriptor is not None else late


def _read(connection: socket.socket, length: int) -> tuple[bytes, int | None]:
    data = bytearray()
    descriptor: int | None = None
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    while len(data) < length:
        try:
            piece, ancillary, _flags, _address = connection.recvmsg(length - len(data), room, _CLOSE_ON_EXEC)
        except ConnectionResetError as gone:
            raise ConnectionEnded from gone
        if not piece:
            raise ConnectionEnded
        data += piece
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", rights)[0]
    return bytes(data), descriptor

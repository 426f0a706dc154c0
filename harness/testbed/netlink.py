"""Netlink as bytes: messages are packed here, and sent to the kernel many at a time.

A library that builds a message out of dictionaries takes a millisecond for one with a dozen attributes; here it takes
microseconds, and a fault of a hundred NICs is one system call. The kernel works on a request before the call returns,
so its answers are there at once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

import msgspec

#: Netlink's protocols.
ROUTE, NETFILTER = 0, 12
#: Flags of a request.
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_REQUEST, _ACKNOWLEDGE = 0x1, 0x4
#: In an answer: only the header of what it answers is in it, and the kernel's words come behind.
_HAS_WORDS = 0x200
_ERROR, _WORDS = 2, 1
_NESTED = 0x8000
#: Options of the socket: leave out what was asked, and say why it was refused.
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")
#: Bytes of one system call, and of a transaction if the kernel allows so many; a socket takes 200 kB by default.
_AT_ONCE, _MOST = 100_000, 2**20
_ANSWER = 65536
#: Messages are numbered up to here, and then from 1 again.
_LAST_NUMBER = 0x7FFFFFFF


class Message(msgspec.Struct, frozen=True, gc=False):
    """A request, without its header. Many are made for one fault, which this kind of class is quick at."""

    kind: int
    body: bytes
    flags: int = 0
    #: Errors that are none: what shall go is not there any more.
    excused: frozenset[int] = frozenset()
    #: Whether it is only where a transaction begins or ends, and is not answered.
    edge: bool = False


class Refused(OSError):
    """The kernel refused one of several messages; `index` says which, and the text is the kernel's own."""

    def __init__(self, number: int, words: str, index: int) -> None:
        super().__init__(number, words or os.strerror(number))
        self.index = index


class Channel:
    """A netlink socket; to be made while the thread stands in the namespace that it shall speak of.

    It may be used by any thread afterwards, one at a time.

    Args:
        protocol: `ROUTE` or `NETFILTER`.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._number = 0
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    @property
    def port(self) -> int:
        """Its number, which no other socket of the namespace has."""
        return int(self._socket.getsockname()[0])

    def send(self, messages: Sequence[Message]) -> list[Refused]:
        """Send messages in this order, in as few calls as they fit into; what was refused, while the others hold."""
        sizes = [len(message.body) + _HEADER.size for message in messages]
        if messages and sum(sizes) < _AT_ONCE:
            return self._call(messages, 0, len(messages))
        refused: list[Refused] = []
        start = 0
        while start < len(messages):
            end, size = start, 0
            while end < len(messages) and (end == start or size + sizes[end] < _AT_ONCE):
                size += sizes[end]
                end += 1
            refused += self._call(messages, start, end)
            start = end
        return refused

    def send_all(self, messages: Sequence[Message]) -> None:
        """Send messages in one call, as a transaction has to be.

        Raises:
            Refused: the kernel refused one of them.
        """
        if refused := self._call(messages, 0, len(messages)):
            raise refused[0]

    def _call(self, messages: Sequence[Message], start: int, end: int) -> list[Refused]:
        """Send some; only the last that is a request of its own is acknowledged, as errors are always told."""
        if self._number > _LAST_NUMBER - (end - start):
            self._number = 0
        first = self._number + 1
        self._number += end - start
        last = end - 1
        while messages[last].edge:
            last -= 1
        pieces: list[bytes] = []
        for index in range(start, end):
            message, body = messages[index], messages[index].body
            flags = _REQUEST | message.flags | (_ACKNOWLEDGE if index == last else 0)
            pieces += (_HEADER.pack(_HEADER.size + len(body), message.kind, flags, first + index - start, 0), body)
        self._socket.send(b"".join(pieces))
        refused = []
        for number, code, words in self._answers(first + last - start):
            index = start + number - first
            if code and code not in messages[index].excused:
                refused.append(Refused(code, words, index))
        return refused

    def _answers(self, until: int) -> list[tuple[int, int, str]]:
        """All that the kernel says of the last call: number of the message, its error (0: none), and words for it.

        Raises:
            OSError: it did not answer.
        """
        found: list[tuple[int, int, str]] = []
        while not found or found[-1][0] != until:
            try:
                data = self._socket.recv(_ANSWER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            found += _parsed(data)
        if not found:
            raise OSError(errno.EPROTO, "the kernel did not answer")
        return found

    def close(self) -> None:
        """Let go of it; what belongs to it in the kernel goes, too."""
        self._socket.close()


def _parsed(data: bytes) -> list[tuple[int, int, str]]:
    found = []
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, flags, number, _port = _HEADER.unpack_from(data, place)
        if kind == _ERROR:
            code = -_CODE.unpack_from(data, place + _HEADER.size)[0]
            behind = place + 2 * _HEADER.size + _CODE.size
            found.append((number, code, _words(data[behind : place + length]) if flags & _HAS_WORDS else ""))
        place += (max(length, _HEADER.size) + 3) & ~3
    return found


def _words(data: bytes) -> str:
    """What the kernel says of an error, among its attributes."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        if kind == _WORDS:
            return data[_ATTRIBUTE.size : length].rstrip(b"\0").decode(errors="replace")
        data = data[(length + 3) & ~3 :]
    return ""


# --- attributes ---------------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """One attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    """One attribute that is a number of four bytes, in the network's order."""
    return attribute(kind, value.to_bytes(4, "big"))


def nested(kind: int, *attributes: bytes) -> bytes:
    """Attributes in one."""
    return attribute(kind | _NESTED, b"".join(attributes))


# --- links --------------------------------------------------------------------------------------------------

_SET_LINK, _UP = 19, 1
_LINK = struct.Struct("=BxHiII")


def set_link(index: int, *, up: bool) -> Message:
    """Set an interface up or down."""
    return Message(_SET_LINK, _LINK.pack(0, 0, index, _UP if up else 0, _UP))


# --- transactions of nftables -------------------------------------------------------------------------------

_BEGIN, _END = 0x10, 0x11
_SUBSYSTEM = 10
_OF_NETFILTER = struct.Struct(">BBH")


def of_nftables(kind: int, family: int, body: bytes, flags: int = 0) -> Message:
    """A request of nftables, to be sent within a transaction."""
    return Message(_SUBSYSTEM << 8 | kind, _OF_NETFILTER.pack(family, 0, 0) + body, flags)


def transaction(messages: Sequence[Message]) -> list[Message]:
    """All of them at one moment, or none; for `Channel.send_all`."""
    body = _OF_NETFILTER.pack(socket.AF_UNSPEC, 0, _SUBSYSTEM)
    return [Message(_BEGIN, body, edge=True), *messages, Message(_END, body, edge=True)]

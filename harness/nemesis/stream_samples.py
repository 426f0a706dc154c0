"""Conversations with servers, through a proxy and beside it, that change nothing there and can be measured.

A server is asked on the very port that the stream is for. On the client port by admin words, or by a session that it
must refuse: one that it never gave, with as long a password as is wanted. On the election port by a vote from nobody
who has one: a server tells such a one at once what it votes for itself. Neither leaves anything but a line in its log.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.testbed.handles import Testbed
from harness.topology.proxies import Service

#: Most conversations at the same time.
_TOGETHER = 16
#: Where the kernel's `struct tcp_info` has the number of segments with data that came in.
_SEGMENTS = struct.Struct("=152xI")
_TCP_INFO_SIZE = 256


class End(StrEnum):
    """How a conversation ended."""

    OPEN = "open"
    CLOSED = "closed"
    RESET = "reset"
    REFUSED = "refused"
    #: Nobody answered the connection.
    SILENT = "silent"


@dataclass(frozen=True)
class Question:
    """What is said, and how it is seen that the answer is whole."""

    #: Makes it: a stranger is another one each time.
    make: Callable[[], bytes]
    #: Bytes.
    length: int
    #: The answer begins with its length; else it ends with the connection.
    framed: bool = False
    #: Nothing more will be said, and the other side hears so.
    farewell: bool = False


@dataclass(frozen=True)
class Call:
    """A conversation to have: from which host, with whom, about what, and for how long."""

    host: str
    address: tuple[str, int]
    question: Question
    #: Seconds.
    patience: float


@dataclass
class Sample:
    """What became of one conversation; times are milliseconds from when it was connected."""

    end: End = End.SILENT
    received: int = 0
    first_ms: float | None = None
    last_ms: float = 0.0
    end_ms: float | None = None
    #: In how many segments the answer came.
    segments: int = 0

    @property
    def answered(self) -> bool:
        """Whether anything came."""
        return self.received > 0

    def text(self) -> str:
        """For people."""
        if self.first_ms is None:
            how = {End.OPEN: "no answer", End.CLOSED: "closed without an answer"}.get(self.end, self.end.value)
            return f"{how} after {self.end_ms:.0f} ms" if self.end_ms is not None else how
        text = f"first of {self.received} bytes after {self.first_ms:.1f} ms"
        if self.segments > 1:
            text += f", the last after {self.last_ms:.1f} ms in {self.segments} segments"
        return text if self.end_ms is None else f"{text}, {self.end} after {self.end_ms:.1f} ms"


# --- what is said -------------------------------------------------------------------------------------------

#: Servers have ids up to 99, so none of these is one; each is used once, because a server repeats to whoever comes
#: again what it told last, before it is asked; and of two who claim one session it sends the first away.
_strangers = itertools.count(1 + (os.getpid() << 20))
_LOOKING, _PROTOCOL, _WITHOUT_CONFIGURATION = 0, -65536, 1
_VOTE = struct.Struct(">iqqqqi")
_SESSION = struct.Struct(">iqiqi")
#: No server gives such ids: the first byte is a server's, and none has this one.
_NOBODYS_SESSIONS, _SESSION_MS = 0x7F00_0000_0000_0000, 4000
_WORD_SIZE = 4


def ask(service: Service, size: int = 0) -> Question:
    """A question of so many bytes at least, all of which the server must have before it answers."""
    if service is not Service.CLIENT:
        return Question(lambda: _vote(size), len(_vote(size)), framed=True)
    if size <= _WORD_SIZE:
        return _known(b"ruok")
    return Question(lambda: _refused_session(size), len(_refused_session(size)))


def ask_much(service: Service) -> Question:
    """The question with the longest answer."""
    return _known(b"mntr") if service is Service.CLIENT else ask(service)


def say_farewell() -> Question:
    """Nothing, and that this was all; the server closes the connection."""
    return Question(bytes, 0, farewell=True)


def _known(said: bytes) -> Question:
    return Question(lambda: said, len(said))


def _refused_session(size: int) -> bytes:
    """The wish to go on with a session that never was, with a password of the length that is missing."""
    password = bytes(max(16, size - _SESSION.size - 5))
    body = _SESSION.pack(0, 0, _SESSION_MS, _NOBODYS_SESSIONS + next(_strangers), len(password)) + password + b"\0"
    return struct.pack(">i", len(body)) + body


def _vote(size: int) -> bytes:
    """A stranger's greeting and its vote, which may be as long as is wanted: what is not understood is ignored.

    Its length differs a little from one to the next. A server (3.9.5) sends away whose address, the end of the
    greeting, arrives in two pieces; no two questions shall be cut at the same place.
    """
    stranger = next(_strangers)
    size += stranger % 16
    place = b"1:1"
    greeting = struct.pack(">qqi", _PROTOCOL, stranger, len(place)) + place
    vote = _VOTE.pack(_LOOKING, stranger, 0, 0, 0, _WITHOUT_CONFIGURATION)
    vote += bytes(max(0, size - len(greeting) - len(vote) - 4))
    return greeting + struct.pack(">i", len(vote)) + vote


# --- saying it ----------------------------------------------------------------------------------------------


def converse(testbed: Testbed, calls: Sequence[Call]) -> list[Sample]:
    """Have these conversations, many at the same time; in the order of `calls`."""
    samples: list[Sample] = []
    for start in range(0, len(calls), _TOGETHER):
        samples += _together(testbed, calls[start : start + _TOGETHER])
    return samples


def _together(testbed: Testbed, calls: Sequence[Call]) -> list[Sample]:
    poller = select.poll()
    with contextlib.ExitStack() as stack:
        talks: list[_Talk] = []
        open_ones: dict[int, _Talk] = {}
        for call in calls:
            opened = stack.enter_context(testbed.tcp_socket(call.host, call.address))
            talk = _Talk(call, opened)
            talks.append(talk)
            open_ones[opened.fileno()] = talk
            poller.register(opened, select.POLLOUT)
        while open_ones:
            now = time.monotonic()
            for descriptor in [d for d, talk in open_ones.items() if talk.deadline <= now]:
                poller.unregister(descriptor)
                open_ones.pop(descriptor).close()
            left = min((talk.deadline for talk in open_ones.values()), default=now) - now
            for descriptor, _event in poller.poll(max(0.0, left) * 1000):
                wants = open_ones[descriptor].go_on()
                if wants:
                    poller.modify(descriptor, wants)
                else:
                    poller.unregister(descriptor)
                    open_ones.pop(descriptor).close()
        return [talk.sample for talk in talks]


class _Talk:
    """One conversation that is going on."""

    def __init__(self, call: Call, opened: socket.socket) -> None:
        self.sample = Sample()
        self._question, self._socket = call.question, opened
        self._left = memoryview(call.question.make())
        self._begun: float | None = None
        self._head = bytearray()
        self._patience = call.patience
        self.deadline = time.monotonic() + call.patience

    def go_on(self) -> int:
        """Do what the socket is ready for; returns the events to wait for next, or 0 when it is over."""
        try:
            if self._begun is None:
                self._connected()
            if self._left:
                self._left = self._left[self._socket.send(self._left) :]
                if self._left:
                    return select.POLLOUT
                if not self._question.farewell:
                    return select.POLLIN
            return self._hear()
        except BlockingIOError:
            return select.POLLOUT if self._left else select.POLLIN
        except ConnectionRefusedError:
            self.sample.end = End.REFUSED
        except OSError:
            self._ended(End.RESET if self._begun is not None else End.SILENT)
        return 0

    def _connected(self) -> None:
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        try:
            self._socket.getpeername()
        except OSError as problem:  # one that was refused at once has told so already, and has no peer
            raise ConnectionRefusedError from problem
        self._begun = time.monotonic()
        self.deadline = self._begun + self._patience
        self.sample.end = End.OPEN
        if self._question.farewell:
            self._socket.shutdown(socket.SHUT_WR)

    def _hear(self) -> int:
        piece = self._socket.recv(65536)
        if not piece:
            self._ended(End.CLOSED)
            return 0
        self.sample.last_ms = self._now_ms()
        if self.sample.first_ms is None:
            self.sample.first_ms = self.sample.last_ms
        self.sample.received += len(piece)
        self._head += piece[: 4 - len(self._head)]
        return 0 if self._is_whole() else select.POLLIN

    def _is_whole(self) -> bool:
        if not self._question.framed or len(self._head) < 4:
            return False
        return self.sample.received >= 4 + int.from_bytes(self._head, "big")

    def _ended(self, how: End) -> None:
        self.sample.end = how
        if self._begun is not None:
            self.sample.end_ms = self._now_ms()

    def _now_ms(self) -> float:
        return (time.monotonic() - (self._begun or 0.0)) * 1000

    def close(self) -> None:
        """Look at how the answer came, before the socket is closed."""
        with contextlib.suppress(OSError, struct.error):
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
            self.sample.segments = _SEGMENTS.unpack_from(info)[0]

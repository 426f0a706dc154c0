"""The admin words (`srvr`, `mntr`, `conf`, `cons`, ...), asked over sockets that stand on a server's own host.

They go over the loopback of the server's network namespace, so that no fault on a network hides a server from
the harness: what is seen is the server, not the way to it.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import EnsembleError
from harness.testbed.handles import Testbed
from harness.topology.model import CLIENT_PORT

#: Longest answer that is read, bytes; `cons` of ten thousand connections has about 2 MB.
_MAX_ANSWER = 8 * 1024 * 1024

# Whole lines only: half an answer must not make half a word into a role.
_MODE = re.compile(r"^Mode: ([a-z-]+)\n", re.MULTILINE)
_ZXID = re.compile(r"^Zxid: 0x([0-9a-f]{1,16})\n", re.MULTILINE)
_CONNECTIONS = re.compile(r"^Connections: ([0-9]{1,18})\n", re.MULTILINE)
_OUTSTANDING = re.compile(r"^Outstanding: ([0-9]{1,18})\n", re.MULTILINE)


@dataclass(frozen=True)
class ServerStatus:
    """What `srvr` says, or that it says nothing.

    `role` is `leader`, `follower`, `observer`, `standalone` (or `read-only`, which does not count as serving);
    `looking` if the process answers but serves nobody; `down` if nothing answers.
    """

    role: str
    zxid: int = 0
    connections: int = 0
    outstanding: int = 0

    @property
    def serving(self) -> bool:
        """Whether it serves clients."""
        return self.role in ("leader", "follower", "observer", "standalone")

    @property
    def leads(self) -> bool:
        """Whether it decides alone what is written: it leads a quorum, or stands alone."""
        return self.role in ("leader", "standalone")


DOWN = ServerStatus("down")


def parse_srvr(text: str) -> ServerStatus:
    """Read the answer to `srvr`; an unknown text is `looking` ("This ZooKeeper instance is not currently serving")."""
    mode = _MODE.search(text)
    if mode is None:
        return ServerStatus("looking") if text.strip() else DOWN

    def number(pattern: re.Pattern[str], base: int = 10) -> int:
        found = pattern.search(text)
        return int(found.group(1), base) if found else 0

    return ServerStatus(mode.group(1), number(_ZXID, 16), number(_CONNECTIONS), number(_OUTSTANDING))


def parse_mntr(text: str) -> Mapping[str, str]:
    """Read the answer to `mntr`: one tab-separated key and value a line."""
    pairs = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return {key: value.strip() for key, value in pairs}


def ask(testbed: Testbed, hosts: Sequence[str], word: str, *, timeout: float = 1.0) -> dict[str, str]:
    """Ask several servers one word at the same time; a host that gives no answer has an empty text.

    Args:
        testbed: what opens the sockets.
        hosts: server hosts (`zk1`).
        word: an admin word of four letters.
        timeout: seconds, for all of them together.
    """
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        poller = select.poll()
        conversations: dict[int, _Conversation] = {}
        for host in hosts:
            sock = stack.enter_context(testbed.tcp_socket(host, ("127.0.0.1", CLIENT_PORT)))
            conversations[sock.fileno()] = _Conversation(host, sock, word)
            poller.register(sock, select.POLLOUT)
        open_ones = set(conversations)
        while open_ones and (left := deadline - time.monotonic()) > 0:
            for descriptor, _event in poller.poll(left * 1000):
                conversation = conversations[descriptor]
                if conversation.go_on():
                    poller.modify(descriptor, select.POLLIN)
                else:
                    poller.unregister(descriptor)
                    open_ones.discard(descriptor)
        return {c.host: c.text() for c in conversations.values()}


class _Conversation:
    """One word and its answer on one socket."""

    def __init__(self, host: str, sock: socket.socket, word: str) -> None:
        self.host, self._sock, self._word = host, sock, word
        self._asked = False
        self._answer = bytearray()

    def go_on(self) -> bool:
        """Do what the socket is ready for; False when the conversation is over."""
        try:
            if not self._asked:
                self._sock.send(self._word.encode("ascii"))
                self._asked = True
                return True
            piece = self._sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            self._answer.clear()
            return False
        self._answer += piece
        return bool(piece) and len(self._answer) <= _MAX_ANSWER

    def text(self) -> str:
        return self._answer.decode("utf-8", errors="replace")


def statuses(testbed: Testbed, hosts: Sequence[str], *, timeout: float = 1.0) -> dict[str, ServerStatus]:
    """`srvr` of several servers at the same time."""
    return {host: parse_srvr(text) for host, text in ask(testbed, hosts, "srvr", timeout=timeout).items()}


def ask_one(testbed: Testbed, host: str, word: str, *, timeout: float = 1.0) -> str:
    """Ask one server one word.

    Raises:
        EnsembleError: no answer within the time.
    """
    answer = ask(testbed, [host], word, timeout=timeout)[host]
    if not answer:
        raise EnsembleError(
            f"no answer to {word!r} within {timeout} s",
            where=f"{host}:{CLIENT_PORT}",
            cause="the server is down, paused, or has not yet opened its port",
        )
    return answer

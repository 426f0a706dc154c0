"""Toxiproxy's HTTP API, spoken over a socket that stands on the host where the proxy is.

There is a Python package for it; its last release is of 2019, it knows one server for each process, and it has no time
limits. What is needed of the API is little.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

import msgspec

from harness.errors import TestbedError
from harness.testbed.handles import Testbed, wait_until_connected

#: Where it listens for orders, on the loopback of its host.
CONTROL_PORT = 8474
#: How long an order may take, seconds. Taking a toxic away waits for what is on its way through it.
_ANSWER_S = 8.0


class Toxic(msgspec.Struct, frozen=True):
    """A toxic of a proxy: one way of a share of its connections."""

    name: str
    type: str
    #: `upstream` (to the server) or `downstream`.
    stream: str
    #: The share of connections that it is on, from 0 to 1.
    toxicity: float
    #: As toxiproxy calls them: milliseconds, bytes, kilobytes per second; microseconds of a slicer.
    attributes: dict[str, int]


class State(msgspec.Struct, frozen=True):
    """A proxy as toxiproxy has it."""

    name: str
    listen: str
    upstream: str
    enabled: bool
    toxics: tuple[Toxic, ...] = ()


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Given(http.client.HTTPConnection):
    """A connection that is there already; it is never opened anew, which would be somewhere else."""

    auto_open = 0

    def __init__(self, opened: socket.socket, timeout: float) -> None:
        super().__init__("localhost", CONTROL_PORT)
        opened.settimeout(timeout)
        with contextlib.suppress(OSError):  # one end of a relay needs it not
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = opened


class Api:
    """One conversation with the toxiproxy of a host. Use it in a `with` block.

    Raises:
        TestbedError: nobody answers there.
    """

    def __init__(self, testbed: Testbed, host: str, *, timeout: float = _ANSWER_S) -> None:
        self._host = host
        opened = testbed.tcp_socket(host, ("127.0.0.1", CONTROL_PORT))
        try:
            wait_until_connected(opened, timeout)
        except OSError as problem:
            opened.close()
            raise self._silent(problem) from problem
        self._connection = _Given(opened, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def version(self) -> str:
        """What it says of itself."""
        return msgspec.json.decode(self._ask("GET", "/version"), type=_Version).version

    def states(self) -> dict[str, State]:
        """Every proxy, by its name."""
        return msgspec.json.decode(self._ask("GET", "/proxies"), type=dict[str, State])

    def create(self, proxies: Iterable[tuple[str, str, str]]) -> None:
        """Let there be these proxies: name, where it listens, where it leads to."""
        body = [{"name": name, "listen": listen, "upstream": upstream} for name, listen, upstream in proxies]
        self._ask("POST", "/populate", body)

    def enable(self, proxy: str, *, enabled: bool) -> None:
        """Let it listen, or end all its connections and refuse new ones."""
        self._ask("POST", f"/proxies/{proxy}", {"enabled": enabled})

    def add(self, proxy: str, toxic: Toxic) -> None:
        """Add a toxic, behind those that are there."""
        self._ask("POST", f"/proxies/{proxy}/toxics", msgspec.to_builtins(toxic))

    def remove(self, proxy: str, name: str) -> None:
        """Take a toxic away."""
        self._ask("DELETE", f"/proxies/{proxy}/toxics/{name}")

    def _ask(self, method: str, path: str, body: object = None) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        headers: Mapping[str, str] = {} if content is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, content, dict(headers))
            with self._connection.getresponse() as response:
                answer = response.read()
                status = response.status
        except (OSError, http.client.HTTPException) as problem:
            raise self._silent(problem) from problem
        if status >= 400:
            raise TestbedError(
                f"toxiproxy refused {method} {path}: {status} {answer.decode(errors='replace').strip()[:200]}",
                where=self._host,
            )
        return answer

    def _silent(self, problem: Exception) -> TestbedError:
        return TestbedError(
            "toxiproxy does not answer",
            where=self._host,
            cause=str(problem) or type(problem).__name__,
            next_step="its output is in the run folder, in proxies/",
        )

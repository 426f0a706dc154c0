"""What a testbed hands out: hosts, links and processes. The same for every kind of testbed."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.testbed.wire import Arrivals, LinkState, NicState, Rule, Shape, Split, Train
from harness.testbed.wire import Path as Reached


@dataclass(frozen=True)
class Exit:
    """How a process ended: its code (negative: minus the signal) and when, monotonic nanoseconds."""

    code: int
    at: int


@dataclass(frozen=True)
class Process:
    """A process on a host. `channel` is the caller's end of its socket pair, if it was asked for."""

    pid: int
    host: str
    started: int
    channel: socket.socket | None = None


@dataclass(frozen=True)
class Link:
    """One switch (`host` None) or one cable."""

    switch: str
    host: str | None = None

    @property
    def name(self) -> str:
        """`net1` or `zk2:net1`."""
        return self.switch if self.host is None else f"{self.host}:{self.switch}"


@dataclass(frozen=True)
class Limits:
    """What a server's processes get of the machine; None: as much as there is."""

    #: Share of one core.
    cpu: float | None = None
    #: Bytes.
    memory: int | None = None


@dataclass(frozen=True)
class Pressure:
    """What the kernel lets a server's processes have, and how often that was not enough, counted from the first."""

    #: The limits that hold, as `Limits`.
    cpu: float | None = None
    memory: int | None = None
    #: Periods in which they ran under a limit of the processor, and those in which they were held back.
    periods: int = 0
    throttled: int = 0
    #: Bytes of memory that they have.
    in_use: int = 0
    #: How often they asked for more than the limit; 0 where the kernel does not tell.
    refused: int = 0
    #: How many of them the kernel has killed for want of memory.
    killed: int = 0


class Testbed(Protocol):
    """A topology made real."""

    @property
    def kind(self) -> str:
        """`namespaces`, ..."""
        ...

    @property
    def rootless(self) -> bool:
        """Whether it works without privileges."""
        ...

    def spawn(
        self, host: str, argv: Sequence[str], env: Mapping[str, str], output: Path, *, channel: bool = False
    ) -> Process:
        """Start a process on a host; its output is appended to a file."""
        ...

    def signal(self, process: Process, number: signal.Signals) -> None:
        """Send a signal; no error if the process has ended."""
        ...

    def state(self, process: Process) -> str:
        """`R`, `S`, `T` (stopped), ... as in /proc/pid/stat, or `X` (ended)."""
        ...

    def exited(self, process: Process) -> Exit | None:
        """How it ended, or None while it lives."""
        ...

    @property
    def python(self) -> tuple[str, Mapping[str, str]]:
        """The Python of its client hosts that has the harness: its path, and the environment that it needs."""
        ...

    def tcp_socket(self, host: str, address: tuple[str, int]) -> socket.socket:
        """A TCP socket that stands on a host and may be used from here.

        It is non-blocking and may still be connecting (see `wait_until_connected`); where the host cannot even begin
        to reach the address, or is down, it has no peer. Of a helper container's it is one end of a relay instead: it
        is connected at once, has no address, and ends where no connection came about.
        """
        ...

    def set_links(self, links: Sequence[Link], *, up: bool, but: Sequence[Link] = ()) -> tuple[int, int]:
        """Cut or restore in one batch; returns the monotonic instants it began and ended.

        A switch takes all its ports along, except the cables in `but`, which stay as they are.
        """
        ...

    def set_nics(self, links: Sequence[Link], *, up: bool) -> tuple[int, int]:
        """Set hosts' own ends of cables up or down in one batch; returns the monotonic instants it began and ended.

        A NIC that is up again has the addresses and routes that it had.
        """
        ...

    def set_splits(self, splits: Sequence[Split]) -> tuple[int, int]:
        """Let switches be in these islands, and no others; returns the monotonic instants it began and ended."""
        ...

    def set_rules(self, rules: Sequence[Rule]) -> tuple[int, int]:
        """Let these packet filters hold, and no others; returns the monotonic instants it began and ended."""
        ...

    def set_shapes(self, shapes: Sequence[Shape]) -> tuple[int, int]:
        """Let these shapes hold, and no others; returns the monotonic instants it began and ended."""
        ...

    def lacking(self) -> Mapping[str, str]:
        """What the kernel refuses of what shapes are made of, and its words for it."""
        ...

    def send_trains(
        self, trains: Sequence[Train], *, timeout_ms: float, linger_ms: float = 0.0, limit_ms: float = 30_000.0
    ) -> tuple[Arrivals, ...]:
        """Send datagrams and see what becomes of them; as many of them as a busy machine can send until the limit."""
        ...

    def link_states(self) -> tuple[LinkState, ...]:
        """Every switch and cable as the kernel has it."""
        ...

    def nic_states(self, switches: Sequence[str]) -> tuple[NicState, ...]:
        """Every NIC on these switches as its host's kernel has it."""
        ...

    def reach(
        self, switches: Sequence[str], *, timeout_ms: int, count: int = 1, broadcast: bool = False
    ) -> tuple[Reached, ...]:
        """Which host reaches which over each of these switches, measured with real packets.

        To each by a datagram of its own; or to all by one, with `broadcast`, which shows what passes at this very
        moment: a host that has asked in vain for another's hardware address asks again a second later.
        """
        ...

    def limit_refusals(self) -> Mapping[str, str]:
        """Which of `cpu` and `memory` the kernel does not limit for us, and why."""
        ...

    def limit(self, host: str, limits: Limits) -> None:
        """Let a server's processes have so much of the machine, and no more; those that are started later, too."""
        ...

    def pressure(self, host: str) -> Pressure:
        """What the kernel has counted of a server's processes. Nothing, before they were ever limited."""
        ...

    def close(self) -> None:
        """End every process and remove every interface. Idempotent."""
        ...


def wait_until_connected(connecting: socket.socket, timeout: float) -> None:
    """Wait for a socket of `Testbed.tcp_socket`, and make it a blocking one.

    Args:
        connecting: the socket.
        timeout: seconds.

    Raises:
        OSError: it did not connect; TimeoutError where it took too long.
    """
    poller = select.poll()
    poller.register(connecting, select.POLLOUT)
    if not poller.poll(timeout * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "no connection in time")
    if problem := connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(problem, os.strerror(problem))
    connecting.getpeername()  # one that was refused at once has told so already, and has no peer
    connecting.setblocking(True)


# The name begins with "Test"; it is no test case.
Testbed.__test__ = False  # type: ignore[attr-defined]  # an attribute for pytest alone, not part of the protocol

"""Network namespaces as the agent holds them: made by it, or a container's, or the engine's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from harness.errors import TestbedError
from harness.testbed import kernel
from harness.testbed.netlink import ROUTE, Channel

#: A cable, by its host and its switch.
Cable = tuple[str, str]


def _open_own_network() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@dataclass
class Space:
    """A network namespace and a netlink socket that stays inside it."""

    descriptor: int
    netlink: IPRoute
    #: Interface indexes by name, of those that the agent works with.
    indexes: dict[str, int] = field(default_factory=dict)
    #: For what must be fast: many messages in one call.
    route: Channel = field(default_factory=lambda: Channel(ROUTE))

    def set_link(self, index: int, *, up: bool) -> None:
        """Set an interface up or down.

        Raises:
            NetlinkError: the kernel refused, or there is no such interface.
        """
        self.netlink.link("set", index=index, state="up" if up else "down")

    def index_of(self, name: str) -> int:
        """The index of an interface.

        Raises:
            TestbedError: there is none of that name.
        """
        found = self.netlink.link_lookup(ifname=name)
        if not found:
            raise TestbedError("there is no such interface", where=name)
        return int(found[0])

    def close(self) -> None:
        """Let go of it; a namespace that nobody holds ends."""
        self.netlink.close()
        self.route.close()
        os.close(self.descriptor)


class Home:
    """The namespace that the agent's thread stands in between two errands."""

    def __init__(self) -> None:
        self.descriptor = _open_own_network()

    def make(self) -> Space:
        """A new, empty namespace."""
        kernel.unshare(kernel.CLONE_NEWNET)
        try:
            return Space(_open_own_network(), IPRoute())
        finally:
            self.come_back()

    def enter(self, descriptor: int) -> Space:
        """A namespace that is there already; takes the descriptor over."""
        kernel.setns(descriptor, kernel.CLONE_NEWNET)
        try:
            return Space(descriptor, IPRoute())
        finally:
            self.come_back()

    def come_back(self) -> None:
        """Return from wherever the thread stands."""
        kernel.setns(self.descriptor, kernel.CLONE_NEWNET)


@dataclass(frozen=True)
class Surroundings:
    """Where the agent was started, before it went into namespaces of its own: needed to find containers."""

    #: A directory descriptor of /proc: pids below it count in the first pid namespace, as the engine's do.
    proc: int
    #: The network namespace.
    network: int

    @classmethod
    def now(cls) -> Surroundings:
        """To be called before anything is unshared."""
        return cls(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), _open_own_network())

    def network_of(self, pid: int | None) -> int:
        """A new descriptor of a process's network namespace; of the agent's own first one for None.

        Raises:
            TestbedError: the process is gone.
            OSError: it may not be looked at.
        """
        if pid is None:
            return os.dup(self.network)
        try:
            return os.open(f"{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except FileNotFoundError as gone:
            raise TestbedError("there is no such process", where=f"pid {pid}") from gone

    def state_of(self, pid: int) -> str:
        """`R`, `S`, `T` (stopped), ... as in /proc/pid/stat, or `X` where there is no such process."""
        try:
            descriptor = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except FileNotFoundError:
            return "X"
        try:
            status = os.read(descriptor, 4096).decode("ascii", errors="replace")
        except ProcessLookupError:
            return "X"
        finally:
            os.close(descriptor)
        # The command's name stands in parentheses and may itself contain any character.
        return status.rpartition(")")[2].split()[0]

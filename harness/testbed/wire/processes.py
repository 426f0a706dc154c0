"""What runs on hosts, and sockets that stand there."""

from __future__ import annotations

import msgspec


class Spawn(msgspec.Struct, frozen=True, tag=True):
    """Start a process on a host. With `channel`, it gets one end of a socket pair as descriptor 3."""

    host: str
    argv: tuple[str, ...]
    env: dict[str, str]
    #: File that its output is appended to.
    output: str
    channel: bool
    #: Files of control groups that its pid is written to before anything else is done with it.
    entrances: tuple[str, ...] = ()


class Spawned(msgspec.Struct, frozen=True, tag=True):
    """Reply to Spawn: the process id within the agent's pid namespace."""

    pid: int
    at: int


class Enclose(msgspec.Struct, frozen=True, tag=True):
    """Move a process that Spawn started into control groups."""

    pid: int
    entrances: tuple[str, ...]


class Signal(msgspec.Struct, frozen=True, tag=True):
    """Send a signal to a process that Spawn started."""

    pid: int
    number: int


class GetProcesses(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every process that Spawn started."""


class ProcessState(msgspec.Struct, frozen=True):
    """A process: `state` as in /proc/pid/stat (`R`, `S`, `T` stopped, ...), or `X` with its exit `code`."""

    pid: int
    state: str
    code: int | None
    #: When it ended, monotonic nanoseconds.
    ended: int | None


class Processes(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetProcesses."""

    processes: tuple[ProcessState, ...]


class GetStates(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of processes that Spawn did not start, as the machine's first pid namespace counts."""

    pids: tuple[int, ...]


class States(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetStates, in its order: as in /proc/pid/stat, or `X` where there is no such process."""

    states: tuple[str, ...]


class OpenSocket(msgspec.Struct, frozen=True, tag=True):
    """Open a TCP socket in a host's namespace and begin to connect it; its descriptor comes with the reply.

    It is non-blocking, and may still be connecting.
    """

    host: str
    address: str
    port: int


class SocketOpened(msgspec.Struct, frozen=True, tag=True):
    """Reply to OpenSocket; the descriptor comes with it."""

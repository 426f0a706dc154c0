"""The agent's processes: started on a host, signalled, reaped, and asked how they are."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.network import Network

#: The descriptor at which a process with a channel finds its end.
CHANNEL_DESCRIPTOR = 3
#: Bound on processes of one run; a restart storm has thousands.
_MAX_PROCESSES = 10_000


@dataclass
class _Exit:
    code: int
    at: int


class Processes:
    """Children of the agent. It is process 1 of its pid namespace: when it goes, they all go."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._exits: dict[int, _Exit | None] = {}

    def spawn(self, request: wire.Spawn) -> tuple[wire.Spawned, socket.socket | None]:
        """Start a process in a host's namespace, in a session of its own."""
        if len(self._exits) >= _MAX_PROCESSES:
            raise TestbedError("too many processes were started in one run", where=request.host)
        ours, theirs = socket.socketpair() if request.channel else (None, None)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions: list[tuple[object, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, request.output, flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        if theirs is not None:
            actions.append((os.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL_DESCRIPTOR))
        try:
            with self._network.inside(request.host):
                pid = os.posix_spawn(
                    request.argv[0],
                    request.argv,
                    request.env,
                    file_actions=actions,
                    resetids=True,  # before the output is opened: it belongs to the caller, also in a helper container
                    setsid=True,
                    setsigmask=(),
                )
        except OSError as problem:
            raise TestbedError(
                f"cannot start {Path(request.argv[0]).name}: {problem.strerror}", where=request.host
            ) from problem
        finally:
            if theirs is not None:
                theirs.close()
        self._exits[pid] = None
        _enter(pid, request.entrances)
        return wire.Spawned(pid, time.monotonic_ns()), ours

    def signal(self, request: wire.Signal) -> None:
        """Send a signal; a process that has ended already is not an error."""
        if request.pid not in self._exits:
            raise TestbedError("this process was not started here", where=f"pid {request.pid}")
        if self._exits[request.pid] is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(request.pid, request.number)

    def enclose(self, request: wire.Enclose) -> None:
        """Move a process into control groups; one that has ended already is not an error."""
        if request.pid not in self._exits:
            raise TestbedError("this process was not started here", where=f"pid {request.pid}")
        if self._exits[request.pid] is None:
            _enter(request.pid, request.entrances)

    def reap(self) -> None:
        """Collect every ended child, also orphans that were handed to process 1."""
        for _ in range(_MAX_PROCESSES):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._exits:
                self._exits[pid] = _Exit(os.waitstatus_to_exitcode(status), time.monotonic_ns())

    def states(self) -> tuple[wire.ProcessState, ...]:
        """How every process is."""
        self.reap()
        return tuple(
            wire.ProcessState(pid, "X", end.code, end.at)
            if end is not None
            else wire.ProcessState(pid, _state(pid), None, None)
            for pid, end in self._exits.items()
        )


def _enter(pid: int, entrances: Iterable[str]) -> None:
    """Write its pid, as it is here, to files of control groups; the kernel counts from whoever writes it."""
    for entrance in entrances:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            Path(entrance).write_text(str(pid), encoding="ascii")


def _state(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
    # The command's name stands in parentheses and may itself contain any character.
    return status.rpartition(")")[2].split()[0]

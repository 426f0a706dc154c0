"""The process that removes a run's things from a Docker engine when the run's process dies, by whatever means.

Started as ``python -m harness.testbed.reaper OWNER RUN [CONTAINER...]`` (see `survivor`) before the owner makes
anything. While the owner lives it only waits.

The engine finishes what a dead client has asked it for, so a thing may appear after the first look. The reaper looks
until there was nothing for a while. Containers of somebody else, in which the run stopped something, run again.
"""

from __future__ import annotations

import contextlib
import importlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from harness.errors import TestbedError, ZkChaosError
from harness.testbed.owners import Life, life_of
from harness.testbed.survivor import start_survivor, stay

#: After the owner's death, nothing is left on the engine within so many seconds.
BOUND = 10.0
#: The reaper ends when it has found nothing for so long: far longer than the engine takes for what was under way.
_QUIET = 5.0
_PAUSE = 0.1
#: An engine that does not answer, or refuses, is asked again for so long; then it is for `zkchaos clean`.
_ENDURANCE = 120.0
#: One request to the engine, seconds: short, because what is not answered is asked again.
_ANSWER_TIMEOUT = 20
#: The SDK takes 0.3 s to load, and is not needed before the end; the owner should first have the time to build.
_LOAD_AFTER_MS = 3_000
#: How long the owner waits for the reaper's last look, and then for its end.
_CLOSE_TIMEOUT = 30.0
_END_TIMEOUT = 5.0
#: How often the owner is looked at where its end is not told (a Mac has no pidfd), milliseconds.
_LOOK_MS = 200

_DONE = b"."


class Reaper:
    """The owner's handle."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._connection = connection
        self._process = process

    @classmethod
    def start(cls, run_id: str, *, revive: Sequence[str] = ()) -> Reaper:
        """Have a run watched from now on. Call it before anything is made on the engine. It does not wait.

        The engine is the one that `connect_engine` would connect to now.

        Args:
            run_id: of the run.
            revive: containers of somebody else that the run may stop; they run again when the owner has died.
        """
        return cls(*start_survivor("harness.testbed.reaper", run_id, *revive))

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def __enter__(self) -> Reaper:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()

    def close(self) -> None:
        """The owner has removed everything itself: the reaper looks once more, and ends. Idempotent.

        Raises:
            TestbedError: the reaper was killed, or something is left that it could not remove.
        """
        if self._connection.fileno() < 0:
            return
        said = b""
        with self._connection:
            self._connection.settimeout(_CLOSE_TIMEOUT)
            with contextlib.suppress(OSError):  # its exit code tells what it could not say
                self._connection.sendall(_DONE)
                self._connection.shutdown(socket.SHUT_WR)
                while part := self._connection.recv(4096):
                    said += part
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=_END_TIMEOUT)
        if code != 0:
            if said:
                raise TestbedError(said.decode(errors="replace"), where="reaper")
            raise TestbedError(
                f"the reaper {'does not end' if code is None else f'ended with code {code}'}",
                where=f"pid {self.pid}",
                cause="it was killed, or the engine is too slow",
                next_step="`zkchaos clean` removes what is left once this process has ended",
            )


def main() -> None:
    """Wait for the owner's end; then see to it that nothing is left."""
    owner, run_id = sys.argv[1:3]
    stay()
    with socket.socket(fileno=0) as connection:
        if not _owner_is_done(connection, owner):
            sys.exit(0 if _reap(run_id, sys.argv[3:]) else 3)
        try:
            _remove_once(run_id)
        except ZkChaosError as problem:
            with contextlib.suppress(OSError):  # an owner that has died since
                connection.sendall(str(problem).encode())
            sys.exit(3)


def _owner_is_done(connection: socket.socket, owner: str) -> bool:
    """Wait; True if the owner says that it has removed everything, False if it died.

    The socket alone would not do: a process that the owner forked has it, too.
    """
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    if owner.isdecimal():
        poller.register(int(owner), select.POLLIN)
        if not poller.poll(_LOAD_AFTER_MS):
            _load()
            poller.poll()
    else:
        _load()
        while not poller.poll(_LOOK_MS) and life_of(owner) is not Life.DEAD:
            continue
    connection.setblocking(False)
    try:
        return connection.recv(1) == _DONE
    except OSError:  # nothing was said, or the connection was reset
        return False


def _load() -> None:
    """Have in memory what removing takes: what is on disk may change before it is needed."""
    importlib.import_module("harness.testbed.leftovers")


def _remove_once(run_id: str) -> bool:
    """Remove what there is; False if there was nothing."""
    from harness.testbed.engine import connect_engine  # noqa: PLC0415  # see _LOAD_AFTER_MS
    from harness.testbed.leftovers import remove_run  # noqa: PLC0415  # as above

    with contextlib.closing(connect_engine(_ANSWER_TIMEOUT)) as client:
        return bool(remove_run(client, run_id))


def _revive(name: str) -> bool:
    """Start a container if it has ended, and let it go on if it was stopped; False if the engine does neither."""
    from docker.errors import DockerException, NotFound  # noqa: PLC0415  # see _LOAD_AFTER_MS

    from harness.testbed.engine import connect_engine  # noqa: PLC0415  # as above

    try:
        with contextlib.closing(connect_engine(_ANSWER_TIMEOUT)) as client:
            client.api.start(name)  # nothing, if it runs
            client.api.kill(name, signal.SIGCONT)
    except NotFound:
        pass  # whoever owns it has removed it
    except (ZkChaosError, DockerException, OSError):
        return False
    return True


def _reap(run_id: str, revive: Sequence[str] = ()) -> bool:
    """Remove what there is and what still appears, until there was nothing for a while. True: that is so."""
    end = time.monotonic() + _ENDURANCE
    quiet_since = time.monotonic()
    waiting = list(revive)
    while time.monotonic() < quiet_since + _QUIET:
        try:
            something = _remove_once(run_id)
        except ZkChaosError:
            something = True  # nothing can be told, so it is not quiet
        waiting = [name for name in waiting if not _revive(name)]
        if time.monotonic() > end:
            return False
        if something or waiting:
            quiet_since = time.monotonic()
        time.sleep(_PAUSE)
    # once more, for the owner's last request may have reached the engine after the first look
    return not [name for name in revive if not _revive(name)]


if __name__ == "__main__":
    main()

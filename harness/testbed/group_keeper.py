"""The process that removes a run's control groups when the run's process dies, by whatever means.

Started as ``python -m harness.testbed.group_keeper OWNER PREFIX FOLDERS`` (see `survivor`) before the owner makes any
group. While the owner lives it only waits. When the owner has died, the agent and the servers die (see `agent`), and
their groups can be removed: those whose names begin with PREFIX. FOLDERS is a JSON object: where they are, and the
controllers that the owner has that folder give to what is below it, which it did not before.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed.kernel import set_process_name
from harness.testbed.survivor import start_survivor, stay

#: How long the processes of a dead owner may take to be gone, and a pause between two looks, seconds.
_ENDURANCE = 60.0
_PAUSE = 0.02
#: How long the owner, who has removed them itself, waits for the keeper's end, seconds.
_END_TIMEOUT = 10.0


class GroupKeeper:
    """The owner's handle."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._connection, self._process = connection, process

    @classmethod
    def start(cls, prefix: str, folders: Mapping[Path, Sequence[str]]) -> GroupKeeper:
        """Have groups watched from now on. It does not wait: a keeper that is still being started will notice, too.

        Args:
            prefix: what the names of the groups begin with, and those of nobody else's.
            folders: where they will be made, and the controllers that are to be taken from there again.
        """
        said = json.dumps({str(folder): controllers for folder, controllers in folders.items()})
        return cls(*start_survivor("harness.testbed.group_keeper", prefix, said))

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def close(self) -> None:
        """The owner has removed everything itself: the keeper looks once more, and ends.

        Raises:
            TestbedError: it was killed, or does not end.
        """
        self._connection.close()
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=_END_TIMEOUT)
        if code != 0:
            raise TestbedError(
                f"the keeper of control groups {'does not end' if code is None else f'ended with code {code}'}",
                where=f"pid {self.pid}",
                cause="it was killed, or the groups cannot be removed",
            )


def main() -> None:
    """Wait for the owner's end; then see to it that nothing is left."""
    set_process_name("zkchaos-groups")
    owner, prefix, said = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    folders: dict[Path, list[str]] = {Path(folder): controllers for folder, controllers in said.items()}
    stay()
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(owner, select.POLLIN)
    poller.poll()
    removed = _remove(prefix, list(folders))
    for folder, controllers in folders.items():
        _take_back(folder, controllers)
    sys.exit(0 if removed else 3)


def _take_back(folder: Path, controllers: Sequence[str]) -> None:
    """Leave a folder as it was; unless somebody else has groups there by now."""
    if not any(path.is_dir() for path in folder.iterdir()):
        for controller in controllers:
            with contextlib.suppress(OSError):  # it never came to that
                (folder / "cgroup.subtree_control").write_text(f"-{controller}", encoding="ascii")


def _remove(prefix: str, folders: Sequence[Path]) -> bool:
    """Remove them as soon as nobody is in them any more; False where that takes too long."""
    end = time.monotonic() + _ENDURANCE
    while left := [group for folder in folders for group in folder.glob(f"{prefix}*")]:
        for group in left:
            with contextlib.suppress(OSError):  # EBUSY: a process that was killed is not yet gone
                group.rmdir()
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True


if __name__ == "__main__":
    main()

"""Servers whose wall clock can be set wrong, each by itself: they are started with the system's libfaketime.

The library answers the process's questions for the time, and adds what a file says, which it reads each time (3.5 us).
Nothing of the host's own clock is touched. What the library could do besides is switched off: the monotonic clock, the
times of files and the length of waits stay what they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import FaketimeMissing, TestbedError, UsageError
from harness.history.folder import ServerFolder, storage_error
from harness.topology.model import Server
from harness.zookeeper.paths import IN_CONTAINER

#: Names the library where it is not found by itself.
LIBRARY_VARIABLE = "ZKCHAOS_LIBFAKETIME"
#: What faults ask the ensemble for.
CLOCKS = "clocks"

# Only the MT library guards what it has read by a lock, and a JVM asks from many threads at once. Where distributions
# and its own `make install` put it:
_NAME = "libfaketimeMT.so.1"
_PLACES = ("/usr/lib/*/faketime", "/usr/lib64/faketime", "/usr/lib/faketime", "/usr/local/lib/*", "/usr/local/lib*")
_STEP = f"apt install libfaketime, or name the library in {LIBRARY_VARIABLE}"

_ENVIRONMENT = {
    "FAKETIME_NO_CACHE": "1",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    # without it, waits of the monotonic clock end at once, and a JVM spins
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    "NO_FAKE_STAT": "1",
    # a server's log then says what its clock says, without a zone to guess
    "TZ": "UTC",
}
#: What a server's file is called; in a folder that it sees, in a container too.
_FILE = "clock"
_LIBRARY = "libfaketime.so"

# The library makes two files in /dev/shm that it never needs so, and a killed process leaves them there. So the server
# gets a /dev/shm of its own, which goes with it. What comes before it must not load the library.
_SHARED = Path("/dev/shm")
_START = (
    "[ ! -d /dev/shm ] || mount -t tmpfs -o size=64k zkchaos /dev/shm"
    ' && LD_PRELOAD="$0${LD_PRELOAD:+ $LD_PRELOAD}" exec "$@"'
)

#: How far behind the trial is put, and how long it may take, seconds.
_BEHIND_S, _TRIAL_S = 86_400, 20
_TRIAL = "import time; print(time.time())"


def find_faketime(environ: Mapping[str, str] | None = None) -> Path:
    """The library, after it was tried.

    Args:
        environ: instead of `os.environ`.

    Raises:
        FaketimeMissing: there is none, or it does not work here.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get(LIBRARY_VARIABLE):
        found = Path(named)
        if not found.is_file() or not found.is_absolute() or any(letter in named for letter in " :"):
            what = "this is not the absolute path of a file, without spaces and colons"
            raise FaketimeMissing(what, where=f"{LIBRARY_VARIABLE}={named}", next_step=_STEP)
        _try(found)
        return found
    problem: FaketimeMissing | None = None
    for place in _PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/{_NAME}")):
            try:
                _try(found)
            except FaketimeMissing as refused:  # such as one of another architecture; there may be a better one
                problem = problem or refused
            else:
                return found
    raise problem or FaketimeMissing(f"there is no {_NAME} here, by which servers' clocks are set", next_step=_STEP)


def _try(library: Path) -> None:
    """Let a process look at the clock with it."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL],
            env={**_ENVIRONMENT, "LD_PRELOAD": str(library), "FAKETIME": f"-{_BEHIND_S}"},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TRIAL_S,
            check=True,
            text=True,
            errors="replace",
        )
        behind = time.time() - float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        what = "a process that was started with it does not tell the time"
        raise FaketimeMissing(what, where=str(library), cause=str(problem)[:200], next_step=_STEP) from problem
    if abs(behind - _BEHIND_S) > _TRIAL_S:
        cause = done.stderr.strip().replace("\n", " ")[:200]
        raise FaketimeMissing("it does not change a process's clock", where=str(library), cause=cause, next_step=_STEP)


@dataclass
class _Dial:
    """What one server's clock is set to."""

    file: Path
    #: What each fault adds, seconds, by the fault's id.
    offsets: dict[int, float]


class Clocks:
    """The wall clocks of an ensemble's servers; a `Preparation`. Safe to use from several threads.

    Where several faults hold one clock, what they add adds up.

    Args:
        library: as `find_faketime` returns it.
        in_containers: whether servers are containers, which see only their folders.
    """

    def __init__(self, library: Path, *, in_containers: bool = False) -> None:
        self._library, self._in_containers = library, in_containers
        self._dials: dict[int, _Dial] = {}
        self._lock = threading.Lock()

    # --- the servers' start ------------------------------------------------------------------------------

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Set its clock right."""
        self._dials[server.id] = _Dial((folder.config / _FILE).absolute(), {})
        self._set(server.id)
        if self._in_containers:
            place = folder.config / _LIBRARY
            shutil.copyfile(self._library, place)
            place.chmod(0o644)

    def environment(self, server: Server) -> Mapping[str, str]:
        """Where its clock is; in a container the library too."""
        if not self._in_containers:
            return {**_ENVIRONMENT, "FAKETIME_TIMESTAMP_FILE": str(self._dials[server.id].file)}
        return {
            **_ENVIRONMENT,
            "FAKETIME_TIMESTAMP_FILE": str(IN_CONTAINER.config / _FILE),
            "LD_PRELOAD": str(IN_CONTAINER.config / _LIBRARY),
        }

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that starts it with the library and with a /dev/shm of its own.

        Raises:
            UsageError: it needs something that lies in the machine's /dev/shm.
        """
        if inside := [word for word in argv if f"{_SHARED}/" in word]:
            raise UsageError(
                "a server whose clock is to be set has a /dev/shm of its own, and would not find this",
                where=inside[0][:200],
                next_step="choose another place, with --runs",
            )
        return [shutil.which("unshare") or "/usr/bin/unshare", "--mount", "sh", "-c", _START, str(self._library), *argv]

    # --- faults ------------------------------------------------------------------------------------------

    def hold(self, fault: int, server: int, offset: float) -> None:
        """Add so many seconds to a server's clock, instead of what this fault added before.

        Raises:
            StorageFull, RunFolderError: its file cannot be written.
        """
        with self._lock:
            self._dials[server].offsets[fault] = offset
            self._set(server)

    def release(self, fault: int, server: int) -> None:
        """Add nothing any more. Idempotent.

        Raises:
            StorageFull, RunFolderError: its file cannot be written.
        """
        with self._lock:
            self._dials[server].offsets.pop(fault, None)
            self._set(server)

    def others(self, fault: int, server: int) -> float:
        """What other faults add, seconds."""
        with self._lock:
            return sum(offset for one, offset in self._dials[server].offsets.items() if one != fault)

    def written(self, server: int) -> float:
        """What its file says, seconds; the next start of its process begins with that.

        Raises:
            RunFolderError: the file cannot be read.
        """
        file = self._dials[server].file
        try:
            return float(file.read_text(encoding="ascii"))
        except OSError as problem:
            raise storage_error(problem, file) from problem

    def _set(self, server: int) -> None:
        """Put another file in place of the old one: whoever reads finds the one or the other."""
        dial = self._dials[server]
        scratch = dial.file.with_suffix(".new")
        try:
            scratch.write_text(f"{sum(dial.offsets.values()):+.6f}\n", encoding="ascii")
            scratch.chmod(0o644)  # who runs in a container may be somebody else
            scratch.replace(dial.file)
        except OSError as problem:
            raise storage_error(problem, dial.file) from problem


def clocks_of(preparation: object) -> Clocks:
    """The preparation of that name as what it is.

    Raises:
        TestbedError: it is something else.
    """
    if not isinstance(preparation, Clocks):
        raise TestbedError(f"the servers' clocks are {type(preparation).__name__}, which cannot be set")
    return preparation

"""What this machine has for a user-mode kernel, and the kernel's command line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import EnvironmentLacking, UsageError
from harness.usermode.order import INIT_FILE
from harness.usermode.surroundings import MODULES, search_path

WHERE = "user-mode kernel"
INSTALL = "apt install user-mode-linux kmod iproute2 iputils-ping (Debian and its relatives)"

#: The guest's memory, MB. Its files are in it too: half of it may be taken by what is written outside of the writable
#: folders.
DEFAULT_MEMORY_MB = 4096
LEAST_MEMORY_MB = 256
MOST_MEMORY_MB = 65536

#: What the guest mounts its own over.
_COVERED = ("/proc", "/sys", "/dev", "/run")
_NEEDED = ("linux.uml", "modprobe", "ip")


@dataclass(frozen=True)
class Console:
    """Descriptors that the guest's terminals lead to: pipes' ends that the kernel reads or writes."""

    log: int
    control_in: int
    control_out: int
    stdout: int
    stderr: int

    def all(self) -> tuple[int, ...]:
        """The descriptors that the kernel inherits."""
        return (self.log, self.control_in, self.control_out, self.stdout, self.stderr)


def inside() -> bool:
    """Whether this process runs in a user-mode kernel already."""
    try:
        return re.search(r"^vendor_id\s*: User Mode Linux$", Path("/proc/cpuinfo").read_text("ascii"), re.M) is not None
    except (OSError, UnicodeDecodeError):
        return False


def find_kernel(environ: Mapping[str, str]) -> str:
    """The kernel's program.

    Raises:
        EnvironmentLacking: it, or something that the guest needs, is not installed.
    """
    path = search_path(dict(environ))
    missing = [name for name in _NEEDED if shutil.which(name, path=path) is None]
    if not missing and not Path(MODULES).is_dir():
        missing = [MODULES]
    if missing:
        raise EnvironmentLacking(f"not installed: {', '.join(missing)}", where=WHERE, next_step=INSTALL)
    return shutil.which(_NEEDED[0], path=path) or _NEEDED[0]


def memory_folder(memory_mb: int, environ: Mapping[str, str]) -> Path:
    """A folder for the file that is the guest's memory: in memory if there is room, else on a disk.

    Raises:
        EnvironmentLacking: nowhere is so much room.
    """
    places = [Path(p) for p in ("/dev/shm", environ.get("TMPDIR", ""), "/tmp", "/var/tmp") if p]
    for place in places:
        if _has_room(place, memory_mb):
            return place
    raise EnvironmentLacking(
        f"the guest's memory of {memory_mb} MB has room in none of {', '.join(map(str, places))}",
        where=WHERE,
        next_step="give it less by --memory, or set TMPDIR to a folder with more room that is not mounted noexec",
    )


def _has_room(place: Path, memory_mb: int) -> bool:
    """Whether a file of that size fits there and may be mapped executable, which the guest's programs are."""
    try:
        system = os.statvfs(place)
    except OSError:
        return False
    free = system.f_bavail * system.f_frsize
    return free >= memory_mb * 2**20 and not system.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK | os.X_OK)


def scratch_parent() -> str | None:
    """Where a scratch folder may lie: its path is on the kernel's command line and in a socket's address."""
    usual = tempfile.gettempdir()
    fits = len(usual) < 60 and not re.search(r"[\s\"',]", usual) and not _covered(usual)
    return usual if fits else "/var/tmp"  # mkdtemp makes the folder, for this user alone


def check_visible(directory: Path, what: str) -> None:
    """Refuse a folder that the guest cannot see.

    Raises:
        UsageError: it is below a mount of the guest's own.
    """
    if _covered(str(directory)):
        raise UsageError(
            f"the guest has its own {', '.join(_COVERED)} and does not see this folder",
            where=f"{what} {directory}",
            next_step="choose another",
        )


def _covered(path: str) -> bool:
    return any(path == covered or path.startswith(f"{covered}/") for covered in _COVERED)


def command_line(kernel: str, scratch: Path, memory_mb: int, console: Console) -> list[str]:
    """The kernel and its arguments."""
    return [
        kernel,
        f"mem={memory_mb}M",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "quiet",
        "panic=-1",  # a kernel that cannot go on ends at once
        f"uml_dir={scratch}/",
        "umid=kernel",
        f"init={scratch / INIT_FILE}",
        "con=null",
        f"con0=null,fd:{console.log}",
        f"con1=fd:{console.control_in},fd:{console.control_out}",
        f"con2=null,fd:{console.stdout}",
        f"con3=null,fd:{console.stderr}",
    ]


def init_script(scratch: Path) -> str:
    """The text of the guest's first program, which becomes our Python."""
    path = os.pathsep.join(p for p in sys.path if p)
    program = ["env", "-i", f"PYTHONPATH={path}", sys.executable, "-B", "-m", "harness.usermode.guest", str(scratch)]
    return f"#!/bin/sh\nexec {shlex.join(program)}\n"

"""Who made a thing on a Docker engine, written so that nobody else is ever taken for its owner.

An engine may be shared: by the runs of one machine, by containers that were handed its socket, by several machines.
A thing may be removed only where it is certain that its owner is gone; where that cannot be told, it stays.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

_PATTERN = re.compile(
    r"(?P<machine>[0-9a-f]{12})/(?P<boot>[0-9a-f-]{36})/(?P<space>pid:\[\d{1,20}\])/(?P<pid>\d{1,7})/(?P<start>\d{1,20})",
    re.ASCII,
)

#: Whether the kernel tells of processes here. It does not on a Mac, say, from where an engine in a virtual machine is
#: used; there psutil is asked.
_HAS_PROC = Path("/proc/self/stat").exists()
#: What stands for the boot, before the machine's digits, and for the pid namespace where there is no /proc. A process's
#: start is the wall clock's there, and tells one boot from another well enough.
_NO_BOOT, _NO_SPACE = "00000000-0000-0000-0000-", "pid:[0]"


class Life(enum.StrEnum):
    """What can be told about an owner from where this process stands."""

    ALIVE = "its owner lives"
    DEAD = "its owner is dead"
    HIDDEN = "its owner's process is hidden from this user, and may live"
    OTHER_SPACE = "its owner ran in another pid namespace (a container?), and may live"
    OTHER_MACHINE = "its owner ran on another machine, or in a container, and may live"
    UNREADABLE = "its label does not say who its owner is"


@dataclass(frozen=True)
class Owner:
    """A process of some machine, at some time."""

    #: Twelve hexadecimal digits, the same after a reboot.
    machine: str
    #: The kernel's id of this boot; zeros and the machine's digits where it has none.
    boot: str
    #: The pid namespace that `pid` counts in, as `pid:[4026531836]`.
    space: str
    pid: int
    #: Clock ticks from the boot to the process's start: a pid that is used again has another one. Where there is no
    #: /proc, hundredths of seconds of the wall clock.
    start: int

    def __str__(self) -> str:
        return f"{self.machine}/{self.boot}/{self.space}/{self.pid}/{self.start}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """What `str` made; None if it did not make it."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            return None
        owner = cls(match["machine"], match["boot"], match["space"], int(match["pid"]), int(match["start"]))
        return owner if owner.pid > 0 and str(owner) == text else None

    @classmethod
    def of(cls, pid: int) -> Owner:
        """The owner that a living process of this pid namespace is.

        Raises:
            OSError: there is no such process.
        """
        if not _HAS_PROC:
            machine = _machine()
            return cls(machine, _NO_BOOT + machine, _NO_SPACE, pid, _stat(pid).start)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return cls(_machine(), boot, str(Path("/proc/self/ns/pid").readlink()), pid, _stat(pid).start)

    @classmethod
    def of_this_process(cls) -> Owner:
        """Who asks."""
        return cls.of(os.getpid())


def life_of(label: str, here: Owner | None = None) -> Life:
    """Whether the owner that a label names lives.

    Args:
        label: what `str(owner)` gave when the thing was made.
        here: who asks; None: this process.
    """
    owner = Owner.parse(label)
    here = here or Owner.of_this_process()
    if owner is None:
        return Life.UNREADABLE
    if owner.boot != here.boot:
        return Life.DEAD if owner.machine == here.machine else Life.OTHER_MACHINE
    if owner.space != here.space:
        return Life.OTHER_SPACE
    try:
        stat = _stat(owner.pid)
    except OSError:
        return Life.HIDDEN if _exists(owner.pid) else Life.DEAD
    # A zombie runs no code any more; it only waits for its parent to look.
    return Life.ALIVE if stat.start == owner.start and stat.state not in "ZX" else Life.DEAD


@dataclass(frozen=True)
class _Stat:
    state: str
    start: int


def _stat(pid: int) -> _Stat:
    if not _HAS_PROC:
        return _stat_of_psutil(pid)
    return _read_stat(Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace"))


def _stat_of_psutil(pid: int) -> _Stat:
    import psutil  # noqa: PLC0415  # installed only where it is needed

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
            return _Stat(state, round(process.create_time() * 100))
    except psutil.NoSuchProcess as gone:
        raise ProcessLookupError(errno.ESRCH, "No such process") from gone
    except psutil.AccessDenied as hidden:
        raise PermissionError(errno.EACCES, "the process is hidden") from hidden


def _read_stat(text: str) -> _Stat:
    # The command's name stands in parentheses and may itself contain any character.
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], start=int(fields[19]))


def _exists(pid: int) -> bool:
    """Whether there is such a process, although /proc (mounted with hidepid) may not show it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """Names this machine to itself and tells others nothing: /etc/machine-id is not meant to be passed on."""
    try:
        number = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        number = ""  # as in many containers; the host's name is then all there is
    return hashlib.sha256(f"zkchaos {number} {os.uname().nodename}".encode()).hexdigest()[:12]

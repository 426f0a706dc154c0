"""Serves one server's disk: its folders, passed through as they are, until it is told to ail.

Started as ``python -m harness.testbed.disk_process ROOT FOLDER...`` by the agent, in whose mount namespace it mounts a
file system over each ``ROOT/FOLDER``. Whoever is elsewhere, as the caller, sees the folders underneath, and what the
server has written there. Nothing is kept in between, neither by the kernel nor here, so the two never differ. When
the agent goes, this process and the mounts go with it. Its orders come as lines over the socket at descriptor 3; what
it has to say besides goes to its output.
"""

# What libfuse calls has the arguments that libfuse gives.
# ruff: noqa: ARG002

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import mfusepy
import msgspec

from harness.testbed import kernel
from harness.testbed.disk_words import CHANNEL, Ailment, DiskState, Settled

#: How soon whoever hangs sees that the disk is well again, or that its process was killed, seconds.
_TURN = 0.005
#: What the kernel has dealt with before it asks, or what has no meaning here.
_NOT_PASSED_ON = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_DIRECT
_STAT = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
_TIMES = ("atime", "mtime", "ctime")
_ROOM = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax")


def _refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


class Condition:
    """How the disk is; all its folders have one."""

    def __init__(self) -> None:
        self.state = DiskState()

    def change(self) -> None:
        """Something that was there is about to change.

        Raises:
            OSError: it may not.
        """
        self._hang()
        if self.state.ailment is Ailment.READ_ONLY:
            _refuse(errno.EROFS)

    def grow(self) -> None:
        """More space is about to be needed.

        Raises:
            OSError: it may not, or there is none.
        """
        self.change()
        if self.state.ailment is Ailment.FULL:
            _refuse(errno.ENOSPC)

    def force(self) -> None:
        """Data was forced to the disk.

        Raises:
            OSError: it failed.
        """
        begun = time.monotonic()
        self._hang()
        if self.state.ailment is Ailment.FAILING:
            _refuse(errno.EIO)
        while self.state.ailment is Ailment.SLOW and (left := begun + self.state.slow_ms / 1000 - time.monotonic()) > 0:
            self._wait(min(left, _TURN))

    def _hang(self) -> None:
        while self.state.ailment is Ailment.STUCK:
            self._wait(_TURN)

    def _wait(self, seconds: float) -> None:
        if mfusepy._libfuse.fuse_interrupted():  # mfusepy has no other name for it
            _refuse(errno.EINTR)
        time.sleep(seconds)


class PassThrough:
    """The file system over one folder: what `mfusepy.Operations` may have.

    Args:
        folder: the folder; opened before it is mounted over, so that what is underneath stays within reach.
        condition: says what is refused.
        mounted: called when the kernel has begun to ask.
    """

    use_ns = True

    def __init__(self, folder: Path, condition: Condition, mounted: threading.Semaphore) -> None:
        self._root = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"
        self._condition, self._mounted = condition, mounted

    def _below(self, path: str) -> Path:
        return Path(self._root + path)

    def init(self, path: str) -> None:
        """The kernel has begun to ask."""
        self._mounted.release()

    # --- looking -----------------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Of an open file where it is one, as that may have no name any more."""
        if fh is not None:
            found = os.fstat(fh)
        else:  # the folder itself is a link in /proc
            found = self._below(path).stat() if path == "/" else self._below(path).lstat()
        times = {f"st_{name}": getattr(found, f"st_{name}_ns") for name in _TIMES}
        return {name: getattr(found, name) for name in _STAT} | times

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        """Names."""
        yield from (".", "..", *(entry.name for entry in self._below(path).iterdir()))

    def readlink(self, path: str) -> str:
        """As it is written there."""
        return str(self._below(path).readlink())

    def statfs(self, path: str) -> dict[str, int]:
        """No room where it is full."""
        found = os.statvfs(self._below(path))
        room = {name: getattr(found, name) for name in _ROOM}
        return room | {"f_bfree": 0, "f_bavail": 0} if self._condition.state.ailment is Ailment.FULL else room

    # --- files -------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """A file that is there."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._condition.change()
        return os.open(self._below(path), (flags & ~_NOT_PASSED_ON) | os.O_CLOEXEC)

    def create(self, path: str, mode: int, flags: int) -> int:
        """A new one."""
        self._condition.grow()
        return os.open(self._below(path), (flags & ~_NOT_PASSED_ON) | os.O_CREAT | os.O_CLOEXEC, mode)

    def release(self, path: str, fh: int) -> int:
        """Nobody has it open any more."""
        os.close(fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Whatever ails it: that much the kernel would have in memory."""
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """All of it, or as much as the disk beneath takes."""
        self._condition.grow()
        if self._condition.state.ailment is Ailment.FAILING:
            _refuse(errno.EIO)
        return os.pwrite(fh, data, offset)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """To the disk beneath, first."""
        (os.fdatasync if datasync else os.fsync)(fh)
        self._condition.force()
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Longer or shorter."""
        before = self._below(path).lstat() if fh is None else os.fstat(fh)
        (self._condition.grow if length > before.st_size else self._condition.change)()
        os.truncate(self._below(path) if fh is None else fh, length)
        return 0

    # --- names -------------------------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> int:
        """A new folder."""
        self._condition.grow()
        self._below(path).mkdir(mode)
        return 0

    def symlink(self, target: str, source: str) -> int:
        """A new link to whatever `source` says."""
        self._condition.grow()
        self._below(target).symlink_to(source)
        return 0

    def link(self, target: str, source: str) -> int:
        """Another name."""
        self._condition.grow()
        self._below(target).hardlink_to(self._below(source))
        return 0

    def unlink(self, path: str) -> int:
        """A name goes."""
        self._condition.change()
        self._below(path).unlink()
        return 0

    def rmdir(self, path: str) -> int:
        """A folder goes."""
        self._condition.change()
        self._below(path).rmdir()
        return 0

    def rename(self, old: str, new: str) -> int:
        """Another name instead."""
        self._condition.change()
        self._below(old).rename(self._below(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """Permissions."""
        self._condition.change()
        self._below(path).chmod(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        """Owner and group; -1 for one that stays."""
        self._condition.change()
        os.chown(self._below(path), uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Times, nanoseconds; now where there are none."""
        self._condition.change()
        os.utime(self._below(path), ns=times) if times else os.utime(self._below(path))
        return 0


def _options() -> dict[str, bool | int]:
    """No memory of what was read, of names, or of what a file is like: the caller may change it underneath."""
    common: dict[str, bool | int] = {"foreground": True, "direct_io": True, "hard_remove": True}
    common |= {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    if mfusepy.fuse_version_major == 2:
        # later versions do both without being asked
        common |= {"big_writes": True, "nonempty": True}
    return common


def _serve(operations: PassThrough, folder: Path) -> None:
    """Until the kernel asks no more, which is when everything ends."""
    try:
        mfusepy.FUSE(operations, str(folder), fsname="zkchaos", **_options())
    except RuntimeError as problem:
        print(f"{folder}: libfuse ended with code {problem}", flush=True)  # noqa: T201  # to its log
    os._exit(1)


def main() -> None:
    """Mount, say so, and do what is said until nobody says anything any more."""
    kernel.set_process_name("zkchaos-disk")
    os.umask(0)
    root, names = Path(sys.argv[1]), sys.argv[2:]
    channel = socket.socket(fileno=CHANNEL)
    condition, mounted = Condition(), threading.Semaphore(0)
    # All are opened before any is mounted over: this process must never wait for itself.
    served = [(PassThrough(root / name, condition, mounted), root / name) for name in names]
    for operations, folder in served:
        threading.Thread(target=_serve, args=(operations, folder), daemon=True).start()
    for _ in served:
        mounted.acquire()
    states = msgspec.json.Decoder(DiskState)
    with channel.makefile("rwb") as stream:
        _say(channel, Settled())
        for line in stream:
            condition.state = states.decode(line)
            _say(channel, Settled())
    os._exit(0)


def _say(channel: socket.socket, settled: Settled) -> None:
    channel.sendall(msgspec.json.encode(settled) + b"\n")


if __name__ == "__main__":
    main()

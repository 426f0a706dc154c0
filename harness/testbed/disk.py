"""A server's disk that can be told to ail, as whoever tells it holds it: see `disk_process`, which serves it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.errors import FuseMissing, TestbedError
from harness.testbed import disk_trial
from harness.testbed.disk_words import DiskState, Settled, Tried
from harness.testbed.handles import Process, Testbed

S = TypeVar("S", bound=msgspec.Struct)

#: How long a disk may take to be mounted, and to do what it is told, seconds. It takes 0.2 s, and less than 1 ms.
_MOUNT_TIMEOUT, _TELL_TIMEOUT = 20.0, 5.0
_TRIAL_S = 20
_LINE = 4096
_STEP = "pip install 'zk-chaos-harness[disks]', and the system's libfuse: apt install libfuse2 (or libfuse3-3)"
_DEVICE = Path("/dev/fuse")

#: Done by a process of its own, in a mount namespace of its own, which ends with it. Nobody looks into what it mounts.
_TRIAL = """
import os
from harness.testbed import kernel
import mfusepy
uid, gid = os.getuid(), os.getgid()
kernel.unshare(kernel.CLONE_NEWNS | (kernel.CLONE_NEWUSER if uid else 0))
if uid:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        open(f"/proc/self/{name}", "w").write(text)
kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
device = os.open("/dev/fuse", os.O_RDWR)
kernel.mount("zkchaos", "/", "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")
print(mfusepy.fuse_version_major, mfusepy.fuse_version_minor, sep=".")
"""


def find_fuse() -> str:
    """The version of libfuse here, after it and the kernel were tried.

    Raises:
        FuseMissing: one of them, or the package that joins them, is not there or does not work.
    """
    if not _DEVICE.exists():
        what, step = f"there is no {_DEVICE}", "modprobe fuse, as root"
        raise FuseMissing(what, cause="the kernel has no FUSE, or has not loaded it", next_step=step)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TRIAL_S,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise FuseMissing("FUSE could not be tried", cause=str(problem)[:200], next_step=_STEP) from problem
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["refused"])[-1][:200]
        raise FuseMissing("a file system in user space (FUSE) cannot be mounted here", cause=why, next_step=_STEP)
    return done.stdout.strip()


class Disk:
    """One server's disk: some of its folders, passed through by a process of their own.

    It begins to be mounted at once; `wait_mounted` before anybody opens a file there.

    Args:
        testbed: whose host the server's is. All hosts of the agent's share its mounts.
        host: the server's host.
        root: of the folders.
        names: of the folders, which exist.
        log: takes what the process has to say.
    """

    def __init__(self, testbed: Testbed, host: str, root: Path, names: Sequence[str], log: Path) -> None:
        self._testbed, self._host, self._root, self._names, self._log = testbed, host, root.absolute(), names, log
        self._python, self._environment = testbed.python
        argv = [self._python, "-m", "harness.testbed.disk_process", str(self._root), *names]
        self._process = testbed.spawn(host, argv, self._environment, log, channel=True)
        self._talk = Talk(self._process, host)
        self._trial: Talk | None = None

    def wait_mounted(self) -> Talk:
        """Wait until it is there; whoever will try it is started, and returned. Idempotent.

        Raises:
            TestbedError: it does not come.
        """
        if self._trial is None:
            self._heard(self._talk.hear(Settled, _MOUNT_TIMEOUT), "the server's disk could not be mounted")
            argv = [self._python, "-I", "-S", disk_trial.__file__, str(self._root / self._names[0])]
            process = self._testbed.spawn(self._host, argv, self._environment, self._log, channel=True)
            self._trial = Talk(process, self._host)
        return self._trial

    def set(self, state: DiskState) -> None:
        """Let it be so; returns when it is.

        Raises:
            TestbedError: its process is gone.
        """
        self.wait_mounted()
        self._talk.say(msgspec.json.encode(state))
        self._heard(self._talk.hear(Settled, _TELL_TIMEOUT), "the server's disk does not answer")

    def attempt(self, timeout: float) -> Tried | None:
        """Make, write and force a scratch file beside the server's own; None if that takes longer than the timeout.

        The attempt itself is not given up: as long as it hangs, there is no other.

        Args:
            timeout: seconds.

        Raises:
            TestbedError: whoever tries it is gone.
        """
        talk, deadline = self.wait_mounted(), time.monotonic() + timeout
        if talk.waiting and talk.hear(Tried, timeout) is None:
            return None
        talk.say(b"again")
        return talk.hear(Tried, max(0.001, deadline - time.monotonic()))

    def _heard(self, settled: Settled | None, otherwise: str) -> None:
        if settled is None:
            said = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
            raise TestbedError(
                otherwise,
                where=self._host,
                cause=said[-1][:200] if said else "",
                next_step="`zkchaos doctor` tries FUSE; the disk's log says more",
            )


class Talk:
    """Lines with one process."""

    def __init__(self, process: Process, host: str) -> None:
        if process.channel is None:
            raise TestbedError("the process was started without a channel", where=host)
        self._channel, self._host = process.channel, host
        weakref.finalize(self, self._channel.close)  # nobody has more to say then
        self._rest = b""
        #: Whether an answer is due.
        self.waiting = False

    def say(self, line: bytes) -> None:
        """Send a line.

        Raises:
            TestbedError: the process is gone.
        """
        try:
            self._channel.sendall(line + b"\n")
        except OSError as problem:
            raise TestbedError("the process of a disk is gone", where=self._host, cause=str(problem)) from problem
        self.waiting = True

    def hear(self, kind: type[S], timeout: float) -> S | None:
        """The next answer; None if there is none within so many seconds, or never will be."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._channel.recv(_LINE)
            except TimeoutError:
                return None
            if not piece:
                return None
            self._rest += piece
        line, _newline, self._rest = self._rest.partition(b"\n")
        self.waiting = False
        return msgspec.json.decode(line, type=kind)

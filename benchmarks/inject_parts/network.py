"""A network as shell scripts make it, in namespaces that end with the process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.testbed import kernel

SWITCHES = ("net1", "net2")


class PlainNetwork:
    """A network of the same size and make, by `ip` in the namespaces that this process stands in."""

    def __init__(self, hosts: int) -> None:
        #: Their names.
        self.hosts = [f"h{number}" for number in range(1, hosts + 1)]
        with contextlib.suppress(OSError):  # as in a testbed: a port has no address, and is faster without IPv6
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1", encoding="ascii")
        lines = []
        for switch in SWITCHES:
            lines.append(f"link add {switch} type bridge stp_state 0")
            lines.append(f"link set {switch} up")
        for host in self.hosts:
            run(["ip", "netns", "add", host])
            for switch in SWITCHES:
                lines.append(f"link add {switch}{host} type veth peer name {switch} netns {host}")
                lines.append(f"link set {switch}{host} master {switch} up")
        run(["ip", "-batch", "-"], "\n".join(lines))
        for number, host in enumerate(self.hosts, start=1):
            own = [f"addr add 10.77.{p}.{number}/24 dev net{p}\nlink set net{p} up" for p in (1, 2)]
            run(["ip", "-n", host, "-batch", "-"], "\n".join(own))

    def ports(self) -> list[str]:
        """The first switch's."""
        return [f"{SWITCHES[0]}{host}" for host in self.hosts]

    def pairs(self) -> list[tuple[str, str]]:
        """The addresses of a partition of the first host from all others: from which one to which one."""
        numbers = range(2, len(self.hosts) + 1)
        ways = [way for other in numbers for way in ((1, other), (other, 1))]
        return [(f"10.77.{p}.{source}", f"10.77.{p}.{to}") for p in (1, 2) for source, to in ways]


def run(words: Sequence[str], text: str = "") -> tuple[int, int]:
    """Run a process; the monotonic instants before and after it, nanoseconds."""
    start = time.monotonic_ns()
    done = subprocess.run(words, input=text.encode(), capture_output=True, check=False)
    end = time.monotonic_ns()
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.decode().strip()}")
    return start, end


def apart(work: Callable[[], None]) -> None:
    """Do it in a process that stands in namespaces of its own, which end with it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            uid, gid = os.getuid(), os.getgid()
            kernel.unshare((kernel.CLONE_NEWUSER if uid else 0) | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
            if uid:
                Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
                Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
                Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
            kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
            kernel.mount("tmpfs", "/run", "tmpfs", 0)
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit(1)

"""What a command finds in the guest: the machine's files under a layer that takes all writes, and the usual mounts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from harness.errors import EnvironmentLacking, TestbedError
from harness.usermode import calls
from harness.usermode.order import TOP_FOLDER, Order

#: Where Debian keeps the modules of its user-mode kernels.
MODULES = "/usr/lib/uml/modules"
#: Loaded ahead, as the kernel loads no module by itself for a process in a user namespace. One that is missing is no
#: error: what needs it will say so.
_AHEAD = (
    *("bridge", "veth", "ifb", "sch_netem", "sch_tbf", "sch_htb", "sch_prio", "sch_ingress", "cls_u32", "cls_flower"),
    *("cls_matchall", "act_gact", "act_mirred", "nf_tables", "nft_ct", "nft_limit", "nft_numgen", "nft_reject"),
    *("ip_tables", "iptable_filter", "ipt_REJECT", "xt_multiport", "xt_statistic", "xt_tcpudp"),
    "fuse",
)
#: Administrators' programs, which the caller may not have in PATH; in the guest everybody is one.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_ENGINE_LOG = Path("/run/dockerd.log")
_ENGINE_S = 60.0
ENGINE = "unix:///run/docker.sock"


def enter(scratch: Path, order: Order) -> None:
    """Make the surroundings, and stand in them.

    Args:
        scratch: the folder that the order lies in; still read-only, as all of the machine's files.
        order: says what may be written to.

    Raises:
        OSError: the kernel refused a mount.
        EnvironmentLacking: no `modprobe`, or no module of overlayfs.
    """
    top = scratch / TOP_FOLDER
    calls.mount("proc", "/proc")
    calls.mount("tmpfs", str(top))
    upper, work, root = (top / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root, top / "lib"):
        folder.mkdir()
    (top / "lib" / "modules").symlink_to(MODULES)
    _modprobe("-d", str(top), "overlay")
    # Whatever is written ends with the kernel: `volatile` spares syncing it.
    calls.mount("overlay", str(root), f"lowerdir=/,upperdir={upper},workdir={work},xino=off,volatile")
    calls.change_root(str(root))
    _mount_the_usual()
    for place in order.writable:
        Path(place).mkdir(parents=True, exist_ok=True)
        calls.mount("hostfs", place, place)
    _link_modules()
    _modprobe("-a", "-q", *_AHEAD, check=False)
    _settle()


def _mount_the_usual() -> None:
    safe = calls.MS_NOSUID | calls.MS_NODEV | calls.MS_NOEXEC
    calls.mount("proc", "/proc", flags=safe)
    calls.mount("sysfs", "/sys", flags=safe)
    calls.mount("cgroup2", "/sys/fs/cgroup", flags=safe)
    calls.mount("devtmpfs", "/dev", "mode=0755")
    for place, kind, data in (
        ("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"),
        ("/dev/shm", "tmpfs", "mode=1777"),
        ("/run", "tmpfs", "mode=0755"),
    ):
        Path(place).mkdir(exist_ok=True)
        calls.mount(kind, place, data, calls.MS_NOSUID)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        with suppress(FileExistsError):
            Path("/dev", name).symlink_to(target)
    Path("/run/lock").mkdir()


def _link_modules() -> None:
    """Let the kernel find its modules where it looks for them."""
    release = os.uname().release
    place = Path("/lib/modules", release)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(MODULES, release))


def _settle() -> None:
    """The network's loopback, a name, and writes that reach the machine's disk within a second or two."""
    subprocess.run([_program("ip"), "link", "set", "lo", "up"], check=True)
    socket.sethostname("usermode")
    Path("/proc/sys/vm/dirty_writeback_centisecs").write_text("50", encoding="ascii")
    Path("/proc/sys/vm/dirty_expire_centisecs").write_text("100", encoding="ascii")


def _modprobe(*words: str, check: bool = True) -> None:
    done = subprocess.run([_program("modprobe"), *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise EnvironmentLacking(f"modprobe {' '.join(words)}: {done.stderr.strip()}")


def search_path(environ: dict[str, str]) -> str:
    """The caller's PATH, and the administrators' folders."""
    path = [p for p in environ.get("PATH", os.defpath).split(os.pathsep) if p]
    return os.pathsep.join(dict.fromkeys((*path, *_SBIN)))


def _program(name: str) -> str:
    found = shutil.which(name, path=search_path({}))
    if found is None:
        raise EnvironmentLacking(f"there is no {name} on this machine")
    return found


def start_engine() -> None:
    """Start a Docker engine, and wait until it answers. Its images and containers end with the kernel.

    Raises:
        EnvironmentLacking: there is no dockerd.
        TestbedError: it does not answer.
    """
    # overlay2 does not stand on another overlay
    data = Path("/var/lib/zkchaos-docker")
    data.mkdir(parents=True, exist_ok=True)
    calls.mount("tmpfs", str(data), "mode=0711")
    # No packet filter of its own: the testbed's networks are internal. No default bridge: nothing uses it.
    words = ["--host", ENGINE, "--data-root", str(data), "--storage-driver", "overlay2"]
    words += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--pidfile", "/run/docker.pid"]
    with _ENGINE_LOG.open("wb") as log:
        engine = subprocess.Popen(
            [_program("dockerd"), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": search_path({}), "HOME": "/root"},
            start_new_session=True,
        )
    deadline = time.monotonic() + _ENGINE_S
    while not _answers():
        if engine.poll() is not None or time.monotonic() > deadline:
            tail = _ENGINE_LOG.read_text(errors="replace")[-500:]
            raise TestbedError(f"the Docker engine in the guest does not answer: {tail}", where="dockerd")
        time.sleep(0.1)


def _answers() -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(ENGINE.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False

"""The one process that stands where the privileges are.

Started as ``python -m harness.testbed.agent SOCKET CALLER`` with two inherited descriptors: the Unix socket that
requests come over, and a pidfd of the caller. It enters fresh user, network, mount and pid namespaces (no user
namespace where it is root already), forks, and the child serves as process 1 of the pid namespace. When the
caller, the socket or the agent goes, by any means, process 1 ends, and the kernel takes every process,
interface and namespace of the testbed with it. Nothing of the host is changed at any time. Links of a Docker engine,
which outlive the agent, are restored by it before it ends.

In a helper container it is started as ``python -m harness.testbed.agent --stdio UID GID``: requests come over the
standard input (see `relay`), whose end is the caller's, and what it starts on a host runs as that user.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

from harness.errors import NamespacesForbidden
from harness.testbed import kernel, wire
from harness.testbed.network import Network
from harness.testbed.relay import PipeStream, Relay
from harness.testbed.serving import Server
from harness.testbed.spaces import Surroundings

#: How long an agent in a helper container may take to end, seconds; then it is killed.
_FAREWELL = 5


def main() -> None:
    """Enter the namespaces, fork, serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1] == "--stdio":
        _relay_standard_streams(int(sys.argv[2]), int(sys.argv[3]))
        return
    connection = socket.socket(fileno=int(sys.argv[1]))
    caller = int(sys.argv[2])
    surroundings = Surroundings.now()
    try:
        rootless = _enter()
    except OSError as problem:
        wire.send(connection, _forbidden(problem))
        sys.exit(1)
    launcher = os.pidfd_open(os.getpid())
    child = os.fork()
    if child:
        kernel.set_process_name("zkchaos-launch")
        connection.close()
        os.waitpid(child, 0)
        sys.exit(0)
    _serve_as_first_process(connection, (caller, launcher), surroundings, rootless=rootless)


def _relay_standard_streams(uid: int, gid: int) -> None:
    """Fork the agent, and stand between it and our standard streams until either ends."""
    stream = PipeStream(os.dup(0), os.dup(1))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # a stray word must not get among the frames
    ours, theirs = socket.socketpair()
    surroundings = Surroundings.now()
    try:
        rootless = _enter()
        _start_processes_as(uid, gid)
    except OSError as problem:
        wire.send(theirs, _forbidden(problem))
        theirs.close()
        Relay(ours, stream).run()
        sys.exit(1)
    launcher = os.pidfd_open(os.getpid())
    child = os.fork()
    if not child:
        ours.close()
        stream.close()
        _serve_as_first_process(theirs, (launcher,), surroundings, rootless=rootless)
    kernel.set_process_name("zkchaos-relay")
    theirs.close()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))  # the engine asks the container to stop
    try:
        Relay(ours, stream).run()
    finally:
        # Everything in the container is killed when we end, but the agent may have links to restore. Not for ever:
        signal.alarm(_FAREWELL)
        os.waitpid(child, 0)


def _start_processes_as(uid: int, gid: int) -> None:
    """Let them belong to a user, though we stay root: their effective ids will be reset to our real ones."""
    if (uid, gid) != (0, 0):
        os.setgroups([])
        os.setresgid(gid, 0, 0)
        os.setresuid(uid, 0, 0)


def _enter() -> bool:
    """Unshare; True if a user namespace was needed."""
    spaces = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWPID
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        try:
            kernel.unshare(spaces)
        except PermissionError:
            pass  # root without CAP_SYS_ADMIN, as in a container: a user namespace may still be allowed
        else:
            return False
    kernel.unshare(kernel.CLONE_NEWUSER | spaces)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    return True


def _forbidden(problem: OSError) -> wire.Failed:
    """Why namespaces are refused here, and what to enable."""
    cause, step = "the kernel or the container that this runs in forbids it", "see `zkchaos doctor`"
    for path, bad, name in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=10000"),
        ("/proc/sys/user/max_pid_namespaces", "0", "user.max_pid_namespaces=10000"),
        ("/proc/sys/user/max_mnt_namespaces", "0", "user.max_mnt_namespaces=10000"),
    ):
        setting = Path(path)
        if setting.exists() and setting.read_text(encoding="ascii").strip() == bad:
            cause, step = f"{path} is {bad}", f"enable them (`sysctl -w {name}`), or run as root"
            break
    what = f"this machine refuses the namespaces that the testbed is made of: {problem.strerror or problem}"
    return wire.Failed(NamespacesForbidden.__name__, what, "namespaces testbed", cause, step, problem.errno or 0)


def _serve_as_first_process(
    connection: socket.socket, guardians: tuple[int, ...], surroundings: Surroundings, *, rootless: bool
) -> None:
    network = Network(surroundings)
    threading.Thread(target=_end_with, args=(connection.fileno(), guardians, network), daemon=True).start()
    kernel.set_process_name("zkchaos-agent")
    try:
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    except OSError as problem:
        wire.send(connection, _forbidden(problem))
        os._exit(1)
    try:
        wire.send(connection, wire.Ready(rootless, sys.executable, os.environ.get("PYTHONPATH", "")))
        Server(connection, network).serve()
    except wire.ConnectionEnded:
        network.restore()
    # Not sys.exit: nothing is worth cleaning up that the kernel does not clean up by itself.
    os._exit(0)


def _end_with(descriptor: int, guardians: tuple[int, ...], network: Network) -> None:
    """End this process as soon as the socket, the caller or the launcher is gone, whatever the main thread does.

    The guardians are pidfds: a parent-death signal would be lost if the parent died before it was asked for.
    """
    poller = select.poll()
    poller.register(descriptor, select.POLLRDHUP)
    for guardian in guardians:
        poller.register(guardian, select.POLLIN)
    poller.poll()
    network.restore()
    os._exit(0)


if __name__ == "__main__":
    main()

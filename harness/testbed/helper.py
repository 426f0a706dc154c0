"""The agent in a helper container, for whoever may talk to a Docker engine and is not root beside it.

The container stands in the engine's own network and pid namespace, with the capabilities of `CAPABILITIES` and no
others, and without the engine's socket. It is spoken to over its standard streams alone. When the caller goes, by
any means, the engine closes its standard input; the agent ends, and with it the container and all that it started.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound
from docker.transport import UnixHTTPAdapter
from docker.types import LogConfig, Mount

from harness.errors import EngineUnavailable
from harness.testbed.attached import AttachedStream
from harness.testbed.client import AgentClient
from harness.testbed.engine import LABEL_HOST, run_labels
from harness.testbed.refusals import refusals
from harness.testbed.relay import Relay

#: What the agent needs, and for what. `tests/integration/test_helper.py` shows that it can do without none.
CAPABILITIES: Mapping[str, str] = {
    "SYS_ADMIN": "to make network, mount and pid namespaces and to enter them, and to mount its own /proc",
    "NET_ADMIN": "to make NICs and to set links",
    "SYS_PTRACE": "to find the network namespaces of the servers' containers, through /proc/<pid>/ns/net",
}
#: What it needs besides where the caller is not root: it starts processes as the caller.
CAPABILITIES_FOR_USER: Mapping[str, str] = {
    "SETUID": "to start processes as the caller, who will own the files that they write",
    "SETGID": "the same for the caller's group",
}

_ENTRY = ["python3", "-m", "harness.testbed.agent"]
#: The container's search path; the agent and the processes that it starts find their programs there.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: How long the container may take to be gone when its agent has ended, seconds. It takes a fraction of one.
_REMOVAL_TIMEOUT = 10.0


def start_helper(engine: docker.DockerClient, run_id: str, *, image: str, mounts: Sequence[Path]) -> AgentClient:
    """Start a helper container; it is gone when the client is closed, or the caller ends.

    Args:
        engine: where.
        run_id: for its labels and its name.
        image: one that has Python 3 and the harness.
        mounts: folders that the processes on its hosts may write to, under the same names.

    Raises:
        EngineUnavailable: the image is not there.
        TestbedError: the engine refuses the container.
    """
    return AgentClient(HelperContainer(engine, run_id, image=image, mounts=mounts))


class HelperContainer:
    """Where the agent runs: a container, with a relay to it. Arguments and errors are those of `start_helper`."""

    def __init__(self, engine: docker.DockerClient, run_id: str, *, image: str, mounts: Sequence[Path]) -> None:
        self._api = engine.api
        self.name = f"zkchaos-{run_id}-helper"
        self.environment: Mapping[str, str] = {"PATH": _PATH, "LANG": "C.UTF-8"}
        with refusals(self.name, next_step="see `zkchaos doctor`"):
            security = tuple(str(option) for option in engine.info().get("SecurityOptions") or ())
            self._id = self._create(image, {**run_labels(run_id), LABEL_HOST: "helper"}, security, mounts)
            self._stream = self._attach_and_start()
        self.connection, theirs = socket.socketpair()
        relay = Relay(theirs, self._stream)
        self._relay = threading.Thread(target=relay.run, name=f"relay to {self.name}", daemon=True)
        self._relay.start()

    def _create(self, image: str, labels: Mapping[str, str], security: Sequence[str], mounts: Sequence[Path]) -> str:
        identity = _identity(security)
        try:
            container = self._api.create_container(
                image,
                entrypoint=_ENTRY,
                command=["--stdio", *map(str, identity)],
                name=self.name,
                labels=labels,
                environment={**self.environment, "PYTHONDONTWRITEBYTECODE": "1"},
                working_dir="/",
                user="0:0",
                stdin_open=True,  # and once: when we are gone, it ends
                host_config=self._api.create_host_config(**_confinement(security, identity, mounts)),
            )
        except ImageNotFound as missing:
            raise EngineUnavailable(
                "the engine lacks the helper's image", where=image, next_step="make it: `zkchaos image`"
            ) from missing
        return str(container["Id"])

    def _attach_and_start(self) -> AttachedStream:
        """Attach first: the SDK loses what comes between its reading of the answer and ours of the stream."""
        try:
            asked = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            stream = AttachedStream(self._api.attach_socket(self._id, params=asked))
            try:
                self._api.start(self._id)
            except BaseException:
                stream.close()
                raise
        except BaseException:
            with contextlib.suppress(DockerException, OSError):
                self._api.remove_container(self._id, force=True)
            raise
        return stream

    def ended(self) -> str | None:
        """The last that it said on its standard error, if it said anything."""
        if not self._stream.closed:
            return None
        lines = self._stream.errors.splitlines()
        return f"ended ({lines[-1][:200]})" if lines else "ended"

    def end(self) -> None:
        """Wait until the container is gone. Idempotent."""
        self._relay.join(timeout=_REMOVAL_TIMEOUT)
        deadline = time.monotonic() + _REMOVAL_TIMEOUT
        with contextlib.suppress(DockerException, OSError):  # it is gone, or nobody is left to say
            while time.monotonic() < deadline:
                self._api.inspect_container(self._id)
                time.sleep(0.02)
            self._api.remove_container(self._id, force=True)


def _identity(security: Sequence[str]) -> tuple[int, int]:
    """Who the processes on its hosts are: the caller; for an engine without root, root is the engine's user."""
    return (0, 0) if "name=rootless" in security else (os.getuid(), os.getgid())


def _confinement(security: Sequence[str], identity: tuple[int, int], mounts: Sequence[Path]) -> dict[str, object]:
    modules = {option.split(",")[0] for option in security}
    options = ["no-new-privileges:true"]
    if "name=apparmor" in modules:
        options.append("apparmor=unconfined")  # the engine's profile denies every mount, /proc too
    if "name=selinux" in modules:
        options.append("label=disable")  # it keeps the container from other processes' namespaces and from the mounts
    return {
        "network_mode": "host",
        "pid_mode": "host",
        "userns_mode": "host" if "name=userns" in modules else None,
        "cap_drop": ["ALL"],
        "cap_add": [*CAPABILITIES, *(CAPABILITIES_FOR_USER if identity != (0, 0) else ())],
        "security_opt": options,
        "read_only": True,
        "auto_remove": True,
        "log_config": LogConfig(type="none"),  # what it says is not text
        "mounts": [Mount(target=str(path), source=str(path), type="bind") for path in mounts],
    }


def engine_pid(engine: docker.DockerClient) -> int:
    """The process that listens at the engine's socket, as our pid namespace counts; 0 where it is not in sight.

    It is the engine, or whoever opened the socket for it (as systemd does), in the engine's network namespace.
    """
    adapter = engine.api.get_adapter(engine.api.base_url)
    peer = getattr(socket, "SO_PEERCRED", None)  # not on a Mac, where an engine is never beside us
    if peer is None or not isinstance(adapter, UnixHTTPAdapter):
        return 0
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(adapter.socket_path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, peer, struct.calcsize("3i"))
        except OSError:
            return 0
    return int(struct.unpack("3i", credentials)[0])


def way(engine: docker.DockerClient) -> tuple[str, str]:
    """How the agent gets to the engine's networks: `agent` (a process beside us) or `helper` (a container), and why."""
    if os.geteuid() != 0:
        return "helper", "we are not root"
    pid = engine_pid(engine)
    if not pid:
        return "helper", "the engine is not a process of this machine"
    with refusals("the engine"):
        kernel = str(engine.version().get("KernelVersion"))
    if kernel != os.uname().release:
        return "helper", f"the engine runs on another kernel ({kernel})"
    try:
        os.close(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
    except OSError as problem:
        return "helper", f"the network namespace of the engine (pid {pid}) is closed to us: {problem.strerror}"
    return "agent", f"we are root beside the engine (pid {pid})"

"""The Docker engine, and the labels by which everything that a run makes there can be found again."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

from harness.errors import EngineUnavailable
from harness.testbed.owners import Owner

if TYPE_CHECKING:
    import docker

#: On everything that a run makes: the run's id, and who made it (see `owner`).
LABEL_RUN = "zkchaos.run"
LABEL_OWNER = "zkchaos.owner"
#: On a container: the host of the topology that it is (`zk1`), or `helper`.
LABEL_HOST = "zkchaos.host"
#: On a network: the switch of the topology that it is.
LABEL_SWITCH = "zkchaos.switch"
#: On everything of a topology: its name.
LABEL_TOPOLOGY = "zkchaos.topology"

#: How long the engine may take to answer one request, seconds; it is slow while it makes or removes many things.
_ANSWER_TIMEOUT = 60


def connect_engine(timeout: int = _ANSWER_TIMEOUT) -> docker.DockerClient:
    """The engine that `DOCKER_HOST` names, else the local one.

    Raises:
        EngineUnavailable: it does not answer, or the SDK for it is not installed.
    """
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        import docker  # noqa: PLC0415  # an extra, and 0.2 s that whoever needs no engine does not wait
        from docker.errors import DockerException  # noqa: PLC0415  # as above
    except ModuleNotFoundError as missing:
        raise EngineUnavailable(
            "the Docker SDK for Python is not installed",
            cause=str(missing),
            next_step="`pip install 'zk-chaos-harness[docker]'`; `--testbed namespaces` needs none",
        ) from missing
    try:
        _look_for_socket(where)
        return docker.from_env(timeout=timeout, version="auto")
    except (DockerException, OSError) as problem:
        cause = problem.strerror if isinstance(problem, OSError) else None
        raise EngineUnavailable(
            "no Docker engine answers",
            where=where,
            cause=(cause or str(problem)).splitlines()[0][:200],
            next_step="start it, join the group `docker`, or set DOCKER_HOST; `--testbed namespaces` needs none",
        ) from problem


def _look_for_socket(where: str) -> None:
    """Connect once to an engine's local socket: the SDK forgets to close one that it cannot connect.

    Raises:
        OSError: it is not there, nobody listens, or this user may not.
    """
    scheme, _, path = where.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)


def new_run_id() -> str:
    """Ten characters that no other run has."""
    return secrets.token_hex(5)


def run_labels(run_id: str) -> dict[str, str]:
    """The labels of everything that this process makes for a run."""
    return {LABEL_RUN: run_id, LABEL_OWNER: owner()}


def owner(pid: int | None = None) -> str:
    """Who a process (None: this one) is, so that no other is ever taken for it; see `owners`."""
    return str(Owner.of_this_process() if pid is None else Owner.of(pid))

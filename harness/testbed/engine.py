"""The Docker engine, and the labels by which everything that a run makes there can be found again."""

from __future__ import annotations

import os
import secrets
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
        client = docker.from_env(timeout=timeout, version="auto")
    except DockerException as problem:
        raise EngineUnavailable(
            "no Docker engine answers",
            where=where,
            cause=str(problem).splitlines()[0][:200],
            next_step="start it, join the group `docker`, or set DOCKER_HOST; `--testbed namespaces` needs none",
        ) from problem
    return client


def new_run_id() -> str:
    """Ten characters that no other run has."""
    return secrets.token_hex(5)


def run_labels(run_id: str) -> dict[str, str]:
    """The labels of everything that this process makes for a run."""
    return {LABEL_RUN: run_id, LABEL_OWNER: owner()}


def owner(pid: int | None = None) -> str:
    """Who a process (None: this one) is, so that no other is ever taken for it; see `owners`."""
    return str(Owner.of_this_process() if pid is None else Owner.of(pid))

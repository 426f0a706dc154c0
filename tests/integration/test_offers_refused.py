"""Faults that a server of somebody else would not survive, or would not feel, are refused before it is touched."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from harness.images.server import find_server_image
from harness.zookeeper.lock import DEFAULT_VERSION
from tests.integration.command_line import zkchaos
from tests.integration.foreign import SMALL, process_state

NAME = f"test-offers-{os.getpid()}-{secrets.token_hex(3)}"
LABEL = f"test.offers={NAME}"


@pytest.fixture(scope="module")
def server(engine: docker.DockerClient, engine_images: None) -> Iterator[Container]:
    """As `docker run --rm --init` starts it: the first process is the engine's own, and nothing outlives it."""
    network = engine.networks.create(NAME, driver="bridge", internal=True)
    container = None
    try:
        container = engine.containers.run(
            find_server_image(engine, DEFAULT_VERSION, lambda _line: None),
            name=NAME,
            labels=dict([LABEL.split("=")]),
            environment=SMALL,
            network=NAME,
            detach=True,
            auto_remove=True,
            init=True,
        )
        yield container
    finally:
        if container is not None:
            container.remove(force=True, v=True)
        network.remove()


@pytest.mark.parametrize(
    ("kind", "target", "said"),
    [
        ("kill", "zk1", "it is not offered of zk1: its container is removed when it ends (`--rm`), with all its data"),
        ("restart", "leader", "it is not offered of zk1: its container is removed when it ends"),
        ("pause", "all", "it is not offered of zk1: the first process of its container is"),
    ],
)
def test_a_fault_by_hand(server: Container, kind: str, target: str, said: str, tmp_path: Path) -> None:
    refused = zkchaos("fault", kind, target, "--on", LABEL, cwd=tmp_path)
    assert refused.complaint(64).startswith(f"zkchaos fault {kind}: {said}")
    assert process_state(server) == "S"


def test_a_plan(server: Container, tmp_path: Path) -> None:
    refused = zkchaos("run", "leader-kill", "--attach", LABEL, cwd=tmp_path)
    assert refused.complaint(64).startswith("leader-kill:step[0]: fault kill is not offered of zk1: its container is")
    assert process_state(server) == "S"
    assert list(tmp_path.iterdir()) == []  # not even a run folder

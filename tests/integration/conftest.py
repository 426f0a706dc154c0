"""Skips what this machine cannot do; fails instead where ZKCHAOS_REQUIRE says that it must."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from harness.compose_project import compose_command
from harness.errors import EnvironmentLacking
from harness.images.helper import ensure_helper_image
from harness.images.server import find_server_image
from harness.testbed.client import AgentClient
from harness.testbed.engine import connect_engine
from harness.testbed.namespaces import NamespacesTestbed
from harness.testbed.turns import turn
from harness.topology.model import Topology
from harness.usermode.machine import find_kernel
from harness.zookeeper.cache import CACHE_VARIABLE
from harness.zookeeper.java import find_java
from harness.zookeeper.lock import DEFAULT_VERSION
from tests.integration.foreign import Project, mend, set_ups, two_networks


def require(name: str, lacking: str) -> None:
    """Skip the test, or fail it if the environment says that `name` must be here."""
    if name in os.environ.get("ZKCHAOS_REQUIRE", "").split(","):
        pytest.fail(f"ZKCHAOS_REQUIRE names {name}: {lacking}", pytrace=False)
    pytest.skip(lacking)


@pytest.fixture(scope="session")
def namespaces_allowed() -> None:
    """The machine allows namespaces."""
    agent = AgentClient()
    try:
        agent.wait_ready()
    except EnvironmentLacking as lacking:
        require("namespaces", str(lacking))
    finally:
        agent.close()


@pytest.fixture(scope="session")
def java() -> None:
    """The machine has a Java."""
    try:
        find_java()
    except EnvironmentLacking as lacking:
        require("java", str(lacking))


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A Docker engine answers."""
    try:
        client = connect_engine()
    except EnvironmentLacking as lacking:
        require("docker", str(lacking))
    yield client
    client.close()


@pytest.fixture(scope="session")
def engine_images(engine: docker.DockerClient) -> None:
    """The engine has the images of a run: a server's, and the helper's as the sources are now."""
    try:
        find_server_image(engine, DEFAULT_VERSION, lambda _line: None)
        ensure_helper_image(engine, lambda _line: None)
    except EnvironmentLacking as lacking:
        require("docker", str(lacking))


@pytest.fixture
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test attaches is not what this machine's user has attached last."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def server_image(engine: docker.DockerClient) -> str:
    """The image of a server of the version that is the default."""
    try:
        return find_server_image(engine, DEFAULT_VERSION, lambda _line: None)
    except EnvironmentLacking as lacking:
        require("docker", str(lacking))
        raise


@pytest.fixture(scope="session")
def foreign_project(engine: docker.DockerClient, server_image: str) -> Iterator[Project]:
    """Three servers on two networks, by Compose, as somebody set them up who does not know this harness."""
    try:
        compose_command()
    except EnvironmentLacking as lacking:
        require("compose", str(lacking))
    made = two_networks(f"zkchaos-test-{os.getpid()}", server_image, engine)
    try:
        made.up()
        mend(made.name)
        yield made
    finally:
        made.down()


@pytest.fixture
def foreign(foreign_project: Project) -> Iterator[Project]:
    """The same, whole; its containers are set up afterwards as they were before."""
    before = set_ups(foreign_project)
    yield foreign_project
    after = set_ups(foreign_project)
    assert {key: after.get(key) for key in before if after.get(key) != before[key]} == {}
    assert after.keys() == before.keys()


@pytest.fixture(scope="session")
def usermode() -> None:
    """A user-mode kernel is installed."""
    try:
        find_kernel(os.environ)
    except EnvironmentLacking as lacking:
        require("usermode", str(lacking))


@pytest.fixture
def subnets(engine: docker.DockerClient) -> Iterator[None]:
    """The library's subnets on the engine, which exist once, for this test alone.

    Not for tests that start a pytest of their own: the plugin waits for its turn itself.
    """
    with turn(engine):
        yield


@pytest.fixture
def make_testbed(namespaces_allowed: None) -> Iterator[Callable[[Topology], NamespacesTestbed]]:
    """Build testbeds that are closed at the end of the test."""
    made: list[NamespacesTestbed] = []

    def make(topology: Topology) -> NamespacesTestbed:
        made.append(NamespacesTestbed(topology))
        return made[-1]

    yield make
    for testbed in made:
        testbed.close()


def command(name: str) -> str:
    """The path of a program that the test needs."""
    path = shutil.which(name)
    if path is None:
        require(name, f"{name} is not installed")
    return path or ""

"""The stage of a run on a Docker engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path

import docker
from docker.models.images import Image

from harness.errors import FaketimeMissing, TestbedError, UsageError
from harness.history.folder import RunFolder
from harness.history.scenario import ServerSoftware
from harness.images.helper import ensure_helper_image
from harness.images.server import find_server_image
from harness.stage.stage import Stage, Tell, versions_of
from harness.testbed.client import AgentClient, take_agent
from harness.testbed.containers import ContainersTestbed
from harness.testbed.engine import connect_engine, new_run_id, run_labels
from harness.testbed.helper import engine_pid, start_helper, way
from harness.testbed.reaper import Reaper
from harness.testbed.refusals import refusals
from harness.topology.model import Topology
from harness.topology.proxies import proxies_of
from harness.toxiproxy.program import ensure_program
from harness.zookeeper.clock import CLOCKS, Clocks, find_faketime
from harness.zookeeper.container_server import ContainerStarter
from harness.zookeeper.disk import DISKS
from harness.zookeeper.fetch import fetch_evidence
from harness.zookeeper.foreign import ForeignStarter, ForeignTestbed
from harness.zookeeper.found import find_ensemble
from harness.zookeeper.launch import Preparation

#: Where an image is shown a library to try, and how far behind that puts its clock, seconds.
_TRIED_AT, _BEHIND_S = "/tmp/libfaketime.so", 86_400


def make(
    topology: Topology, root: Path | None, tell: Tell | None, prepared: Collection[str] = (), *, helper: bool
) -> Stage:
    """As `make.make_stage`; `helper` insists on the helper container.

    Raises:
        EngineUnavailable: no engine answers, or an image is not there.
        TestbedError: the engine refused.
    """
    say = tell or (lambda _line: None)
    with contextlib.ExitStack() as undo:
        client = undo.enter_context(contextlib.closing(connect_engine()))
        toxiproxy = _find_toxiproxy(client, topology, say, helper=helper)
        images = find_images(client, topology, say)
        facts = {i: client.images.get(image) for i, image in images.items()}
        run_id = new_run_id()
        undo.callback(Reaper.start(run_id).close)
        prepared_with = preparations(prepared, client, images.values(), run_id)
        agent, pid, kind = engine_agent(client, run_id, root, say, helper=helper)
        testbed = ContainersTestbed(topology, client, agent, run_id=run_id, engine_pid=pid, kind=kind)
        undo.callback(testbed.close)
        close = undo.pop_all().close
    servers = tuple(ServerSoftware(i, _version(images[i]), f"{images[i]} {image.id}", {}) for i, image in facts.items())
    java = _environment(next(iter(facts.values()))).get("JAVA_VERSION", "as in the image")
    starter = ContainerStarter(testbed, topology, images, prepared_with)
    return Stage(testbed, starter, java, "image", servers, close, toxiproxy=toxiproxy)


def preparations(
    names: Collection[str], client: docker.DockerClient, images: Collection[str], run_id: str
) -> dict[str, Preparation]:
    """What servers are to be started with.

    Raises:
        UsageError: that is not possible here.
        EnvironmentLacking: this machine or an image lacks what it is made of.
    """
    if DISKS in names:
        raise UsageError(
            "faults of disks are not offered on a Docker engine",
            cause="it would have to see the mounts of a server's disk, which would then outlive a killed harness",
            next_step="run it with `--testbed namespaces`",
        )
    makers: dict[str, Callable[[], Preparation]] = {
        CLOCKS: lambda: _clocks(client, images, run_id),
    }
    # of the others, a container has what faults need by itself
    return {name: make() for name, make in makers.items() if name in names}


def _clocks(client: docker.DockerClient, images: Collection[str], run_id: str) -> Clocks:
    """Containers take this machine's libfaketime, where their C library does."""
    library = find_faketime()
    for image in sorted(set(images)):
        with refusals(image):
            said = client.containers.run(
                image,
                ["+%s"],
                entrypoint=["date"],
                environment={"LD_PRELOAD": _TRIED_AT, "FAKETIME": f"-{_BEHIND_S}"},
                volumes=[f"{library}:{_TRIED_AT}:ro"],
                network_mode="none",
                labels=run_labels(run_id),
                remove=True,
            )
        if time.time() - float(said) < _BEHIND_S / 2:
            raise FaketimeMissing(
                "this machine's libfaketime does not work in the image",
                where=image,
                cause="it has another C library, or an older one",
                next_step="choose an image of a distribution as new as this machine's, or --testbed namespaces",
            )
    return Clocks(library, in_containers=True)


def attach(name: str, topology: Topology, root: Path | None, tell: Tell | None, *, helper: bool) -> Stage:
    """A stage around an ensemble that runs already, and has this topology.

    Raises:
        EngineUnavailable: no engine answers.
        UsageError: there is no such ensemble.
        TestbedError: it runs in a way that the harness cannot work with, or has changed.
    """
    client = connect_engine()
    try:
        found = find_ensemble(client, name)
        run_id = new_run_id()
        reaper = Reaper.start(run_id, revive=[str(server.container.id) for server in found.servers.values()])
    except BaseException:
        client.close()
        raise
    try:
        agent, pid, kind = engine_agent(client, run_id, root, tell or (lambda _line: None), helper=helper)
        testbed = ForeignTestbed(found, topology, agent, run_id=run_id, engine_pid=pid, kind=kind)
    except BaseException:
        reaper.close()
        client.close()
        raise

    def close() -> None:
        # A reaper that is not told that all is well sees to it that all is well, once this process has ended.
        with contextlib.closing(client):
            try:
                testbed.leave_running()
            finally:
                testbed.close()
            reaper.close()

    def fetch(folder: RunFolder) -> None:
        fetch_evidence(found.servers, folder)
        if moves := testbed.explain_moves():
            raise TestbedError(
                moves,
                where=found.name,
                cause="the engine chooses addresses anew when several containers start",
                next_step="give the servers fixed ones (`ipv4_address`), or end no two at a time",
            )

    servers = tuple(
        ServerSoftware(i, server.version or "unknown", f"{server.container.name}, found running", {})
        for i, server in found.servers.items()
    )
    return Stage(
        testbed,
        ForeignStarter(testbed),
        "as in the image",
        "image",
        servers,
        close,
        foreign=True,
        fetch=fetch,
        remark=testbed.explain_moves,
    )


def find_images(client: docker.DockerClient, topology: Topology, tell: Tell) -> dict[int, str]:
    """The image of each server.

    Raises:
        EngineUnavailable: the engine has none, and no registry that has one can be reached.
    """
    versions = versions_of(topology)
    found = {version: find_server_image(client, version, tell) for version in sorted(set(versions.values()))}
    return {i: found[version] for i, version in versions.items()}


def engine_agent(
    client: docker.DockerClient, run_id: str, root: Path | None, tell: Tell, *, helper: bool
) -> tuple[AgentClient, int | None, str]:
    """An agent that reaches the engine's network namespace, the engine's pid as it sees it, and the way's name."""
    if not helper and way(client)[0] == "agent":
        return take_agent(), engine_pid(client), "docker"
    image = ensure_helper_image(client, tell)
    mounts = []
    if root is not None:
        root.parent.mkdir(parents=True, exist_ok=True)
        mounts = [root.parent.absolute()]
    return start_helper(client, run_id, image=image, mounts=mounts), None, "docker-helper"


def _find_toxiproxy(client: docker.DockerClient, topology: Topology, tell: Tell, *, helper: bool) -> Path | None:
    """Toxiproxy's program, where the topology has proxies that can stand here.

    Raises:
        UsageError: they cannot.
        ToxiproxyMissing: there is none.
    """
    if not proxies_of(topology):
        return None
    if topology.proxies.servers:
        raise UsageError(
            "proxies between servers would stand in the servers' containers, whose networks come and go",
            where=f"{topology.name}:proxies.servers",
            next_step="run it with `--testbed namespaces`, or let the streams of clients alone pass proxies",
        )
    if helper or way(client)[0] != "agent":
        raise UsageError(
            "faults of streams are not offered through a helper container",
            where=f"{topology.name}:proxies.clients",
            next_step="run it with `--testbed namespaces`, or with `--testbed docker` as root beside the engine",
        )
    return ensure_program(tell)


def _version(image: str) -> str:
    return image.rpartition(":")[2]


def _environment(image: Image) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in image.attrs["Config"]["Env"] or ())
    return {name: value for name, _, value in pairs}

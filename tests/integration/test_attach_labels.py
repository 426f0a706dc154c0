"""Ensembles that are no Compose projects: by `docker run`, told by a label; with an observer, or alone."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool
from rich.console import Console

from harness.attach import break_once, look_at
from harness.containers import ZooKeeperEnsembleContainer
from harness.errors import TestbedError, UsageError
from harness.topology.model import Role
from harness.zookeeper.lock import DEFAULT_VERSION
from tests.integration.command_line import end, zkchaos
from tests.integration.engine_things import inside
from tests.integration.foreign import SMALL, Fault, look, mend

NAME = f"att{os.getpid()}"
CONTROL = """
title = "The only switch"
duration = "5s"
[expect]
recovery_within = "1s"
[[step]]
at = "500ms"
fault = "switch-down"
switch = "net1"
for = "3s"
"""


@dataclass(frozen=True)
class Labelled:
    """Two servers and an observer on one network, by `docker run`; and one that stands alone, beside them."""

    label: str
    network: str
    alone: Container


@pytest.fixture(scope="module")
def labelled(engine: docker.DockerClient, server_image: str) -> Iterator[Labelled]:
    label, network = f"test.attach.{NAME}", f"{NAME}-plain"
    lines = [f"server.{n}={NAME}-{n}:2888:3888{':observer' if n == 3 else ''};2181" for n in (1, 2, 3)]
    made: list[Container] = []
    pool = IPAMPool(subnet=f"fd77:{os.getpid() & 0xFFFF:x}::/64")
    bridge = engine.networks.create(network, driver="bridge", enable_ipv6=True, ipam=IPAMConfig(pool_configs=[pool]))
    try:
        for n in (1, 2, 3):
            environment = {**SMALL, "ZOO_MY_ID": str(n), "ZOO_SERVERS": " ".join(lines)}
            if n == 3:
                environment["ZOO_CFG_EXTRA"] = "peerType=observer"
            labels = {label: "several", f"{label}.all": "yes", f"{label}.number": str(n)}
            made.append(
                plain(engine, server_image, f"{NAME}-{n}", labels=labels, environment=environment, network=network)
            )
        # `docker run --rm --init`, as for a quick look
        labels = {label: "one", f"{label}.all": "yes"}
        alone = plain(
            engine,
            server_image,
            f"{NAME}-alone",
            labels=labels,
            environment=SMALL,
            network=network,
            auto_remove=True,
            init=True,
        )
        made.append(alone)
        mend(f"{label}=several")
        mend(f"{label}=one")
        yield Labelled(label, network, alone)
    finally:
        for container in made:
            container.remove(force=True, v=True)
        bridge.remove()


def plain(engine: docker.DockerClient, server_image: str, name: str, **how: Any) -> Container:
    """As `docker run` does it."""
    container = engine.containers.run(server_image, name=name, hostname=name, detach=True, **how)
    assert isinstance(container, Container)
    return container


def test_servers_that_share_a_label_are_an_ensemble(
    labelled: Labelled, engine: docker.DockerClient, tmp_path: Path
) -> None:
    found = look_at(f"{labelled.label}=several")
    assert [s.role for s in found.topology.servers] == [Role.PARTICIPANT, Role.PARTICIPANT, Role.OBSERVER]
    assert found.topology.zookeeper.version == DEFAULT_VERSION
    assert found.neighbours == {"net1": [f"{NAME}-alone"]}
    rows = [line.split() for line in look(found.name).splitlines()[1:4]]
    assert sorted(row[1] for row in rows) == ["follower", "leader", "observer"]
    bridge = inside(engine, "-o", "address", "show", found.bridges["net1"])
    # of the only switch nobody survives the death, and that is what is said of it
    (tmp_path / "control.toml").write_text(CONTROL)
    said = zkchaos("run", "./control.toml", "--attach", found.name, "--rate", "60", cwd=tmp_path)
    assert said.code == 1, said.out + said.err
    assert "the control experiment of NR-11: all servers hang on one network" in said.out
    # the bridge has its addresses still, also that of IPv6, which the kernel takes from what is down
    assert inside(engine, "-o", "address", "show", found.bridges["net1"]) == bridge


def test_a_server_that_stands_alone_is_one_too(labelled: Labelled) -> None:
    name = f"{labelled.label}=one"
    assert "standalone" in look(name)
    console = Console(file=io.StringIO())
    break_once(console, name, "link-down", "leader:net1", 0.1)
    for kind, reason in (("kill", "`--rm`"), ("restart", "`--rm`"), ("pause", "first process")):
        with pytest.raises(UsageError, match=reason):
            break_once(console, name, kind, "leader")


def test_an_engine_may_give_a_server_another_address(
    labelled: Labelled, engine: docker.DockerClient, server_image: str
) -> None:
    """As it does to who has no fixed one, and the freed one was given to somebody else meanwhile."""
    fault = Fault("kill", "zk3", "--for", "4s", "--on", f"{labelled.label}=several")
    blockers = []
    try:
        fault.wait_until_it_bites()
        for number in range(2):
            name = f"{NAME}-blocker{number}"
            blockers.append(plain(engine, server_image, name, entrypoint=["sleep", "60"], network=labelled.network))
        said, complaint = fault.process.communicate(timeout=60)
        assert (fault.process.returncode, complaint) == (0, "")
    finally:
        end(fault.process)
        for blocker in blockers:
            blocker.remove(force=True)
    assert "note: containers came back with other addresses: zk3 has " in said
    mend(f"{labelled.label}=several")


def test_two_ensembles_of_one_label_are_told_apart(labelled: Labelled) -> None:
    with pytest.raises(TestbedError, match="servers of two ensembles"):
        look_at(f"{labelled.label}.all=yes")


def test_servers_that_lack_the_label_are_missed(labelled: Labelled) -> None:
    with pytest.raises(TestbedError, match="its servers know a server 1, 3 that no container here is"):
        look_at(f"{labelled.label}.number=2")


def test_a_configuration_that_cannot_be_read_is_told(labelled: Labelled) -> None:
    labelled.alone.exec_run(["rm", "/conf/zoo.cfg"], user="root")
    with pytest.raises(TestbedError, match="its configuration cannot be read") as refused:
        look_at(f"{labelled.label}=one")
    assert f"{NAME}-alone:/conf/zoo.cfg" in str(refused.value)


def test_what_the_harness_itself_made_for_others_can_be_attached(engine: docker.DockerClient, tmp_path: Path) -> None:
    subnet = os.getpid() % 250
    name = f"own{os.getpid()}"
    (tmp_path / f"{name}.toml").write_text(
        f'title = "T"\nservers = 1\n[[switch]]\nname = "back"\nsubnet = "10.99.{subnet}.0/24"\n'
    )
    with ZooKeeperEnsembleContainer(str(tmp_path / f"{name}.toml")):
        found = look_at(name)
        assert found.topology.name == name
        assert found.topology.switch_names == ("back",)
        assert f"10.99.{subnet}.1" in look(name)
        console = Console(file=io.StringIO())
        break_once(console, name, "switch-down", "back", 0.1)
        assert isinstance(console.file, io.StringIO)
        assert "during: 0 of 2 paths" in console.file.getvalue()

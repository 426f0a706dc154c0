"""Topologies brought up by the real Compose v2 on a real engine, and what is said where that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

import harness
from harness.compose import compose_file, project_name
from harness.compose_project import compose_command
from harness.errors import EnvironmentLacking
from harness.images.server import find_server_image
from harness.testbed.engine import LABEL_HOST, LABEL_SWITCH, LABEL_TOPOLOGY
from harness.topology.library import library_names
from harness.topology.loader import load_topology, parse_topology
from harness.topology.model import Topology
from harness.zookeeper.distribution import DEFAULT_VERSION
from tests.integration.command_line import command as command_line
from tests.integration.command_line import end, zkchaos
from tests.integration.conftest import command, require

CHECKOUT = Path(harness.__file__).parent.parent

#: What may go wrong in a file: words that YAML takes for something else, dollar signs, quotes, and strange addresses.
STRANGE = """
title = "It's \\"strange\\": # $HOME ${HOME}"
[zookeeper]
settings = { "quorum.cnxn" = "a$b${C}", "x.y" = "'\\"#:{}[]&*!|>%@`é" }
jvm = ["-Dx=$HOME", "-Dy=\\"quoted\\"", "-Dz=:#", "-Dtrue"]
[[switch]]
name = "no"
[[switch]]
name = "y"
[[server]]
id = 1
switches = ["no", "y"]
addresses = { no = "10.77.1.254" }
[[server]]
id = 10
switches = ["y"]
"""


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """The command line of Compose v2."""
    try:
        return compose_command()
    except EnvironmentLacking as lacking:
        require("compose", str(lacking))
        raise


@pytest.fixture
def there(compose: list[str], engine: docker.DockerClient, subnets: None) -> Iterator[docker.DockerClient]:
    """The engine, with an image of the servers; afterwards nothing of any topology may be left on it."""
    try:
        find_server_image(engine, DEFAULT_VERSION, lambda _line: None)
    except EnvironmentLacking as lacking:
        require("docker", str(lacking))
    assert left(engine) == [], "a topology is up on this engine; end it first: `zkchaos down NAME`"
    yield engine
    remains = left(engine)
    for project in {remaining.partition(" ")[0] for remaining in remains}:
        down = [*compose, "--project-name", project, "down", "--volumes", "--timeout", "1"]
        subprocess.run(down, check=True, capture_output=True, timeout=60, cwd="/")
    assert remains == []


def left(engine: docker.DockerClient) -> list[str]:
    """Everything of a topology that Compose made: its project's name, and its own."""
    only = {"label": [LABEL_TOPOLOGY, "com.docker.compose.project"]}
    containers = [(c.labels, c.name) for c in engine.containers.list(all=True, filters=only)]
    networks = [(n.attrs["Labels"], n.name) for n in engine.networks.list(filters=only)]
    volumes = [(v.attrs["Labels"], v.name) for v in engine.volumes.list(filters=only)]
    return [f"{labels['com.docker.compose.project']} {name}" for labels, name in containers + networks + volumes]


def read_by_compose(compose: list[str], topology: Topology) -> dict[str, Any]:
    words = [*compose, "--file", "-", "config", "--format", "json"]
    done = subprocess.run(words, input=compose_file(topology).encode(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", [*(name for name in library_names("topologies") if name != "proxied"), "strange"])
def test_compose_reads_what_is_meant(compose: list[str], name: str) -> None:
    topology = parse_topology(STRANGE, name) if name == "strange" else load_topology(name)
    document = read_by_compose(compose, topology)
    assert document["name"] == project_name(topology.name)
    assert list(document["networks"]) == list(topology.switch_names)
    for server in topology.servers:
        service = document["services"][server.host]
        assert {s: n["ipv4_address"] for s, n in service["networks"].items()} == {
            n.switch: str(n.address) for n in server.nics
        }
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
        # What Compose prints is a Compose file again, in which a dollar sign is doubled.
        environment = {key: value.replace("$$", "$") for key, value in service["environment"].items()}
        assert set(topology.zookeeper.jvm) <= set(environment["SERVER_JVMFLAGS"].split())
        written = [f"{key}={value}" for key, value in topology.zookeeper.settings.items() if key in STRANGE]
        assert set(written) <= set(environment["ZOO_CFG_EXTRA"].split())


def test_dual_net_comes_up_survives_and_goes(there: docker.DockerClient, tmp_path: Path) -> None:
    said = zkchaos("up", "dual-net", cwd=tmp_path)
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines() if line.endswith("-1")]
    assert [row[0] for row in rows] == ["zk1", "zk2", "zk3"]
    assert sorted(row[1] for row in rows) == ["follower", "follower", "leader"]
    assert "127.0.0.1:21811,127.0.0.1:21812,127.0.0.1:21813" in said.out
    assert "10.77.1.1:2181,10.77.2.1:2181" in said.out
    assert "zkchaos fault switch-down net1 --for 10s" in said.out

    containers = there.containers.list(filters={"label": f"{LABEL_TOPOLOGY}=dual-net"})
    assert {c.labels[LABEL_HOST]: addresses(c) for c in containers} == {
        f"zk{n}": {f"10.77.1.{n}", f"10.77.2.{n}"} for n in (1, 2, 3)
    }
    for container in containers:
        confined(container)
    networks = there.networks.list(filters={"label": f"{LABEL_TOPOLOGY}=dual-net"})
    assert {n.attrs["Labels"][LABEL_SWITCH] for n in networks} == {"net1", "net2"}

    # One server is killed and comes back to what it was; the file makes that happen, and so does `up` once more.
    victim = next(c for c in containers if c.labels[LABEL_HOST] == rows[0][0])
    victim.kill()
    again = zkchaos("up", "dual-net", cwd=tmp_path)
    assert again.code == 0, again.err
    roles = [line.split()[1] for line in again.out.splitlines() if line.endswith("-1")]
    assert sorted(roles) == ["follower", "follower", "leader"]

    other = zkchaos("up", "single-net", cwd=tmp_path).complaint(3)
    assert "10.77.1.0/24 is taken by the network zkchaos-dual-net_net1" in other
    assert "`zkchaos down dual-net`" in other

    assert zkchaos("down", "dual-net", cwd=tmp_path).out == "dual-net is down\n"
    assert left(there) == []
    assert zkchaos("down", "dual-net", cwd=tmp_path).code == 0  # once more does no harm


def addresses(container: Any) -> set[str]:
    return {network["IPAddress"] for network in container.attrs["NetworkSettings"]["Networks"].values()}


def confined(container: Any) -> None:
    host = container.attrs["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert {binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings} == {"127.0.0.1"}
    code, output = container.exec_run(["bash", "-c", "grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/1/status; exit 0"])
    status = dict(line.split(":\t", 1) for line in output.decode().splitlines())
    assert status == {"Uid": "1000\t1000\t1000\t1000", "CapEff": "0" * 16, "NoNewPrivs": "1"}
    assert code == 0
    assert container.exec_run(["bash", "-c", "echo x > /x"])[0] != 0


def test_make_brings_it_up_and_removes_it_again(there: docker.DockerClient, tmp_path: Path) -> None:
    brought = make(tmp_path, "topology-single-net")
    assert "Three servers on one switch" in brought  # the drawing comes first
    assert "zkchaos attach single-net" in brought
    assert len(left(there)) == 3 + 1 + 2 * 3  # containers, a network, and two volumes each
    assert make(tmp_path, "topology-single-net-down") == "single-net is down\n"


def make(stamps: Path, target: str) -> str:
    """What make says; it takes the virtual environment that this test runs in for complete."""
    stamp = stamps / "installed"
    stamp.touch()
    program = command("make")
    words = [program, "--no-print-directory", f"BIN={Path(sys.executable).parent}", f"STAMP={stamp}", target]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_server_that_dies_is_named_with_its_last_words_and_left_to_be_looked_at(
    there: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "dies.toml").write_text(
        'title = "T"\nservers = 1\n[zookeeper]\njvm = ["-XX:+NoSuchFlag"]\n[[switch]]\nname = "net1"\n'
        'subnet = "10.77.131.0/24"\n'
    )
    complaint = zkchaos("up", "./dies.toml", cwd=tmp_path).complaint(3)
    assert complaint.startswith("zk1: ")
    assert "NoSuchFlag" in complaint
    assert "`zkchaos down dies`" in complaint
    assert len(left(there)) == 1 + 1 + 2  # a container, a network, two volumes
    assert zkchaos("down", "dies", cwd=tmp_path).out == "dies is down\n"


def test_what_is_no_topology_and_was_never_up_is_not_said_to_be_down(
    engine: docker.DockerClient, compose: list[str], tmp_path: Path
) -> None:
    assert 'no topology called "duel-net"' in zkchaos("down", "duel-net", cwd=tmp_path).complaint(64)


def test_what_the_engine_refuses_leaves_nothing(there: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'title = "T"\nservers = 1\n[[switch]]\nname = "net1"\nsubnet = "10.77.132.0/24"\n'
    )
    image = find_server_image(there, DEFAULT_VERSION, lambda _line: None)
    holder = there.containers.run(
        image, ["sleep", "60"], entrypoint="", detach=True, ports={"2181/tcp": ("127.0.0.1", 21811)}
    )
    try:
        complaint = zkchaos("up", "./mine.toml", cwd=tmp_path).complaint(3)
    finally:
        holder.remove(force=True)
    assert "port is already allocated" in complaint
    assert left(there) == []


def test_who_interrupts_it_leaves_nothing(there: docker.DockerClient, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command_line("up", "dual-net"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not left(there):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 130
    finally:
        end(process)
    assert left(there) == []


def test_without_an_engine_it_is_said_what_to_do(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    for word in ("up", "down"):
        complaint = zkchaos(word, "dual-net", cwd=tmp_path, environ=environ).complaint(3)
        assert "no Docker engine answers" in complaint


def test_without_compose_it_is_said_what_to_install(engine: docker.DockerClient, tmp_path: Path) -> None:
    complaint = zkchaos("up", "dual-net", cwd=tmp_path, environ={"PATH": str(tmp_path)}).complaint(3)
    assert "`docker` is not installed" in complaint
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")  # as a client says that has no plugin
    client.chmod(0o755)
    complaint = zkchaos("up", "dual-net", cwd=tmp_path, environ={"PATH": f"{tmp_path}:/bin:/usr/bin"}).complaint(3)
    assert "no Compose v2" in complaint
    assert "docker-compose-plugin" in complaint


def test_the_file_goes_to_a_pipe_or_to_its_place(tmp_path: Path) -> None:
    expected = compose_file(load_topology("single-net"))
    assert zkchaos("compose", "single-net", cwd=tmp_path).out == expected
    assert zkchaos("compose", "single-net", "--write", cwd=tmp_path).out == "compose/single-net.yml\n"
    assert (tmp_path / "compose" / "single-net.yml").read_text() == expected

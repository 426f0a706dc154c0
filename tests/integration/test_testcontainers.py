"""The testcontainers module on a real engine, and the test of its page in the docs, to the letter.

Clients connect to ports that the engine publishes on its loopback. Where the engine has a network namespace of its own,
those cannot be reached from here: programs with a client are then run in that namespace, which takes root.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

import harness
from harness.containers import ServingWaitStrategy, ZooKeeperContainer, ZooKeeperEnsembleContainer
from harness.errors import EngineUnavailable, EnsembleError, EnvironmentLacking, TestbedError, UsageError
from harness.images.server import find_server_image
from harness.testbed.engine import LABEL_HOST, LABEL_RUN, LABEL_SWITCH, LABEL_TOPOLOGY, owner
from harness.testbed.helper import engine_pid
from harness.testbed.leftovers import Leftover, find_things
from harness.testbed.reaper import BOUND
from harness.topology.loader import parse_topology
from harness.topology.model import Topology
from harness.zookeeper.lock import DEFAULT_VERSION
from tests.integration.conftest import require

DOCS = Path(harness.__file__).parent.parent / "docs" / "testcontainers.md"

#: A topology whose subnets no other test has, so that this file gets along with any other on the same engine.
ELSEWHERE = """
title = "Three servers, each on two switches, elsewhere"
servers = 3

[[switch]]
name = "left"
subnet = "10.78.1.0/24"

[[switch]]
name = "right"
subnet = "10.78.2.0/24"
"""


def elsewhere() -> Topology:
    return parse_topology(ELSEWHERE, "elsewhere.toml")


def docs_test() -> str:
    """The test that the docs show, to the letter."""
    block = r"^<!-- The test suite runs this block.*?^```python\n(.*?)^```$"
    (found,) = re.findall(block, DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient) -> None:
    """The engine has the image of the default version, or can have it."""
    try:
        find_server_image(engine, DEFAULT_VERSION, lambda _line: None)
    except EnvironmentLacking as lacking:
        require("docker", str(lacking))


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    code: int
    out: str


@dataclass(frozen=True)
class Beside:
    """Runs programs where the ports that the engine publishes can be reached."""

    #: Comes before the command.
    words: tuple[str, ...]

    def command(self, *words: str) -> list[str]:
        return [*self.words, sys.executable, "-W", "error", *words]

    def run(self, folder: Path, *words: str, environ: Mapping[str, str] | None = None) -> Outcome:
        """Run Python with these arguments, every warning being an error."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "ZKCHAOS_R"))}
        done = subprocess.run(
            self.command(*words),
            cwd=folder,
            env={**inherited, "COLUMNS": "120", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode())


@pytest.fixture(scope="module")
def beside(images: None, engine: docker.DockerClient) -> Beside:
    """Looks once from where the engine's published ports can be reached."""
    with ZooKeeperContainer() as zookeeper:
        host, _, port = zookeeper.connection_string().rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
            return Beside(())
    pid, nsenter = engine_pid(engine), shutil.which("nsenter")
    if os.geteuid() != 0 or not pid or not nsenter:
        require("docker", "a port that the engine publishes cannot be reached, nor can its network namespace")
    return Beside((str(nsenter), f"--net=/proc/{pid}/ns/net"))


@pytest.fixture
def things(images: None, engine: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """The engine; after the test nothing that this process made may be left on it."""
    yield engine
    assert made_by(engine, owner()) == []


def made_by(engine: docker.DockerClient, who: str) -> list[Leftover]:
    return [thing for thing in find_things(engine) if thing.owner == who]


def test_the_test_of_the_docs(tmp_path: Path, beside: Beside, subnets: None) -> None:
    (tmp_path / "test_it.py").write_text(docs_test())
    assert len(docs_test().partition("\ndef ")[2].splitlines()) < 10
    done = beside.run(tmp_path, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "test_it.py")
    assert done.code == 0, done.out
    assert re.search(r"= 1 passed in ", done.out), done.out


CLIENT = """
    from kazoo.client import KazooClient
    from harness.containers import ZooKeeperContainer

    with ZooKeeperContainer(port=2182).with_setting("tickTime", 500) as zookeeper:
        assert zookeeper.connection_string().startswith("127.0.0.1:")
        client = KazooClient(zookeeper.connection_string())
        client.start()
        client.create("/one", b"1")
        assert client.get("/one")[0] == b"1"
        client.stop()
        client.close()
"""


def test_a_client_of_one_server(tmp_path: Path, beside: Beside) -> None:
    done = beside.run(tmp_path, "-c", textwrap.dedent(CLIENT))
    assert done == Outcome(0, "")


def test_one_server(things: docker.DockerClient) -> None:
    zookeeper = ZooKeeperContainer(version="3.9", labels={"mine": "1"}).with_labels(**{"also.mine": "2"})
    zookeeper.with_setting("tickTime", 700).with_setting("snapCount", 1000).with_jvm_flags("-Dmine=3")
    with zookeeper:
        assert zookeeper.start() is zookeeper
        status = zookeeper.server_status()
        assert (status.role, status.serving) == ("standalone", True)
        assert "zk_server_state\tstandalone\n" in zookeeper.word("mntr")
        assert "tickTime=700\n" in zookeeper.word("conf")
        assert "mine=3\n" in zookeeper.word("envi") or b"-Dmine=3" in bytes(
            zookeeper.exec("cat /proc/1/cmdline").output
        )
        with pytest.raises(UsageError, match="four letters"):
            zookeeper.word("srvr; rm")

        described = zookeeper.get_wrapped_container().attrs
        assert_confined(described)
        labels = described["Config"]["Labels"]
        assert (labels["mine"], labels["also.mine"]) == ("1", "2")
        assert len(labels[LABEL_RUN]) == 10
        assert [str(t.kind) for t in made_by(things, owner())] == ["container"]

        assert zookeeper.exit_code() is None
        zookeeper.kill()
        zookeeper.kill()
        assert zookeeper.exit_code() == 128 + signal.SIGKILL
        assert zookeeper.server_status().role == "down"
    zookeeper.stop()
    with zookeeper:  # once more, as new
        assert zookeeper.server_status().zxid == 0


def assert_confined(described: Mapping[str, Mapping[str, object]]) -> None:
    """No privileges, no way to get any, and no port for other machines."""
    host = described["HostConfig"]
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Binds"] is None
    assert described["Config"]["User"] == "1000:1000"
    bindings = host["PortBindings"]
    assert isinstance(bindings, dict)
    assert [binding["HostIp"] for published in bindings.values() for binding in published] == ["127.0.0.1"]


def test_what_one_server_refuses(things: docker.DockerClient) -> None:
    zookeeper = ZooKeeperContainer().with_kwargs(privileged=True)
    with pytest.raises(UsageError, match="never privileged"):
        zookeeper.start()
    for wrong in ("two words", ""):
        with pytest.raises(UsageError, match="white space"):
            zookeeper.with_jvm_flags(wrong)
    with pytest.raises(UsageError, match="white space"):
        zookeeper.with_setting("tickTime", "1 000")
    zookeeper.stop()


def test_an_image_that_nobody_has(things: docker.DockerClient) -> None:
    for container in (
        ZooKeeperContainer("zkchaos-nobody/zookeeper:0"),
        ZooKeeperEnsembleContainer(elsewhere(), image="zkchaos-nobody/zookeeper:0"),
    ):
        with pytest.raises(EngineUnavailable, match="does not have the image zkchaos-nobody/zookeeper:0"):
            container.start()


def test_a_server_that_does_not_start(things: docker.DockerClient) -> None:
    started = time.monotonic()
    with pytest.raises(EnsembleError, match=r"ended by itself with code 1 .*NoSuchFlag"):
        ZooKeeperContainer().with_jvm_flags("-XX:NoSuchFlag").start()
    patient = ZooKeeperContainer()
    patient.waiting_for(ServingWaitStrategy().with_startup_timeout(1))
    with pytest.raises(EnsembleError, match=r"not ready within 1 s \(the server "):
        patient.with_command("sleep 60").start()
    assert time.monotonic() - started < 30


def test_an_ensemble(things: docker.DockerClient) -> None:
    with ZooKeeperEnsembleContainer(elsewhere()) as zk:
        assert zk.start() is zk
        assert list(zk.servers) == [1, 2, 3]
        assert sorted(s.role for s in zk.status().values()) == ["follower", "follower", "leader"]
        assert_networks(things, zk)
        for number, container in zk.servers.items():
            assert_member(number, container)

        before, leader = zk.connection_string(), zk.leader()
        assert re.fullmatch(r"127\.0\.0\.1:2\d{4}(,127\.0\.0\.1:2\d{4}){2}", before)
        zk.kill(leader)
        assert zk.status()[leader].role == "down"
        second = zk.leader()
        assert second != leader
        assert zk.connection_string() == before

        zk.start(leader)
        assert zk.leader() == second
        assert zk.status()[leader].role == "follower"
        assert zk.connection_string() == before
        assert zk.servers[leader].connection_string() in before
        assert_member(leader, zk.servers[leader])  # also its addresses have come back

        with pytest.raises(UsageError, match=r"no server 4; allowed: 1, 2, 3"):
            zk.kill(4)
        with pytest.raises(TestbedError, match=r"switch left: the subnet .* its owner lives.*zkchaos clean"):
            ZooKeeperEnsembleContainer(elsewhere()).start()
        assert zk.leader() == second  # the one that came too late took nothing away
    assert (zk.servers, zk.networks) == ({}, {})
    zk.stop()


def assert_networks(engine: docker.DockerClient, zk: ZooKeeperEnsembleContainer) -> None:
    assert list(zk.networks) == ["left", "right"]
    for number, (switch, name) in enumerate(zk.networks.items(), start=1):
        described = engine.networks.get(name).attrs
        assert described["IPAM"]["Config"] == [{"Subnet": f"10.78.{number}.0/24", "Gateway": f"10.78.{number}.254"}]
        assert (described["Labels"][LABEL_SWITCH], described["Labels"][LABEL_TOPOLOGY]) == (switch, "elsewhere")
        assert name == f"zkchaos-{described['Labels'][LABEL_RUN]}-{switch}"


def assert_member(number: int, container: ZooKeeperContainer) -> None:
    container.reload()
    described = container.get_wrapped_container().attrs
    assert_confined(described)
    labels = described["Config"]["Labels"]
    assert (labels[LABEL_HOST], labels[LABEL_TOPOLOGY]) == (f"zk{number}", "elsewhere")
    plugged = described["NetworkSettings"]["Networks"].values()
    assert sorted(plug["IPAddress"] for plug in plugged) == [f"10.78.1.{number}", f"10.78.2.{number}"]
    server = f"server.{number}=10.78.1.{number}:2888:3888|10.78.2.{number}:2888:3888:participant"
    assert server in bytes(container.exec("cat /conf/zoo.cfg.dynamic.100000000").output).decode()
    assert "-Dzookeeper.multiAddress.enabled=true" in bytes(container.exec("cat /proc/1/cmdline").output).decode()


def test_a_subnet_that_a_compose_project_has(things: docker.DockerClient) -> None:
    pool = docker.types.IPAMPool(subnet="10.78.0.0/16")
    theirs = things.networks.create(
        f"zkchaos-test-{os.getpid()}-theirs",
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        labels={"com.docker.compose.project": "theirs"},
    )
    try:
        with pytest.raises(TestbedError) as raised:
            ZooKeeperEnsembleContainer(elsewhere()).start()
    finally:
        theirs.remove()
    assert str(raised.value) == (
        f"switch left: the subnet 10.78.1.0/24 is taken by the network {theirs.name} (likely cause: the Compose "
        "project theirs is up); stop it: `docker compose --project-name theirs down`, or give the switch another "
        "subnet in a topology of your own"
    )


def test_a_start_that_fails_in_the_middle_leaves_nothing(things: docker.DockerClient) -> None:
    """The networks and the servers are there when one of these ends by itself."""
    broken = elsewhere().source.replace("servers = 3", 'servers = 3\n[zookeeper]\njvm = ["-XX:NoSuchFlag"]')
    with pytest.raises(EnsembleError, match=r"server \d: it ended by itself with code 1 .*NoSuchFlag"):
        ZooKeeperEnsembleContainer(parse_topology(broken, "broken.toml")).start()


def test_a_port_that_is_taken(things: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """All servers want the same port at first."""
    monkeypatch.setattr(ZooKeeperEnsembleContainer, "_ports", lambda _self: [23456] * 3)
    with ZooKeeperEnsembleContainer(elsewhere()) as zk:
        addresses = zk.connection_string().split(",")
        assert len(set(addresses)) == 3
        assert "127.0.0.1:23456" in addresses


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from testcontainers.core.config import testcontainers_config
    from harness.containers import ZooKeeperContainer, ZooKeeperEnsembleContainer
    from harness.testbed.engine import owner

    print(owner(), flush=True)
    with ZooKeeperContainer(), ZooKeeperEnsembleContainer(sys.argv[1]):
        assert testcontainers_config.ryuk_disabled
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_test_that_is_killed_leaves_nothing(tmp_path: Path, beside: Beside, engine: docker.DockerClient) -> None:
    """Where Ryuk cannot be had, which on this machine it then cannot."""
    (tmp_path / "elsewhere.toml").write_text(ELSEWHERE)
    nobody = {"RYUK_CONTAINER_IMAGE": "zkchaos-nobody/ryuk:0", "TESTCONTAINERS_RYUK_DISABLED": "false"}
    done = beside.run(tmp_path, "-c", textwrap.dedent(KILLED), "./elsewhere.toml", environ=nobody)
    killed = time.monotonic()
    assert done.code == -signal.SIGKILL, done.out
    who = done.out.strip()
    while left := made_by(engine, who):
        assert time.monotonic() < killed + BOUND, left
        time.sleep(0.1)

"""Ensembles that somebody else started: looked at, broken, healed and left as they were, whatever happens to us."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool
from rich.console import Console

from harness.attach import break_once, look_at, show
from harness.compose import PRINT_STATUS
from harness.containers import ZooKeeperEnsembleContainer
from harness.errors import EngineUnavailable, EnvironmentLacking, TestbedError, UsageError
from harness.images.server import find_server_image
from harness.testbed.helper import engine_pid
from harness.testbed.reaper import BOUND
from harness.topology.model import Role
from harness.zookeeper.lock import DEFAULT_VERSION
from tests.integration.command_line import command as command_line
from tests.integration.command_line import end, wait_until_gone, zkchaos
from tests.integration.conftest import command, require
from tests.integration.foreign import SMALL, Project, carriers, process_state, set_ups, two_networks, wait_for

pytestmark = pytest.mark.xdist_group("attach")

NAME = f"att{os.getpid()}"
#: Every kind of fault of the network and of processes, so that what becomes of them is seen at once.
EVERYTHING = """
title = "All at once"
duration = "60s"
[[step]]
at = "500ms"
fault = "switch-down"
switch = "net1"
for = "50s"
[[step]]
at = "500ms"
fault = "link-down"
host = "zk1"
switch = "net2"
for = "50s"
[[step]]
at = "600ms"
fault = "kill"
server = "zk2"
for = "50s"
[[step]]
at = "600ms"
fault = "pause"
server = "zk3"
for = "50s"
"""
SHORT = """
title = "A switch, then the leader"
duration = "8s"
[expect]
recovery_within = "8s"
[[step]]
at = "500ms"
fault = "switch-down"
switch = "net1"
for = "2s"
[[step]]
at = "5s"
fault = "kill"
server = "leader"
for = "1s"
"""
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


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> str:
    try:
        return find_server_image(engine, DEFAULT_VERSION, lambda _line: None)
    except EngineUnavailable as lacking:
        require("docker", str(lacking))
        raise


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is attached here is nobody else's business."""
    monkeypatch.setenv("ZKCHAOS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def project(engine: docker.DockerClient, image: str) -> Iterator[Project]:
    """Three servers on two networks, by Compose, as somebody set them up who does not know this harness."""
    made = two_networks(f"{NAME}-two", image, engine)
    try:
        try:
            made.up()
        except EnvironmentLacking as lacking:
            require("compose", str(lacking))
        mend(made.name)
        yield made
    finally:
        made.down()


@pytest.fixture
def whole(project: Project) -> Iterator[Project]:
    """The same, whole; its containers are set up afterwards as they were before."""
    before = set_ups(project)
    yield project
    after = set_ups(project)
    assert {key: after.get(key) for key in before if after.get(key) != before[key]} == {}
    assert after.keys() == before.keys()


def mend(name: str) -> str:
    """As `zkchaos attach NAME --heal`; returns what it prints."""
    console = Console(file=io.StringIO(), width=40)
    show(console, name, heal=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def look(name: str) -> str:
    console = Console(file=io.StringIO(), width=40)
    show(console, name)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def servers(project: Project) -> list[Container]:
    return [project.container(f"zoo{n}") for n in (1, 2, 3)]


def is_whole(project: Project) -> bool:
    """Every server's process runs, and every cable is plugged in, as seen from inside of the containers."""
    states = [process_state(container) for container in servers(project)]
    return all(s in {"S", "R", "D"} for s in states) and all(carriers(c) == ["1", "1"] for c in servers(project))


def znodes(project: Project) -> list[str]:
    """How many each server has."""
    found = []
    for container in servers(project):
        said = container.exec_run(["bash", "-c", PRINT_STATUS])[1].decode()
        found += [line for line in said.splitlines() if line.startswith("Node count: ")]
    assert len(found) == len(servers(project))
    return found


def inside(engine: docker.DockerClient, *words: str) -> list[str]:
    """What `ip` says in the engine's network namespace; nothing where that cannot be looked into."""
    if not engine_pid(engine) or os.geteuid() != 0:
        return []
    words = (command("nsenter"), f"--net=/proc/{engine_pid(engine)}/ns/net", command("ip"), *words)
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    return sorted(line.replace("tentative", "") for line in said.splitlines())


def ports_of(engine: docker.DockerClient, bridge: str) -> list[str]:
    """The interfaces on a bridge."""
    return [line.split(": ")[1] for line in inside(engine, "-o", "link", "show", "master", bridge)]


# --- looking, and breaking by hand ---------------------------------------------------------------------------


def test_attach_says_what_is_there_and_fault_breaks_it(whole: Project, tmp_path: Path) -> None:
    said = zkchaos("attach", whole.name, cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    table = [line.split() for line in lines[1:4]]
    assert [row[0] for row in table] == ["zk1", "zk2", "zk3"]
    assert sorted(row[1] for row in table) == ["follower", "follower", "leader"]
    assert [row[4] for row in table] == [f"{whole.name}-zoo{n}-1" for n in (1, 2, 3)]
    assert f"net1: 12 of 12 paths answer; network {whole.name}_back, bridge br-" in said.out
    death = next(line for line in lines if line.startswith("net2: 12 of 12 paths answer"))
    assert death.endswith(f"its death is also that of {whole.name}-app-1")
    assert "--heal" not in said.out

    # what was attached last is what is broken, also by the network's own name
    said = zkchaos("fault", "switch-down", "front", "--for", "500ms", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[:5] == [
        "  before: 12 of 12 paths over net2 answer; elsewhere 12 of 12",
        "✗ switch-down net2",
        "  during: 0 of 12 paths over net2 answer; elsewhere 12 of 12",
        "✓ switch-down net2 healed",
        "   after: 12 of 12 paths over net2 answer; elsewhere 12 of 12",
    ]
    assert lines[5].startswith("it lasted 0.")
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("kind", "target", "proof"),
    [
        ("kill", "leader", "gone (pid"),
        ("link-down", "zk2:back", "0 of 6 paths over zk2:net1 answer; elsewhere 18 of 18"),
    ],
)
def test_every_kind_of_fault_bites_and_goes(whole: Project, kind: str, target: str, proof: str) -> None:
    console = Console(file=io.StringIO(), width=40)
    break_once(console, whole.name, kind, target, 0.2)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().splitlines()
    assert any(line.startswith("  during: ") and proof in line for line in said), said
    assert any(line.startswith("   after: ") for line in said), said
    assert is_whole(whole)
    if kind == "kill":
        mend(whole.name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_heal_at_once(whole: Project, number: signal.Signals) -> None:
    fault = Fault("pause", "zk1", "--for", "60s", "--on", whole.name)
    try:
        fault.wait_until_it_bites()
        assert not is_whole(whole)
        fault.process.send_signal(number)
        rest = fault.process.stdout.read() if fault.process.stdout else ""
        assert fault.process.wait(timeout=20) == 130
    finally:
        end(fault.process)
    assert "✓ pause zk1 healed" in rest
    assert is_whole(whole)


class Fault:
    """`zkchaos fault`, while it lasts."""

    def __init__(self, *words: str) -> None:
        name = f"ZKCHAOS_ATTACH_TEST={secrets.token_hex(8)}"
        self.marker = name
        key, _, value = name.partition("=")
        self.process = subprocess.Popen(
            command_line("fault", *words),
            env={**os.environ, key: value, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_it_bites(self) -> None:
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("  during: "):
                return
        raise AssertionError((said, self.process.stderr.read() if self.process.stderr else ""))


# --- a whole run ----------------------------------------------------------------------------------------------


def test_a_run_is_judged_and_leaves_nothing_behind(whole: Project, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    before = znodes(whole)
    said = zkchaos("run", "./short.toml", "--attach", whole.name, "--rate", "60", cwd=tmp_path)
    assert said.code == 0, said.out + said.err
    assert "VALID" in said.out.splitlines()
    assert f"--attach {whole.name}" in said.out
    folder = tmp_path / "runs" / "latest"
    assert json.loads((folder / "scenario.json").read_text())["attached"] == whole.name
    assert (folder / "report.html").stat().st_size > 10_000
    for number in "123":
        server = folder / "servers" / number
        assert "tickTime=2000" in (server / "config" / "zoo.cfg").read_text()
        assert list(server.glob("txnlog/version-2/log.*"))
        assert "zookeeper" in (server / "logs" / "server.log").read_text().lower()
    assert znodes(whole) == before  # those of the load are gone from what is not ours
    assert is_whole(whole)


# --- whoever breaks it dies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("testbed", ["docker", "docker-helper"])
def test_everything_is_healed_after_sigkill_of_a_run(
    whole: Project,
    engine: docker.DockerClient,
    testbed: str,
    tmp_path: Path,
    record_testsuite_property: Any,
) -> None:
    (tmp_path / "all.toml").write_text(EVERYTHING)
    marker = f"ZKCHAOS_ATTACH_TEST={secrets.token_hex(8)}"
    key, _, value = marker.partition("=")
    words = ["run", "./all.toml", "--attach", whole.name, "--testbed", testbed, "--rate", "20"]
    run = subprocess.Popen(
        command_line(*words),
        cwd=tmp_path,
        env={**os.environ, key: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        events = tmp_path / "runs" / "latest" / "events.jsonl"
        wait_for(lambda: events.exists() and events.read_text().count('"during"') >= 4, 60)
        two, three = whole.container("zoo2"), whole.container("zoo3")
        assert process_state(two) == ""
        assert process_state(three) == "T"
        assert carriers(whole.container("zoo1")) == ["0", "0"]
    finally:
        end(run)
    record_testsuite_property(f"seconds until healed, {testbed}", round(wait_for(lambda: is_whole(whole), BOUND), 2))
    assert_nothing_of_ours(engine, whole)
    mend(whole.name)
    wait_until_gone(marker, 2 * BOUND)  # the reaper looks on for a while, and would mend what the next test breaks


def test_everything_is_healed_after_sigkill_of_a_fault(
    whole: Project, engine: docker.DockerClient, record_testsuite_property: Any
) -> None:
    fault = Fault("kill", "leader", "--for", "60s", "--on", whole.name)
    try:
        fault.wait_until_it_bites()
        assert not is_whole(whole)
    finally:
        end(fault.process)
    record_testsuite_property("seconds until healed, fault", round(wait_for(lambda: is_whole(whole), BOUND), 2))
    assert_nothing_of_ours(engine, whole)
    mend(whole.name)
    wait_until_gone(fault.marker, 2 * BOUND)


def assert_nothing_of_ours(engine: docker.DockerClient, project: Project) -> None:
    """No port on the bridges but the containers' own, so no agent is left either, in a helper container or not."""
    found = look_at(project.name)
    for switch, bridge in found.bridges.items():
        wait_for(lambda b=bridge: not any(port.startswith("zkc") for port in ports_of(engine, b)), BOUND)
        plugged = len(found.servers) + len(found.neighbours[switch])
        assert len(ports_of(engine, bridge)) in {0, plugged}


def test_heal_mends_what_the_death_of_the_agent_left_and_touches_nothing_else(whole: Project, tmp_path: Path) -> None:
    fault = Fault("switch-down", "net1", "--for", "60s", "--on", whole.name)
    try:
        fault.wait_until_it_bites()
        for agent in agents(fault.marker):
            os.kill(agent, signal.SIGKILL)
        fault.process.send_signal(signal.SIGINT)
        _out, complaint = fault.process.communicate(timeout=60)
        assert fault.process.returncode == 3, complaint
    finally:
        end(fault.process)
    assert "the testbed's agent" in complaint
    assert f"`zkchaos attach {whole.name} --heal` mends" in complaint
    assert len(complaint.splitlines()) == 1
    assert not is_whole(whole)

    said = zkchaos("attach", whole.name, cwd=tmp_path)
    assert said.code == 0
    assert "it is not whole: " in said.out
    assert "0 of 12 paths" in said.out
    broken = zkchaos("fault", "switch-down", "net1", "--for", "1s", cwd=tmp_path).complaint(3)
    assert "it is broken already" in broken

    whole.container("zoo2").kill()
    whole.container("zoo3").kill(signal="SIGSTOP")
    down = zkchaos("attach", whole.name, cwd=tmp_path).complaint(3)
    assert f"server 2's container {whole.name}-zoo2-1 does not run (exit code 137)" in down
    assert f"`zkchaos attach {whole.name} --heal` starts it" in down
    said = zkchaos("attach", whole.name, "--heal", cwd=tmp_path)
    assert said.code == 0, said.err
    assert said.out.count("12 of 12 paths answer") == 2
    assert whole.container("job").status == "exited"  # it was no server, and had ended before
    assert is_whole(whole)


def agents(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = marker.encode() in (folder / "environ").read_bytes()
            if ours and (folder / "comm").read_text().strip() == "zkchaos-agent":
                found.append(int(folder.name))
        except OSError:
            continue
    return found


# --- wrong words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "target", "seconds", "complaint"),
    [
        ("switch-dwon", "net1", 1.0, 'did you mean "switch-down"?'),
        ("switch-down", "net3", 1.0, 'allowed: "net1", "net2", "random"'),
        ("switch-down", "zk1", 1.0, "there is no switch"),
        ("link-down", "zk1", 1.0, "not host:switch"),
        ("link-down", "zk9:net1", 1.0, "there is no host"),
        ("kill", "zk4", 1.0, "there is no server"),
        ("kill", "zk1,zk1", 1.0, "twice"),
        ("restart", "zk1", 1.0, "does not last"),
        ("kill", "zk1", 0.0, "no length"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_touched(
    project: Project, kind: str, target: str, seconds: float, complaint: str
) -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(UsageError) as refused:
        break_once(console, project.name, kind, target, seconds)
    assert complaint in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_wrong_words_end_with_code_64(project: Project, tmp_path: Path) -> None:
    nothing = zkchaos("fault", "kill", "zk1", cwd=tmp_path).complaint(64)
    assert "nothing was attached yet" in nothing
    unknown = zkchaos("attach", "no-such-project", cwd=tmp_path).complaint(64)
    assert "nothing of that name runs here" in unknown
    assert project.name in unknown
    for_long = zkchaos("fault", "kill", "zk1", "--for", "10", "--on", project.name, cwd=tmp_path).complaint(64)
    assert "allowed: a number and a unit" in for_long
    beside = zkchaos("run", "no-faults", "--attach", project.name, "--zookeeper", "3.8", cwd=tmp_path).complaint(64)
    assert "--zookeeper: an ensemble that runs already is what it is" in beside
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", " ", "=x", "a\nb", "\x1b[31m", "no.such/label=\u2028"])
def test_strange_names_are_refused_in_one_line(engine: docker.DockerClient, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        look_at(name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "words", [("attach", "x"), ("fault", "kill", "1", "--on", "x"), ("run", "mixed", "--attach", "x")]
)
def test_what_is_lacking_is_said_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": "unix:///there/is/no/engine"}
    assert "no Docker engine answers" in zkchaos(*words, cwd=tmp_path, environ=nowhere).complaint(3)
    without = "import sys; sys.modules['docker'] = None"
    assert "pip install 'zk-chaos-harness[docker]'" in zkchaos(*words, cwd=tmp_path, prelude=without).complaint(3)


# --- without Compose ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Three servers and an observer on one network, by `docker run`; and one that stands alone, beside them."""

    label: str
    network: str
    alone: Container


@pytest.fixture(scope="module")
def labelled(engine: docker.DockerClient, image: str) -> Iterator[Labelled]:
    label, network = f"test.attach.{NAME}", f"{NAME}-plain"
    lines = [f"server.{n}={NAME}-{n}:2888:3888{':observer' if n == 4 else ''};2181" for n in (1, 2, 3, 4)]
    made: list[Container] = []
    pool = IPAMPool(subnet=f"fd77:{os.getpid() & 0xFFFF:x}::/64")
    bridge = engine.networks.create(network, driver="bridge", enable_ipv6=True, ipam=IPAMConfig(pool_configs=[pool]))
    try:
        for n in (1, 2, 3, 4):
            environment = {**SMALL, "ZOO_MY_ID": str(n), "ZOO_SERVERS": " ".join(lines)}
            if n == 4:
                environment["ZOO_CFG_EXTRA"] = "peerType=observer"
            labels = {label: "several", f"{label}.all": "yes", f"{label}.number": str(n)}
            made.append(plain(engine, image, f"{NAME}-{n}", labels=labels, environment=environment, network=network))
        # `docker run --rm --init`, as for a quick look
        labels = {label: "one", f"{label}.all": "yes"}
        alone = plain(
            engine,
            image,
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


def plain(engine: docker.DockerClient, image: str, name: str, **how: Any) -> Container:
    """As `docker run` does it."""
    container = engine.containers.run(image, name=name, hostname=name, detach=True, **how)
    assert isinstance(container, Container)
    return container


def test_servers_that_share_a_label_are_an_ensemble(
    labelled: Labelled, engine: docker.DockerClient, tmp_path: Path
) -> None:
    found = look_at(f"{labelled.label}=several")
    assert [s.role for s in found.topology.servers] == [Role.PARTICIPANT] * 3 + [Role.OBSERVER]
    assert found.topology.zookeeper.version == DEFAULT_VERSION
    assert found.neighbours == {"net1": [f"{NAME}-alone"]}
    rows = [line.split() for line in look(found.name).splitlines()[1:5]]
    assert sorted(row[1] for row in rows) == ["follower", "follower", "leader", "observer"]
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
    labelled: Labelled, engine: docker.DockerClient, image: str
) -> None:
    """As it does to who has no fixed one, and the freed one was given to somebody else meanwhile."""
    fault = Fault("kill", "zk4", "--for", "4s", "--on", f"{labelled.label}=several")
    blockers = []
    try:
        fault.wait_until_it_bites()
        for number in range(2):
            name = f"{NAME}-blocker{number}"
            blockers.append(plain(engine, image, name, entrypoint=["sleep", "60"], network=labelled.network))
        said, complaint = fault.process.communicate(timeout=60)
        assert (fault.process.returncode, complaint) == (0, "")
    finally:
        end(fault.process)
        for blocker in blockers:
            blocker.remove(force=True)
    assert "note: containers came back with other addresses: zk4 has " in said
    mend(f"{labelled.label}=several")


def test_two_ensembles_of_one_label_are_told_apart(labelled: Labelled) -> None:
    with pytest.raises(TestbedError, match="servers of two ensembles"):
        look_at(f"{labelled.label}.all=yes")


def test_servers_that_lack_the_label_are_missed(labelled: Labelled) -> None:
    with pytest.raises(TestbedError, match="its servers know a server 1, 3, 4 that no container here is"):
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

"""What `zkchaos doctor` says of a Docker engine, and which faults are offered where."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from harness.nemesis.kinds import KINDS
from harness.testbed.engine import LABEL_OWNER, LABEL_RUN, new_run_id, owner
from harness.testbed.helper import way
from harness.zookeeper.lock import DEFAULT_VERSION
from tests.integration.command_line import Said, zkchaos
from tests.integration.engine_things import Things

pytestmark = pytest.mark.usefixtures("namespaces_allowed", "java")


def doctor(cwd: Path, *, prelude: str = "pass", **environ: str) -> Said:
    """Its words, one finding on a line."""
    return zkchaos("doctor", cwd=cwd, environ={"COLUMNS": "250", **environ}, prelude=prelude)


def found(said: Said, what: str) -> tuple[str, str]:
    """The mark of a finding, and all that stands on its line."""
    match = re.search(rf"^ (ok|no|-) +{re.escape(what)} +(.*)$", said.out, flags=re.MULTILINE)
    assert match, said.out
    return match[1], match[2]


def offered(said: Said) -> dict[str, list[str]]:
    """By kind of fault, what is said of each testbed."""
    rows = re.findall(rf"^ ({'|'.join(KINDS)})  +(.*)$", said.out, flags=re.MULTILINE)
    return {kind: re.split(r"  +", words.strip()) for kind, words in rows}


@pytest.fixture
def things(engine: docker.DockerClient) -> Iterator[Things]:
    things = Things(engine)
    yield things
    things.clear()


def owner_that_is_dead() -> str:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = owner(process.pid)
        process.kill()
    return name


def test_an_engine_is_examined_and_not_touched(tmp_path: Path, engine: docker.DockerClient, things: Things) -> None:
    labels = {LABEL_RUN: new_run_id(), LABEL_OWNER: owner_that_is_dead()}
    volume = things.volume(labels)
    said = doctor(tmp_path)
    assert (said.code, said.err) == (0, "")
    assert found(said, "Docker engine")[0] == "ok"
    assert engine.version()["Version"] in found(said, "Docker engine")[1]
    words = {"agent": "a local agent: we are root", "helper": "a helper container: "}[way(engine)[0]]
    assert found(said, "way to its networks")[1].startswith(words)
    for image in (f"zookeeper:{DEFAULT_VERSION}", "zkchaos/helper:", "zkchaos/toxiproxy:"):
        assert image in said.out
    assert found(said, "Compose v2")[1]
    mark, line = found(said, "left by dead runs")
    assert mark == "-"
    assert "`zkchaos clean`" in line
    assert "runs are possible" in said.out
    assert volume in things.names()  # it only looks
    assert list(tmp_path.iterdir()) == []


def test_faults_are_listed_with_the_reason_of_each_difference(tmp_path: Path, engine: docker.DockerClient) -> None:
    said = doctor(tmp_path)
    ending = ["yes", "differs", "differs", "not of all"]
    switches, cables = ["yes", "yes", "yes", "differs"], ["yes", "yes", "yes", "yes"]
    started_for_it, of_some, of_none = ["yes", "yes", "yes", "no"], ["yes", "yes", "yes", "not of all"], "no"
    assert offered(said) == {
        **dict.fromkeys(("switch-down", "switch-flap", "switch-split"), switches),
        **dict.fromkeys(("link-down", "link-flap", "nic-down", "partition", "packets"), cables),
        "stream": ["yes", "not of all", of_none, of_none],
        **dict.fromkeys(("kill", "restart", "crash-loop", "restart-storm", "rolling-restart", "slow-start"), ending),
        "pause": of_some,
        "limit": ["yes", "differs", "differs", of_none],
        **dict.fromkeys(("clock", "damage"), started_for_it),
        "disk": ["yes", of_none, of_none, of_none],
    }
    assert "docker, docker-helper, --attach: kill, restart, crash-loop" in said.out
    assert "slow-start, limit: differs: the server's NICs vanish" in said.out
    assert "--attach: kill, restart, crash-loop, restart-storm, rolling-restart: not where a container is" in said.out
    assert "docker, docker-helper: disk: not on an engine" in said.out


@pytest.mark.parametrize(
    ("prelude", "words"),
    [
        ("pass", "no Docker engine answers: No such file or directory"),
        ("import sys; sys.modules['docker'] = None", "the Docker SDK for Python is not installed"),
    ],
)
def test_without_an_engine_runs_are_possible_all_the_same(tmp_path: Path, prelude: str, words: str) -> None:
    said = doctor(tmp_path, prelude=prelude, DOCKER_HOST=f"unix://{tmp_path}/nowhere.sock")
    assert (said.code, said.err) == (0, "")
    mark, line = found(said, "Docker engine")
    assert mark == "-"
    assert words in line
    assert "`--testbed namespaces` needs none" in line
    assert offered(said) == {kind: ["yes", "no", "no", "no"] for kind in KINDS}
    assert f"docker, docker-helper, --attach: not here, for want of Docker engine: {words}" in said.out
    assert "differs" not in said.out
    assert "runs are possible" in said.out


def test_what_namespaces_lack_is_told_of_their_faults(tmp_path: Path) -> None:
    said = doctor(tmp_path, JAVA_HOME="/nonexistent", DOCKER_HOST=f"unix://{tmp_path}/nowhere.sock")
    assert said.code == 3
    assert offered(said) == {kind: ["no", "no", "no", "no"] for kind in KINDS}
    assert "namespaces: not here, for want of Java: bin/java is not there" in said.out


def test_an_engine_is_enough(tmp_path: Path, engine: docker.DockerClient) -> None:
    said = doctor(tmp_path, JAVA_HOME="/nonexistent")
    assert said.code == 0
    assert {words[0] for words in offered(said).values()} == {"no"}
    assert offered(said)["link-down"] == ["no", "yes", "yes", "yes"]
    assert "runs are possible with `--testbed docker`; on namespaces they are not: Java" in said.out

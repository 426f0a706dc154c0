"""What is said to who attaches with wrong words, or without what it takes; nothing is touched."""

from __future__ import annotations

import io
from pathlib import Path

import docker
import pytest
from rich.console import Console

from harness.attach import break_once, look_at
from harness.errors import UsageError
from tests.integration.command_line import zkchaos
from tests.integration.foreign import Project

pytestmark = pytest.mark.usefixtures("own_memory")


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
    foreign_project: Project, kind: str, target: str, seconds: float, complaint: str
) -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(UsageError) as refused:
        break_once(console, foreign_project.name, kind, target, seconds)
    assert complaint in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_wrong_words_end_with_code_64(foreign_project: Project, tmp_path: Path) -> None:
    nothing = zkchaos("fault", "kill", "zk1", cwd=tmp_path).complaint(64)
    assert "nothing was attached yet" in nothing
    unknown = zkchaos("attach", "no-such-project", cwd=tmp_path).complaint(64)
    assert "nothing of that name runs here" in unknown
    assert foreign_project.name in unknown
    for_long = zkchaos("fault", "kill", "zk1", "--for", "10", "--on", foreign_project.name, cwd=tmp_path).complaint(64)
    assert "allowed: a number and a unit" in for_long
    beside = zkchaos(
        "run", "no-faults", "--attach", foreign_project.name, "--zookeeper", "3.8", cwd=tmp_path
    ).complaint(64)
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

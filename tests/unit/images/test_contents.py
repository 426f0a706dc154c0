"""What goes into the images above Debian, and what is said where it cannot be had."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from harness.errors import EngineUnavailable, UsageError
from harness.images import helper, server, toxiproxy, wheels
from harness.images.archive import Entry
from harness.images.loading import Loaded, Stopwatch
from harness.topology.library import data_folder


def test_a_loaded_image_says_how_long_each_step_took() -> None:
    loaded = Loaded("zkchaos/zookeeper:3.9.5", "sha256:0", {"file system": 24.4, "jars": 2.0, "load": 4.66})
    assert str(loaded) == "zkchaos/zookeeper:3.9.5 built in 31 s: file system 24 s, jars 2.0 s, load 4.7 s"


def test_a_step_may_come_twice() -> None:
    watch = Stopwatch()
    for name in ("load", "byte code", "load"):
        watch.lap(name)
    assert list(watch.steps) == ["load", "byte code"]
    assert all(seconds >= 0 for seconds in watch.steps.values())


@pytest.mark.parametrize("name", ["docker-entrypoint.sh", "zkServer.sh"])
def test_the_scripts_are_sound(name: str) -> None:
    path = data_folder("compose/images") / "zookeeper" / name
    assert path.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_helpers_tag_changes_with_its_sources_and_nothing_else() -> None:
    sources = tuple(helper._harness())
    tag = helper._tag_of(sources)
    assert tag == helper._tag_of(tuple(helper._harness()))
    assert tag.startswith(f"{helper.OWN}:")
    first, *others = sources
    for other in (
        (Entry(first.path, b"another"), *others),
        (Entry(f"{first.path}x", first.content), *others),
        tuple(others),
    ):
        assert helper._tag_of(other) != tag


def test_the_helper_has_what_it_runs_and_no_more() -> None:
    paths = {entry.path.removeprefix("/opt/zkchaos/") for entry in helper._harness()}
    assert {"harness/__init__.py", "harness/errors.py", "harness/testbed/agent.py", "harness/load/client.py"} <= paths
    assert {path.split("/")[1] for path in paths} == set(helper._PARTS)
    assert all(path.endswith(".py") for path in paths)


@pytest.mark.parametrize(
    ("version", "tag"), [("3.9.5", "3.9.5"), ("3.8", "3.8.6"), ("3.8.x", "3.8.6"), ("3.9.2", "3.9.2")]
)
def test_the_tag_of_a_version(version: str, tag: str) -> None:
    assert server._tag(version) == tag


@pytest.mark.parametrize("version", ["2.1", "3.4.x", "4", "", "latest"])
def test_a_version_that_means_nothing(version: str) -> None:
    with pytest.raises(UsageError, match="is not one that can be fetched"):
        server._tag(version)


def test_a_package_that_was_not_installed() -> None:
    with pytest.raises(EngineUnavailable, match="the version of no-such-package is not known"):
        wheels.pinned(("msgspec", "no-such-package"))


def test_a_wheel_is_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/", "")
        archive.writestr("x/__init__.py", "pass")
    assert list(wheels.unpacked(wheel, "/opt")) == [Entry("/opt/x/__init__.py", b"pass", 0o644)]


def test_wheels_are_fetched_once(tmp_path: Path) -> None:
    kept = tmp_path / "images" / "wheels-cp3.11-amd64-x-1"
    kept.mkdir(parents=True)
    (kept / "x.whl").touch()
    environ = {"ZKCHAOS_CACHE": str(tmp_path), "PATH": ""}
    assert wheels.fetch_wheels(("x==1",), "amd64", "3.11", pytest.fail, environ) == (kept / "x.whl",)


def test_pip_cannot_fetch(tmp_path: Path) -> None:
    environ = {"ZKCHAOS_CACHE": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PATH": ""}
    told: list[str] = []
    with pytest.raises(EngineUnavailable, match=r"likely cause: .*no-such-package"):
        wheels.fetch_wheels(("no-such-package==1",), "amd64", "3.11", told.append, environ)
    assert told == ["fetching no-such-package==1"]
    assert not [path for path in (tmp_path / "images").iterdir() if path.is_dir()]


def test_without_go(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="install Go"):
        toxiproxy._compile("amd64", tmp_path, {"PATH": str(tmp_path)})


def test_go_fails(tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go: downloading x >&2\necho go: no such module >&2\nexit 1\n")
    go.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="likely cause: go: no such module"):
        toxiproxy._compile("amd64", tmp_path, {"PATH": str(tmp_path)})

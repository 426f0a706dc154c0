"""Class data where none can be made. What real JVMs do with an archive is an integration test."""

from pathlib import Path

import pytest

from harness.zookeeper.class_data import class_data_flags, ensure_class_data
from harness.zookeeper.distribution import Distribution, Jar, LoggingBackend
from harness.zookeeper.java import Java


@pytest.fixture
def distribution(tmp_path: Path) -> Distribution:
    path = tmp_path / "zookeeper-3.9.5.jar"
    path.touch()
    return Distribution("3.9.5", "directory", (Jar(path, ""),), LoggingBackend.LOGBACK)


def java(folder: Path, major: int) -> Java:
    """A JVM that ends at once and counts how often it was started."""
    executable = folder / "java"
    executable.write_text(f"#!/bin/sh\necho started >> {folder}/starts\nexit 1\n")
    executable.chmod(0o755)
    return Java(executable, "PATH", f"{major}.0.1", major)


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("major", [8, 12])
def test_an_old_java_goes_without(tmp_path: Path, distribution: Distribution, major: int) -> None:
    environ = {"ZKCHAOS_CACHE": str(tmp_path / "cache")}
    assert ensure_class_data(java(tmp_path, major), distribution, environ=environ) == ()
    assert starts(tmp_path) == 0


@pytest.mark.parametrize("major", [17, 25])
def test_a_jvm_that_makes_no_archive_is_no_error_and_not_tried_every_time(
    tmp_path: Path, distribution: Distribution, major: int
) -> None:
    environ = {"ZKCHAOS_CACHE": str(tmp_path / "cache")}
    broken = java(tmp_path, major)
    said: list[str] = []
    assert ensure_class_data(broken, distribution, environ=environ, progress=said.append) == ()
    assert len(said) == 1
    tried = starts(tmp_path)
    assert tried >= 1
    assert ensure_class_data(broken, distribution, environ=environ, progress=said.append) == ()
    assert (starts(tmp_path), len(said)) == (tried, 1)
    assert not list((tmp_path / "cache" / "class-data").glob("training-*"))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, distribution: Distribution) -> None:
    (tmp_path / "file").touch()
    environ = {"ZKCHAOS_CACHE": str(tmp_path / "file" / "cache")}
    assert ensure_class_data(java(tmp_path, 17), distribution, environ=environ) == ()
    assert class_data_flags(java(tmp_path, 17), distribution, environ=environ) == ()

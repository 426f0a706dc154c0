"""The agent in a helper container: all that the local one can do, with the least that it needs."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.errors import NotFound

from harness.errors import EngineUnavailable, EnvironmentLacking, TestbedError
from harness.images.helper import ensure_helper_image
from harness.testbed import helper, wire
from harness.testbed.client import AgentClient
from harness.testbed.engine import LABEL_HOST, LABEL_RUN, new_run_id
from harness.testbed.handles import Link
from harness.testbed.helper import CAPABILITIES, CAPABILITIES_FOR_USER, engine_pid, start_helper, way
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from tests.integration.command_line import living, wait_until_gone
from tests.integration.conftest import require
from tests.integration.engine_things import Things

#: A user who is certainly not root; need not have a name.
USER = (23456, 34567)
ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> str:
    try:
        return ensure_helper_image(engine, lambda _line: None)
    except EnvironmentLacking as lacking:
        require("docker", str(lacking))
        raise


@dataclass
class Helpers:
    """Starts helpers, and closes them at the end of the test."""

    engine: docker.DockerClient
    image: str
    started: list[AgentClient]

    def start(self, mounts: list[Path] | None = None, run_id: str | None = None) -> AgentClient:
        agent = start_helper(self.engine, run_id or new_run_id(), image=self.image, mounts=mounts or [])
        self.started.append(agent)
        return agent

    def container(self, run_id: str) -> dict[str, object]:
        """What the engine says of a helper."""
        found: dict[str, object] = self.engine.api.inspect_container(f"zkchaos-{run_id}-helper")
        return found


@pytest.fixture
def helpers(engine: docker.DockerClient, image: str) -> Iterator[Helpers]:
    helpers = Helpers(engine, image, [])
    yield helpers
    for agent in helpers.started:
        agent.close()


@pytest.fixture
def things(engine: docker.DockerClient) -> Iterator[Things]:
    things = Things(engine)
    yield things
    things.clear()


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is an ordinary user."""
    monkeypatch.setattr(helper, "_identity", lambda _security: USER)


@pytest.fixture
def on_this_machine(engine: docker.DockerClient) -> None:
    """The engine's processes can be seen from here."""
    if not engine_pid(engine) or os.geteuid() != 0:
        pytest.skip("the engine's processes are not in sight")


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Returns how long it took, seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "not within the time"
        time.sleep(0.01)
    return time.monotonic() - began


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def is_gone(engine: docker.DockerClient, name: str) -> bool:
    try:
        engine.api.inspect_container(name)
    except NotFound:
        return True
    return False


# --- what it can ---------------------------------------------------------------------------------------------


def test_it_starts_answers_and_is_gone(helpers: Helpers) -> None:
    run_id = new_run_id()
    began = time.monotonic()
    agent = helpers.start(run_id=run_id)
    assert agent.rootless is False
    started = time.monotonic() - began
    took = []
    for _ in range(200):
        asked = time.monotonic()
        agent.ask(wire.GetProcesses(), wire.Processes)
        took.append(time.monotonic() - asked)
    alive = [agent.alive]
    closing = time.monotonic()
    agent.close()
    alive.append(agent.alive)
    assert is_gone(helpers.engine, f"zkchaos-{run_id}-helper")
    ended = time.monotonic() - closing
    assert alive == [True, False]
    assert started < 10
    assert statistics.median(took) < 0.01
    assert ended < 5
    agent.close()
    with pytest.raises(TestbedError, match="the testbed's agent ended") as caught:
        agent.ask(wire.GetProcesses(), wire.Processes)
    assert caught.value.where == f"zkchaos-{run_id}-helper"


def test_a_testbed_of_namespaces_works_in_it(helpers: Helpers, tmp_path: Path) -> None:
    """All that is asked of an agent, through the relay."""
    testbed = NamespacesTestbed(load_topology("dual-net"), helpers.start([tmp_path]))

    def reached() -> set[str]:
        paths = testbed.reach(("net1", "net2"), timeout_ms=150)
        return {p.switch for p in paths if p.micros is not None}

    assert reached() == {"net1", "net2"}
    testbed.set_links([Link("net1")], up=False)
    assert reached() == {"net2"}
    testbed.set_links([Link("net1")], up=True)
    wait_for(lambda: reached() == {"net1", "net2"})

    python, environment = testbed.python
    server = "import socket; s = socket.create_server(('10.77.2.1', 2181)); a, b = s.accept(); "
    server += "print(b[0], flush=True); [a.sendall(x.upper()) for x in iter(lambda: a.recv(100), b'')]; a.close()"
    output = tmp_path / "server"
    process = testbed.spawn("zk1", [python, "-c", server], environment, output)
    wait_for(lambda: process_listens(testbed, tmp_path))
    with testbed.tcp_socket("c1", ("10.77.2.1", 2181)) as client:
        client.settimeout(5)
        client.sendall(b"through the relay")
        assert client.recv(100) == b"THROUGH THE RELAY"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert output.read_text() == "10.77.2.101\n"
    wait_for(lambda: testbed.exited(process) is not None)
    with testbed.tcp_socket("c1", ("10.77.2.1", 2181)) as refused:
        refused.settimeout(5)
        assert refused.recv(100) == b""  # nobody listens any more

    module = [python, "-c", "import harness.load.client as c; print(c.__name__)"]
    testbed.spawn("c1", module, environment, tmp_path / "load")
    wait_for(lambda: text_of(tmp_path / "load") == "harness.load.client\n")
    with pytest.raises(TestbedError, match="no such host"):
        testbed.tcp_socket("zk9", ("10.77.1.1", 1))
    testbed.close()


def process_listens(testbed: NamespacesTestbed, folder: Path) -> bool:
    """Whether something listens on zk1's port 2181 (hexadecimal 0885), as zk1 itself sees it; state 0A is listening."""
    output = folder / f"listens-{secrets.token_hex(4)}"
    asking = testbed.spawn("zk1", ["/bin/cat", "/proc/net/tcp"], ENV, output)
    wait_for(lambda: testbed.exited(asking) is not None)
    return any(":0885 " in line and " 0A " in line for line in text_of(output).splitlines())


def test_a_channel_carries_any_byte_and_its_end(helpers: Helpers, tmp_path: Path) -> None:
    """Also those by which a terminal would detach from a container."""
    testbed = NamespacesTestbed(load_topology("single-net"), helpers.start([tmp_path]))
    every = bytes(range(256)) * 300 + b"\x10\x11"
    process = testbed.spawn("c1", ["/bin/sh", "-c", "exec cat <&3 >&3"], ENV, tmp_path / "output", channel=True)
    assert process.channel is not None
    with process.channel as channel:
        channel.settimeout(10)
        channel.sendall(every)
        got = bytearray()
        while len(got) < len(every):
            got += channel.recv(65536)
        assert got == every
        channel.shutdown(socket.SHUT_WR)
        wait_for(lambda: testbed.exited(process) is not None)
        assert channel.recv(1) == b""


def test_processes_run_as_the_caller_who_owns_what_they_write(helpers: Helpers, tmp_path: Path, as_user: None) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, *USER)
    tmp_path.chmod(0o755)
    testbed = NamespacesTestbed(load_topology("single-net"), helpers.start([folder]))
    words = f"grep -E 'Uid|Gid|Groups|Cap|NoNewPrivs' /proc/self/status; echo x >{folder}/file; exec sleep 100"
    process = testbed.spawn("c1", ["/bin/sh", "-c", words], ENV, folder / "output")
    wait_for(lambda: (folder / "file").exists() and testbed.state(process) == "S")
    for file in (folder / "file", folder / "output"):
        assert (file.stat().st_uid, file.stat().st_gid) == USER
    status = dict(line.split(":", 1) for line in (folder / "output").read_text().splitlines())
    assert status["Uid"].split() == [str(USER[0])] * 4
    assert status["Gid"].split() == [str(USER[1])] * 4
    assert status["Groups"].split() == []
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    testbed.signal(process, signal.SIGSTOP)
    wait_for(lambda: testbed.state(process) == "T")
    testbed.signal(process, signal.SIGKILL)
    wait_for(lambda: testbed.exited(process) is not None)


# --- how little it may ---------------------------------------------------------------------------------------


def test_it_is_confined(helpers: Helpers, tmp_path: Path, as_user: None) -> None:
    run_id = new_run_id()
    helpers.start([tmp_path], run_id).wait_ready()
    found = helpers.container(run_id)
    config, host = found["Config"], found["HostConfig"]
    assert isinstance(config, dict)
    assert isinstance(host, dict)
    assert config["Labels"][LABEL_RUN] == run_id
    assert config["Labels"][LABEL_HOST] == "helper"
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    capabilities = {"SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SETUID", "SETGID"}
    assert {name.removeprefix("CAP_") for name in host["CapAdd"]} == capabilities
    assert {*CAPABILITIES, *CAPABILITIES_FOR_USER} == capabilities
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["ReadonlyRootfs"] is True
    assert host["AutoRemove"] is True
    assert (host["NetworkMode"], host["PidMode"], host["IpcMode"]) == ("host", "host", "private")
    assert host["LogConfig"]["Type"] == "none"
    assert not host["PortBindings"]
    assert not host["Devices"]
    mounts = found["Mounts"]
    assert isinstance(mounts, list)
    assert [(mount["Source"], mount["Destination"]) for mount in mounts] == [(str(tmp_path), str(tmp_path))]


def test_it_has_no_socket_of_the_engine_and_cannot_write_its_own_files(helpers: Helpers, tmp_path: Path) -> None:
    testbed = NamespacesTestbed(load_topology("single-net"), helpers.start([tmp_path]))
    python, environment = testbed.python
    look = (
        "import os, json, stat; places = ['/run', '/var/run', '/tmp', '/root', os.environ['FOLDER']]\n"
        "files = [os.path.join(d, n) for p in places for d, _, names in os.walk(p) for n in names]\n"
        "sockets = [f for f in files if stat.S_ISSOCK(os.lstat(f).st_mode)]\n"
        "writable = [p for p in ('/', '/etc', '/opt', '/tmp', '/usr') if not os.statvfs(p).f_flag & os.ST_RDONLY]\n"
        "print(json.dumps([sockets, writable]), flush=True)"
    )
    output = tmp_path / "output"
    testbed.spawn("c1", [python, "-c", look], {**environment, "FOLDER": str(tmp_path)}, output)
    wait_for(lambda: text_of(output).endswith("\n"))
    assert json.loads(output.read_text()) == [[], []]


@pytest.mark.parametrize("left_out", [*CAPABILITIES, *CAPABILITIES_FOR_USER])
def test_it_needs_each_of_its_capabilities(
    left_out: str, helpers: Helpers, things: Things, as_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs them: its own namespaces, a container's network, a process of a user."""
    for name in ("CAPABILITIES", "CAPABILITIES_FOR_USER"):
        kept = {k: v for k, v in getattr(helper, name).items() if k != left_out}
        monkeypatch.setattr(helper, name, kept)
    with pytest.raises((TestbedError, EnvironmentLacking), match=r"refuse|denied|not permitted"):
        stand_beside_a_container(helpers, things)


def test_it_needs_no_other_capability(helpers: Helpers, things: Things, as_user: None) -> None:
    stand_beside_a_container(helpers, things)


def stand_beside_a_container(helpers: Helpers, things: Things) -> tuple[AgentClient, str]:
    """A network of the engine with a container as zk1 and a client host c1, who reach each other."""
    subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    network = things.network({}, f"{subnet}.0/24")
    container = things.client.api.inspect_container(things.container({}, network))
    address = container["NetworkSettings"]["Networks"][network]["IPAddress"]
    bridge = f"br-{things.client.api.inspect_network(network)['Id'][:12]}"
    hosts = (
        wire.HostSpec("zk1", (wire.NicSpec("net1", address, 24),), container=True),
        wire.HostSpec("c1", (wire.NicSpec("net1", f"{subnet}.101", 24),)),
    )
    agent = helpers.start()
    tag = f"t{secrets.token_hex(3)}"
    agent.ask(wire.Build(("net1",), hosts, wire.EngineSpec({"net1": bridge}, None, tag)), wire.Done)
    agent.ask(wire.Join("zk1", container["State"]["Pid"]), wire.Done)
    assert agent.ask(wire.GetStates((container["State"]["Pid"], 2**22)), wire.States).states == ("S", "X")
    wait_for(lambda: all(p.micros for p in agent.ask(wire.Reach(("net1",), 150), wire.Paths).paths))
    agent.ask(wire.SetLinks((wire.LinkChange("net1", None, False),)), wire.Done)
    assert not any(p.micros for p in agent.ask(wire.Reach(("net1",), 150), wire.Paths).paths)
    return agent, bridge


# --- how it ends ---------------------------------------------------------------------------------------------

VICTIM = """
import sys, time
from pathlib import Path
from harness.testbed.engine import connect_engine
from harness.testbed.helper import start_helper
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology

run_id, image, folder, marker = sys.argv[1:]
agent = start_helper(connect_engine(), run_id, image=image, mounts=[Path(folder)])
testbed = NamespacesTestbed(load_topology("dual-net"), agent)
name, _, value = marker.partition("=")
for host in ("zk1", "c1"):
    testbed.spawn(host, ["/bin/sleep", "1000"], {name: value}, Path(folder, "output"))
print("stands", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_when_the_caller_is_killed_everything_is_gone(
    times: int, helpers: Helpers, tmp_path: Path, on_this_machine: None
) -> None:
    run_id, marker = new_run_id(), f"ZKCHAOS_HELPER_TEST={secrets.token_hex(8)}"
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, run_id, helpers.image, str(tmp_path), marker],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert victim.stdout is not None
    with victim.stdout as words:
        try:
            assert words.readline() == b"stands\n"
            wait_for(lambda: len(living(marker)) == 2)
        finally:
            victim.kill()
            victim.wait()
    began = time.monotonic()
    wait_for(lambda: is_gone(helpers.engine, f"zkchaos-{run_id}-helper"))
    wait_until_gone(marker)
    assert time.monotonic() - began < 10


def carrier(engine: docker.DockerClient, bridge: str) -> str:
    """`up` or `down`, as the engine's network namespace has it."""
    words = ["nsenter", f"--net=/proc/{engine_pid(engine)}/ns/net", "ip", "-o", "link", "show", bridge]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return "up" if ",UP" in said.partition(">")[0] else "down"


@pytest.mark.parametrize("end", ["close", "stop"])
def test_links_of_the_engine_are_restored_when_it_ends(
    end: str, helpers: Helpers, things: Things, on_this_machine: None
) -> None:
    agent, bridge = stand_beside_a_container(helpers, things)
    assert carrier(helpers.engine, bridge) == "down"
    if end == "close":
        agent.close()
    else:
        name = agent._place.name
        helpers.engine.api.stop(name)
    assert carrier(helpers.engine, bridge) == "up"


def test_a_helper_that_is_killed_is_told(helpers: Helpers) -> None:
    run_id = new_run_id()
    agent = helpers.start(run_id=run_id)
    agent.wait_ready()
    helpers.engine.api.kill(f"zkchaos-{run_id}-helper")
    with pytest.raises(TestbedError, match="the testbed's agent"):
        agent.ask(wire.GetProcesses(), wire.Processes)
    wait_for(lambda: not agent.alive)


# --- what is refused, and which way is taken ------------------------------------------------------------------


def test_what_the_engine_refuses_is_said_and_nothing_is_left(helpers: Helpers, tmp_path: Path) -> None:
    run_id = new_run_id()
    with pytest.raises(TestbedError, match="does not exist") as caught:
        helpers.start([tmp_path / "nowhere"], run_id)
    assert caught.value.where == f"zkchaos-{run_id}-helper"
    assert is_gone(helpers.engine, f"zkchaos-{run_id}-helper")
    with pytest.raises(EngineUnavailable, match="lacks the helper's image"):
        start_helper(helpers.engine, run_id, image="zkchaos/helper:of-another-harness", mounts=[])


def test_an_agent_that_cannot_start_says_why(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "_ENTRY", ["python3", "-c", "import sys; sys.exit('no agent in here')"])
    with pytest.raises(TestbedError, match="no agent in here"):
        helpers.start().wait_ready()


def test_root_beside_the_engine_needs_no_helper(engine: docker.DockerClient, on_this_machine: None) -> None:
    assert way(engine)[0] == "agent"
    assert str(engine_pid(engine)) in way(engine)[1]


def test_an_ordinary_user_takes_the_helper(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert way(engine) == ("helper", "we are not root")


def test_an_engine_without_a_unix_socket_takes_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    far = docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41")
    assert engine_pid(far) == 0
    assert way(far) == ("helper", "the engine is not a process of this machine")
    far.close()

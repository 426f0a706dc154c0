"""The testcontainers module, as far as it can be tested without an engine."""

from __future__ import annotations

import gc
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.containers import ZooKeeperContainer, ZooKeeperEnsembleContainer
from harness.containers_ready import all_serve, ask_command, wait_until
from harness.errors import EngineUnavailable, EnsembleError, TopologyError, UsageError
from harness.topology.loader import load_topology
from harness.zookeeper.admin import DOWN, ServerStatus, parse_srvr
from tests.integration.conftest import command

SRVR = "Zookeeper version: 3.9.5\nConnections: 1\nZxid: 0x10\nMode: follower\nNode count: 5\n"
NOT_SERVING = "This ZooKeeper instance is not currently serving requests\n"


@contextmanager
def server(*answers: str | None) -> Iterator[int]:
    """A port that gives one answer after the other, the last one again and again; None: it hangs."""
    stopping = threading.Event()
    asked: list[str] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4).decode())
                answer = answers[min(len(asked), len(answers)) - 1]
                if answer is None:
                    stopping.wait(20)
                else:
                    connection.sendall(f"{asked[-1]} {answer}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def ask(port: int, word: str = "srvr", *, attempts: int = 1, awaited: str = "") -> str:
    """What the command prints when it is run here, as it is in the container."""
    command("bash")
    words = ask_command(port, word, attempts=attempts, awaited=awaited)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert not done.stderr
    return done.stdout


def test_a_word_is_asked_from_inside() -> None:
    with server(SRVR) as port:
        assert ask(port, "mntr") == f"mntr {SRVR}"


def test_it_is_asked_again_until_the_answer_is_there() -> None:
    with server("", NOT_SERVING, SRVR, NOT_SERVING) as port:
        answer = ask(port, attempts=10, awaited="Mode: ")
        assert parse_srvr(answer) == ServerStatus("follower", 16, 1)


def test_what_is_not_there_in_time_is_told_as_it_is() -> None:
    with server(NOT_SERVING) as port:
        assert parse_srvr(ask(port, attempts=2, awaited="Mode: ")).role == "looking"


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert parse_srvr(ask(port, attempts=2, awaited="Mode: ")) == DOWN


def test_a_server_that_hangs_is_not_waited_for() -> None:
    with server(None) as port:
        started = time.monotonic()
        assert parse_srvr(ask(port)) == DOWN
        assert time.monotonic() - started < 10


@dataclass
class Asked:
    """A server in a container, which says one thing after the other, and its last word for ever."""

    words: list[str]
    code: int | None = None
    asked: int = field(default=0)

    def await_serving(self) -> ServerStatus:
        self.asked += 1
        return ServerStatus(self.words[min(self.asked, len(self.words)) - 1])

    def exit_code(self) -> int | None:
        return self.code

    def last_lines(self) -> str:
        return "Invalid config, exiting abnormally"


def test_all_are_asked_until_all_serve() -> None:
    servers = {"1": Asked(["down", "looking", "leader"]), "2": Asked(["follower"])}
    status = wait_until(servers, all_serve, within=10)
    assert {name: said.role for name, said in status.items()} == {"1": "leader", "2": "follower"}
    assert servers["1"].asked == 3


def test_a_server_that_ended_is_told_at_once() -> None:
    servers = {"server 1": Asked(["leader"]), "server 2": Asked(["down"], code=2)}
    with pytest.raises(EnsembleError, match=r"server 2: it ended by itself with code 2 .*Invalid config") as raised:
        wait_until(servers, all_serve, within=60)
    assert servers["server 2"].asked == 1
    assert raised.value.next_step


def test_a_server_that_was_killed_does_not_matter_to_the_others() -> None:
    def has_leader(status: Mapping[str, ServerStatus]) -> bool:
        return any(said.role == "leader" for said in status.values())

    servers = {"1": Asked(["down"], code=137), "2": Asked(["looking", "leader"])}
    assert wait_until(servers, has_leader, within=10, may_have_ended=True)["2"].role == "leader"


def test_the_wait_has_an_end() -> None:
    servers = {"server 1": Asked(["follower"]), "server 2": Asked(["looking"])}
    expected = r"server 2: not ready within 0.2 s \(server 1 follower, server 2 looking\)"
    with pytest.raises(EnsembleError, match=expected):
        wait_until(servers, all_serve, within=0.2)


@given(st.dictionaries(st.text(max_size=3), st.sampled_from(["leader", "follower", "looking", "down", "read-only"])))
def test_all_serve_if_none_does_not(roles: dict[str, str]) -> None:
    expected = not {"looking", "down", "read-only"} & set(roles.values())
    assert all_serve({name: ServerStatus(role) for name, role in roles.items()}) is expected


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(EngineUnavailable, match="no Docker engine answers"):
        ZooKeeperContainer()
    with pytest.raises(EngineUnavailable, match="no Docker engine answers"):
        ZooKeeperEnsembleContainer("dual-net").start()
    gc.collect()  # the SDK leaves a socket that could not connect to the collector: let it be here


def test_an_ensemble_is_declared_without_an_engine() -> None:
    zk = ZooKeeperEnsembleContainer("dual-net", version="3.8")
    assert zk.topology.zookeeper.version == "3.8"
    assert zk.addresses()[:3] == ("10.77.1.1:2181", "10.77.2.1:2181", "10.77.1.2:2181")
    assert zk.direct_connection_string() == ",".join(zk.addresses())
    assert (zk.servers, zk.networks) == ({}, {})
    assert ZooKeeperEnsembleContainer(load_topology("single-net")).addresses() == (
        "10.77.1.1:2181",
        "10.77.1.2:2181",
        "10.77.1.3:2181",
    )


def test_an_ensemble_that_was_not_started() -> None:
    zk = ZooKeeperEnsembleContainer()
    zk.stop()
    for use in (zk.leader, lambda: zk.kill(1), lambda: zk.start(1)):
        with pytest.raises(UsageError, match="was not started"):
            use()


def test_what_is_asked_wrongly() -> None:
    with pytest.raises(UsageError, match='did you mean "dual-net"'):
        ZooKeeperEnsembleContainer("dual-nte")
    with pytest.raises(TopologyError, match='"9" is not a version'):
        ZooKeeperEnsembleContainer("dual-net", version="9")

"""What an ensemble says when it does not come up, and what it does with processes that are paused or gone."""

import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EnsembleError
from harness.history.records import Event, ProcessEvent
from harness.topology.loader import load_topology
from harness.zookeeper.ensemble import _LOG_TAIL, _last_lines
from tests.unit.memory import memory_ensemble

DUAL = load_topology("dual-net")
FIVE = load_topology("dual-net-five")


def test_a_whole_ensemble_serves() -> None:
    with memory_ensemble(DUAL) as (ensemble, _testbed):
        ensemble.wait_until_serving(within=5)
        assert ensemble.wait_for_quorum(within=5) == ensemble.leader() == 1
        assert {i: s.role for i, s in ensemble.status().items()} == {1: "leader", 2: "follower", 3: "follower"}


def test_a_server_that_ends_is_told_at_once_with_what_it_said(tmp_path: Path) -> None:
    with memory_ensemble(DUAL, root=tmp_path) as (ensemble, _testbed):
        logs = ensemble.server_folder(2).logs
        logs.mkdir(parents=True)
        (logs / "jvm.log").write_text("first\nsecond\nError: could not reserve memory\n\tat somewhere\n  the end  \n")
        (logs / "server.log").write_text("not asked for\n")
        ensemble.kill(2)
        started = time.monotonic()
        with pytest.raises(EnsembleError) as caught:
            ensemble.wait_until_serving(within=60)
        assert time.monotonic() - started < 10
    problem = caught.value
    assert problem.what == "server 2 ended by itself (servers: 1 leader, 2 down, 3 follower)"
    assert problem.where == str(logs)
    assert problem.cause == "Error: could not reserve memory / at somewhere / the end"


def test_a_jvm_that_said_nothing_leaves_the_word_to_the_server_log(tmp_path: Path) -> None:
    (tmp_path / "jvm.log").write_text("ZooKeeper JMX disabled by user request\nUsing config: /conf/zoo.cfg\n \n")
    (tmp_path / "server.log").write_text("Address already in use\n")
    assert _last_lines(tmp_path) == "Address already in use"
    assert _last_lines(tmp_path / "nowhere") == ""


def test_the_last_lines_are_few_and_short(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_bytes(b"\xff" * 5 * _LOG_TAIL + b"\n" + b"\n".join(b"x" * 999 for _ in range(9)))
    assert _last_lines(tmp_path) == " / ".join(["x" * 200] * 3)


@given(data=st.binary(max_size=2000))
def test_any_log_has_last_lines(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-log"
    folder.mkdir(exist_ok=True)
    (folder / "server.log").write_bytes(data)
    assert len(_last_lines(folder)) <= 3 * 200 + 2 * len(" / ")


def test_no_quorum_names_every_server() -> None:
    with memory_ensemble(FIVE) as (ensemble, _testbed):
        for server in (1, 3, 5):
            ensemble.kill(server)
        with pytest.raises(EnsembleError) as caught:
            ensemble.wait_for_quorum(within=0.1)
        assert caught.value.what == ("no quorum within 0.1 s (servers: 1 down, 2 leader, 3 down, 4 follower, 5 down)")


def test_a_quorum_that_forms_meanwhile_is_seen() -> None:
    with memory_ensemble(FIVE) as (ensemble, _testbed):
        for server in (1, 2, 3):
            ensemble.kill(server)
        back = threading.Timer(0.2, ensemble.start_server, [3])
        back.start()
        assert ensemble.wait_for_quorum(within=10) == 3
        back.join()


def test_a_word_to_a_dead_server_is_an_error() -> None:
    with memory_ensemble(DUAL) as (ensemble, _testbed):
        ensemble.kill(3)
        with pytest.raises(EnsembleError, match="no answer to 'mntr'") as caught:
            ensemble.word(3, "mntr", timeout=0.1)
        assert caught.value.where == "zk3:2181"


def test_stopping_wakes_who_is_paused_and_may_be_done_twice() -> None:
    events: list[Event] = []
    with memory_ensemble(DUAL, events) as (ensemble, testbed):
        ensemble.pause(1)
        ensemble.kill(2)
        ensemble.stop()
        ensemble.stop()
        assert [testbed.living(server.host) for server in DUAL.servers] == [[], [], []]
        assert [ensemble.process_state(i) for i in (1, 2, 3)] == ["X", "X", "X"]
    ended = [e for e in events if isinstance(e, ProcessEvent) and e.action == "ended"]
    assert sorted((e.server, e.code) for e in ended) == [
        (1, -signal.SIGCONT),
        (2, -signal.SIGKILL),
        (3, -signal.SIGTERM),
    ]


def test_starting_what_runs_does_nothing() -> None:
    events: list[Event] = []
    with memory_ensemble(DUAL, events) as (ensemble, testbed):
        pid = ensemble.pid(1)
        ensemble.start_server(1)
        assert (ensemble.pid(1), testbed.living("zk1")) == (pid, ["S"])
        ensemble.restart(1)
        assert ensemble.pid(1) != pid
        assert testbed.living("zk1") == ["S"]

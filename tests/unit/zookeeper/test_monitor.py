"""The monitor tells a dead server from a paused one and from a late one, and ends with the testbed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import StorageFull, TestbedError
from harness.history.records import Event, Sample
from harness.topology.loader import load_topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.monitor import Monitor
from tests.unit.memory import memory_ensemble

DUAL = load_topology("dual-net")


def roles(events: list[Event]) -> dict[int, list[str]]:
    """The roles of each server, in order, each told once until it changes."""
    found: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, Sample):
            mine = found.setdefault(event.server, [])
            if not mine or mine[-1] != event.role:
                mine.append(event.role)
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_becomes_of_servers_is_told_once_and_at_once() -> None:
    events: list[Event] = []
    with memory_ensemble(DUAL) as (ensemble, _testbed):
        monitor = Monitor(ensemble, events.append)
        monitor.start()
        wait_for(lambda: len(roles(events)) == 3)
        ensemble.kill(1)
        wait_for(lambda: roles(events)[1][-1] == "down")
        ensemble.pause(3)
        wait_for(lambda: roles(events)[3][-1] == "paused")
        ensemble.resume(3)
        ensemble.start_server(1)
        wait_for(lambda: roles(events)[1][-1] == "leader" and roles(events)[3][-1] == "follower")
        monitor.stop()
        monitor.stop()
        told = roles(events)
    assert told == {
        1: ["leader", "down", "leader"],
        2: ["follower", "leader", "follower"],
        3: ["follower", "paused", "follower"],
    }


def test_what_stays_the_same_is_told_once_a_second() -> None:
    events: list[Event] = []
    with memory_ensemble(DUAL) as (ensemble, _testbed):
        monitor = Monitor(ensemble, events.append)
        monitor.start()
        wait_for(lambda: len(events) >= 6)
        monitor.stop()
    times = [event.at for event in events if isinstance(event, Sample) and event.server == 1]
    assert 1e9 <= times[1] - times[0] < 5e9


def test_a_server_that_is_merely_late_is_not_dead() -> None:
    """A living process that gives no answer for a moment, as on a busy machine, keeps the role it had."""
    events: list[Event] = []
    with memory_ensemble(DUAL) as (ensemble, testbed):
        monitor = Monitor(ensemble, events.append)
        monitor.start()
        wait_for(lambda: len(roles(events)) == 3)
        testbed.silent.add("zk2")
        since = time.monotonic()
        wait_for(lambda: roles(events)[2][-1] == "down")
        monitor.stop()
        assert time.monotonic() - since > 0.7
        assert roles(events)[2] == ["follower", "down"]


@pytest.mark.parametrize("problem", [TestbedError("the agent is gone"), StorageFull("no space")])
def test_it_ends_with_what_it_stands_on(problem: Exception) -> None:
    def refuse(_event: Event) -> None:
        raise problem

    with memory_ensemble(DUAL) as (ensemble, _testbed):
        monitor = Monitor(ensemble, refuse)
        monitor.start()
        started = time.monotonic()
        monitor.stop()
        assert time.monotonic() - started < 5


def test_one_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    with memory_ensemble(DUAL, root=tmp_path) as (ensemble, _testbed):
        assert isinstance(ensemble, Ensemble)
        Monitor(ensemble, lambda _event: None).stop()

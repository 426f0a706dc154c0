"""Servers that die again and again, or one after the other: rhythm, order, and what overlapping faults leave behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from harness.errors import TestbedError
from harness.history.records import Event, FaultAction, FaultEvent, ProbeEvent, ProcessEvent
from harness.nemesis import crash_fault, nemesis, slow_start_fault, storm_fault
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.plan import Step
from harness.nemesis.storm_fault import spells
from harness.topology.loader import load_topology
from tests.unit.memory import MemoryTestbed, memory_ensemble

FIVE = load_topology("dual-net-five")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory a start takes no time, and nobody has to wait for what is slow."""
    monkeypatch.setattr(slow_start_fault, "_USUAL_START", 0.05)
    monkeypatch.setattr(crash_fault, "_PAUSE", 0.03)
    monkeypatch.setattr(crash_fault, "_LONGEST_LIFE", 0.2)
    monkeypatch.setattr(nemesis, "_POLL", 0.01)
    monkeypatch.setattr(storm_fault, "_FIRST", (0.0, 0.1))
    monkeypatch.setattr(storm_fault, "_ALIVE", (0.05, 0.2))
    monkeypatch.setattr(storm_fault, "_DEAD", (0.05, 0.15))


@dataclass(frozen=True)
class World:
    """A nemesis over an ensemble in memory."""

    nemesis: Nemesis
    testbed: MemoryTestbed
    events: list[Event]

    def is_whole(self) -> bool:
        return all(self.testbed.living(server.host) == ["S"] for server in FIVE.servers)

    def bites(self, stage: str) -> list[bool | None]:
        return [e.bites for e in self.events if isinstance(e, ProbeEvent) and e.stage == stage]

    def processes(self) -> list[tuple[int, str]]:
        """Server and what its process did, from the first fault on."""
        first = next(i for i, e in enumerate(self.events) if isinstance(e, FaultEvent))
        return [(e.server, e.action) for e in self.events[first:] if isinstance(e, ProcessEvent)]


@contextmanager
def world() -> Iterator[World]:
    events: list[Event] = []
    with memory_ensemble(FIVE, events) as (ensemble, testbed):
        yield World(Nemesis(ensemble, events.append, seed=1), testbed, events)


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("crash-loop", "zk2"),
        ("crash-loop", "zk1,zk4"),
        ("restart-storm", "all"),
        ("restart-storm", "zk3"),
        ("rolling-restart", "all"),
        ("slow-start", "minority"),
    ],
)
def test_it_is_proved_and_leaves_nothing(kind: str, target: str) -> None:
    with world() as it:
        with it.nemesis.fault(kind, target):
            pass
        assert it.is_whole()
        assert it.bites("before") == [False]
        assert it.bites("during")[-1] is True
        assert it.bites("after") == [False]


@pytest.mark.parametrize("outer", ["crash-loop", "restart-storm", "rolling-restart", "slow-start"])
@pytest.mark.parametrize("inner", ["kill", "pause", "restart", "crash-loop", "restart-storm", "slow-start"])
def test_overlapping_faults_leave_every_server_running(outer: str, inner: str) -> None:
    with world() as it:
        with it.nemesis.fault(outer, "zk2,zk3"), it.nemesis.fault(inner, "zk2,zk5"):
            pass
        assert it.is_whole()
        assert it.bites("after") == [False, False]


def test_a_loop_does_not_start_what_another_fault_keeps_down() -> None:
    with world() as it:
        with it.nemesis.fault("crash-loop", "zk2"):
            with it.nemesis.kill(2):
                started = len(it.processes())
                time.sleep(0.2)  # several turns of the loop
                assert it.testbed.living("zk2") == []
                assert len(it.processes()) == started
            wait_for(lambda: len(it.processes()) > started + 2)  # it goes on
        assert it.is_whole()


def test_a_loop_within_a_kill_waits_for_its_end() -> None:
    with world() as it:
        with it.nemesis.kill(2), it.nemesis.fault("crash-loop", "zk2"):
            assert it.testbed.living("zk2") == []
        assert it.is_whole()


def test_a_paused_server_in_a_loop_comes_back_paused() -> None:
    with world() as it:
        with it.nemesis.pause(2):
            with it.nemesis.fault("crash-loop", "zk2"):
                pass
            assert it.testbed.living("zk2") == ["T"]
        assert it.is_whole()


def test_a_server_that_another_fault_starts_is_slow_as_well() -> None:
    with world() as it:
        with it.nemesis.fault("slow-start", "zk2"):
            with it.nemesis.kill(2):
                assert it.testbed.living("zk2") == []
            assert it.testbed.living("zk2") == ["T"]
        assert it.is_whole()


def test_followers_restart_first_and_the_leader_last() -> None:
    """In memory the server with the lowest id leads; so when the first one is down, another does for that time."""
    with world() as it:
        with it.nemesis.fault("rolling-restart", "all"):
            pass
        done = it.processes()
        assert done == list(itertools.chain.from_iterable([(s, "ended"), (s, "started")] for s in (2, 3, 4, 5, 1)))
        codes = {event.code for event in it.events if isinstance(event, ProcessEvent) and event.action == "ended"}
        assert codes == {-15}


def test_a_rolling_restart_does_not_keep_a_run_from_its_end() -> None:
    with world() as it:
        it.testbed.silent.add("zk2")  # it does not come to serve, and the next one waits for that

        def end_the_run() -> None:
            it.nemesis.stop()
            time.sleep(0.5)  # it would go on now, if it had not been cut short
            it.testbed.silent.clear()

        began = time.monotonic()
        stopper = threading.Timer(2.0, end_the_run)
        stopper.start()
        steps = [Step(0, 0.0, "rolling-restart", "all", None), Step(1, 60.0, "kill", "zk1", 1.0)]
        it.nemesis.carry_out(steps, start=time.monotonic_ns())
        stopper.join()
        assert time.monotonic() - began < 8
        assert it.is_whole()
        assert [server for server, action in it.processes() if action == "ended"] == [2]
        assert it.bites("after") == [False]


def test_what_ends_a_rhythm_early_is_told() -> None:
    with world() as it:
        with (
            pytest.raises(TestbedError, match="no more processes"),
            it.nemesis.fault("crash-loop", "zk2"),
        ):
            refuse_to_spawn(it.testbed)
            wait_for(lambda: it.testbed.living("zk2") == [])
        assert not it.is_whole()
        assert [e.fault for e in it.events if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED] == []


def refuse_to_spawn(testbed: MemoryTestbed) -> None:
    def spawn(*_words: object, **_more: object) -> None:
        raise TestbedError("no more processes")

    testbed.spawn = spawn  # type: ignore[method-assign,assignment]  # a testbed that has come to its bounds


def test_a_storm_is_the_same_each_time_and_another_for_each_server() -> None:
    def first(fault: int, target: str, server: int) -> list[float]:
        return list(itertools.islice(spells(fault, target, server), 50))

    assert first(0, "zk1,zk2", 1) == first(0, "zk1,zk2", 1)
    others = [first(1, "zk1,zk2", 1), first(0, "zk1", 1), first(0, "zk1,zk2", 2)]
    assert first(0, "zk1,zk2", 1) not in others
    assert all(0 <= spell <= 3 for spell in first(0, "all", 3))

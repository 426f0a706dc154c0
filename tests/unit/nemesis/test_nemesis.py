"""The nemesis: what is injected is proved and healed, in the order of the schedule, whatever goes wrong on the way."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import EnsembleError, FaultError, TestbedError
from harness.history.records import Event, FaultAction, FaultEvent, ProbeEvent
from harness.nemesis import nemesis as module
from harness.nemesis.nemesis import Nemesis, _moments
from harness.nemesis.plan import Step
from harness.nemesis.process_fault import ProcessFault
from harness.testbed.handles import Link
from harness.topology.loader import load_topology
from tests.unit.memory import MemoryTestbed, memory_ensemble

DUAL = load_topology("dual-net")


class World:
    """A nemesis over an ensemble in memory, and what it recorded."""

    def __init__(self, nemesis: Nemesis, testbed: MemoryTestbed, events: list[Event]) -> None:
        self.nemesis, self.testbed, self.events = nemesis, testbed, events

    @property
    def story(self) -> list[str]:
        """`inject 0`, `during 0 True`, ... as recorded."""
        told = []
        for event in self.events:
            if isinstance(event, FaultEvent):
                told.append(f"{event.action.value} {event.id}")
            elif isinstance(event, ProbeEvent):
                told.append(f"{event.stage} {event.id} {event.bites}")
        return told

    def faults(self, action: FaultAction) -> list[FaultEvent]:
        return [e for e in self.events if isinstance(e, FaultEvent) and e.action is action]

    def carry_out(self, *steps: Step) -> None:
        self.nemesis.carry_out(steps, start=time.monotonic_ns())

    def is_whole(self) -> bool:
        """Whether nothing is broken."""
        running = all(self.testbed.living(server.host) == ["S"] for server in DUAL.servers)
        return running and not self.testbed.down


@contextmanager
def world(seed: int = 1, patience: float = 1.0) -> Iterator[World]:
    events: list[Event] = []
    with memory_ensemble(DUAL, events) as (ensemble, testbed):
        yield World(Nemesis(ensemble, events.append, seed=seed, patience=patience), testbed, events)


#: The life of a fault that does what it should.
LIFE = [
    "before {} False",
    "inject {}",
    "injected {}",
    "during {} True",
    "heal {}",
    "healed {}",
    "after {} False",
]


def life(fault: int) -> list[str]:
    return [moment.format(fault) for moment in LIFE]


@pytest.mark.parametrize(
    ("kind", "target", "what"),
    [
        ("switch-down", "net1", {"net1", "zk1:net1", "zk2:net1", "zk3:net1", "c1:net1"}),
        ("link-down", "zk2:net2", {"zk2:net2"}),
        ("link-down", "c1:net1", {"c1:net1"}),
    ],
)
def test_a_network_fault_by_hand(kind: str, target: str, what: set[str]) -> None:
    with world() as it:
        with it.nemesis.fault(kind, target) as resolved:
            assert resolved == target
            assert it.testbed.down == what
        assert it.is_whole()
        assert it.story == life(0)


@pytest.mark.parametrize(("kind", "states"), [("kill", []), ("pause", ["T"])])
def test_a_process_fault_by_hand(kind: str, states: list[str]) -> None:
    with world() as it:
        with it.nemesis.fault(kind, "zk2"):
            assert it.testbed.living("zk2") == states
        assert it.is_whole()
        assert it.story == life(0)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("switch-down", "net1"), ("link-down", "zk2:net1")),
        (("link-down", "zk2:net1"), ("switch-down", "net1")),
        (("switch-down", "net1"), ("switch-down", "net1")),
        (("pause", "zk2"), ("kill", "zk2")),
        (("kill", "zk2"), ("pause", "zk2")),
        (("kill", "zk2"), ("restart", "zk2")),
    ],
)
def test_a_fault_within_another_of_the_same_target(outer: tuple[str, str], inner: tuple[str, str]) -> None:
    """What is dead already is as dead as the second fault wants it; healed is what nobody holds any more."""
    with world() as it:
        with it.nemesis.fault(*outer):
            with it.nemesis.fault(*inner):
                pass
            assert not it.is_whole()
        assert it.is_whole()
        assert it.story[:4] == life(0)[:4]
        assert it.story[4:-3] == life(1)
        assert it.story[-3:] == life(0)[-3:]


def test_a_fault_that_outlives_the_one_around_it() -> None:
    with world() as it:
        it.carry_out(Step(0, 0.0, "switch-down", "net1", 0.2), Step(1, 0.1, "link-down", "zk2:net1", 0.3))
        story = it.story
        assert story.index("healed 0") < story.index("heal 1")
        assert it.is_whole()


def test_a_restart_is_over_when_it_returns() -> None:
    with world() as it:
        before = it.testbed.living("zk3")
        assert it.nemesis.restart(3) == "zk3"
        assert it.testbed.living("zk3") == before
        assert it.is_whole()
        assert it.story == life(0)


def test_roles_are_resolved_and_what_was_asked_is_kept() -> None:
    with world() as it:
        with it.nemesis.kill("leader") as first, it.nemesis.kill("leader") as second:
            assert (first, second) == ("zk1", "zk2")
        with it.nemesis.pause("a follower") as follower:
            assert follower in ("zk2", "zk3")
        told = [(e.target, e.asked) for e in it.faults(FaultAction.INJECTED)]
        assert told == [("zk1", "leader"), ("zk2", "leader"), (follower, "a follower")]


def test_equal_seeds_aim_equally() -> None:
    def aims(seed: int) -> list[str]:
        with world(seed) as it:
            return [it.nemesis.restart("a follower") for _ in range(8)]

    assert aims(5) == aims(5)
    assert len({tuple(aims(seed)) for seed in range(8)}) > 1


def test_a_test_that_fails_within_a_fault_leaves_nothing_broken() -> None:
    with world() as it:
        with pytest.raises(ZeroDivisionError), it.nemesis.switch_down("net1"), it.nemesis.kill("leader"):
            1 / 0  # noqa: B018 - the point is that it fails
        assert it.is_whole()
        assert it.story[-6:] == ["heal 1", "healed 1", "after 1 False", "heal 0", "healed 0", "after 0 False"]


def test_faults_of_one_moment_are_all_injected_before_any_is_looked_at() -> None:
    with world() as it:
        it.carry_out(
            Step(0, 0.0, "switch-down", "net1", 0.05),
            Step(1, 0.0, "link-down", "zk1:net2", 0.05),
            Step(2, 0.0, "kill", "zk3", 0.05),
        )
        story = it.story
        assert max(story.index(f"injected {n}") for n in range(3)) < min(
            story.index(f"during {n} True") for n in range(3)
        )
        assert it.is_whole()


def test_what_ends_is_healed_before_what_begins_at_the_same_moment_is_injected() -> None:
    with world() as it:
        it.carry_out(Step(0, 0.0, "switch-down", "net1", 0.3), Step(1, 0.3, "switch-down", "net2", 0.05))
        story = it.story
        assert story.index("heal 0") < story.index("inject 1")
        assert it.is_whole()


def test_a_step_comes_at_its_time_and_lasts_as_long_as_it_should() -> None:
    with world() as it:
        start = time.monotonic_ns()
        it.nemesis.carry_out([Step(0, 0.2, "switch-down", "net1", 0.3)], start=start)
        (injected,), (heal,) = it.faults(FaultAction.INJECTED), it.faults(FaultAction.HEAL)
        assert 0.2e9 <= injected.at - start < 1.2e9
        assert 0.5e9 <= heal.at - start < 1.5e9


def test_a_step_that_does_not_last_heals_by_itself() -> None:
    with world() as it:
        it.carry_out(Step(0, 0.0, "restart", "zk1,zk2", None))
        assert it.story == life(0)


def test_stopping_early_heals_and_leaves_the_rest_out() -> None:
    with world() as it:
        runner = threading.Thread(
            target=it.carry_out,
            args=(Step(0, 0.0, "switch-down", "net1", 60.0), Step(1, 50.0, "kill", "leader", 5.0)),
        )
        runner.start()
        deadline = time.monotonic() + 10
        while "during 0 True" not in it.story:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        it.nemesis.stop()
        runner.join(timeout=10)
        assert not runner.is_alive()
        assert it.is_whole()
        assert it.story == life(0)


@pytest.mark.parametrize(("settles", "healthy"), [(0.0, False), (5.0, True)])
def test_a_target_is_given_time_to_look_healthy(monkeypatch: pytest.MonkeyPatch, settles: float, healthy: bool) -> None:
    monkeypatch.setattr(module, "_BEFORE_TIMEOUT", 0.05)
    monkeypatch.setattr(ProcessFault, "slow_to_settle", settles)
    with world() as it:
        it.testbed.silent.add("zk2")
        answers_again = threading.Timer(0.4, it.testbed.silent.clear)
        answers_again.start()
        with it.nemesis.fault("kill", "zk2"):
            answers_again.join()
        looks = [moment for moment in it.story if moment.startswith("before")]
        assert (looks[-1] == "before 0 False") is healthy
        assert it.is_whole()


def test_a_fault_that_does_not_bite_is_an_error_and_is_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BITE_TIMEOUT", 0.1)
    with world() as it:
        it.testbed.disobedient.update([Link("net1")] + [Link("net1", host.host) for host in DUAL.hosts])
        with pytest.raises(FaultError, match="did not bite") as caught, it.nemesis.switch_down("net1"):
            pytest.fail("a fault that does not bite must not be taken for one")
        assert caught.value.where == "switch-down net1"
        assert "failed 0" in it.story
        assert it.story[-1] == "after 0 False"


@pytest.mark.parametrize(("patience", "seen"), [(1.0, False), (100.0, True)])
def test_a_slow_machine_is_given_more_time(monkeypatch: pytest.MonkeyPatch, patience: float, seen: bool) -> None:
    monkeypatch.setattr(module, "_HEAL_TIMEOUT", 0.05)
    with world(patience=patience) as it:
        cut = it.nemesis.link_down("zk3", "net2")
        cut.__enter__()
        it.testbed.disobedient.add(Link("net2", "zk3"))
        if not seen:
            with pytest.raises(FaultError, match=r"did not heal within 0\.05 s"):
                cut.__exit__(None, None, None)
            return
        timers = [
            threading.Timer(0.3, it.testbed.disobedient.clear),
            threading.Timer(0.4, it.testbed.set_links, [[Link("net2", "zk3")]], {"up": True}),
        ]
        for timer in timers:
            timer.start()
        cut.__exit__(None, None, None)
        for timer in timers:
            timer.join()


def test_half_a_fault_is_not_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """One port that goes on working: the switch is neither dead nor alive."""
    monkeypatch.setattr(module, "_BITE_TIMEOUT", 0.1)
    with world() as it:
        it.testbed.disobedient.update([Link("net1"), Link("net1", "zk1"), Link("net1", "zk2")])
        with pytest.raises(FaultError, match="did not bite"), it.nemesis.switch_down("net1"):
            pytest.fail("half a fault must not be taken for a whole one")
        assert "during 0 None" in it.story


def test_a_server_that_survives_sigkill_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.zookeeper.ensemble._STOP_TIMEOUT", 0.05)
    with world() as it:
        it.testbed.immortal.add("zk1")
        with pytest.raises(EnsembleError, match="not even by SIGKILL"), it.nemesis.kill("zk1"):
            pytest.fail("a fault that was not injected must not be taken for one")
        assert "failed 0" in it.story
        it.nemesis.heal_all()
        assert it.is_whole()


def test_a_fault_that_does_not_heal_is_an_error_and_the_others_are_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEAL_TIMEOUT", 0.2)
    with world() as it:
        with pytest.raises(FaultError, match="did not heal") as caught:  # noqa: SIM117 - in this order
            with it.nemesis.switch_down("net1"), it.nemesis.kill("zk2"), it.nemesis.link_down("zk3", "net2"):
                it.testbed.disobedient.add(Link("net2", "zk3"))
        assert caught.value.where == "link-down zk3:net2"
        assert it.testbed.down == {"zk3:net2"}
        assert it.testbed.living("zk2") == ["S"]


def test_healing_all_goes_on_where_one_cannot_be_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEAL_TIMEOUT", 0.2)
    with world() as it:
        stopped: list[str] = []

        def no_more_processes(*_arguments: object, **_keywords: object) -> None:
            stopped.append("spawn")
            raise TestbedError("too many processes were started in one run", where="zk2")

        kill, cut = it.nemesis.kill("zk2"), it.nemesis.switch_down("net1")
        kill.__enter__()
        cut.__enter__()
        monkeypatch.setattr(it.testbed, "spawn", no_more_processes)
        with pytest.raises(TestbedError, match="too many processes"):
            it.nemesis.heal_all()
        assert stopped
        assert it.testbed.down == frozenset()
        monkeypatch.undo()
        it.nemesis.heal_all()
        assert it.is_whole()


def test_healing_all_twice_is_healing_once() -> None:
    with world() as it:
        it.nemesis.switch_down("net1").__enter__()
        it.nemesis.heal_all()
        it.nemesis.heal_all()
        assert it.is_whole()
        assert it.story == life(0)


@pytest.mark.parametrize(
    ("kind", "target", "said"),
    [
        ("switch-up", "net1", "no such kind"),
        ("switch-down", "net9", 'no switch "net9"'),
        ("link-down", "zk9:net1", 'no host "zk9"'),
        ("link-down", "zk1", "is not host:switch"),
        ("kill", "zk4", 'no server "zk4"'),
        ("kill", "zk1,zk1", "twice"),
    ],
)
def test_a_target_that_is_not_there_is_refused_before_anything_happens(kind: str, target: str, said: str) -> None:
    with world() as it:
        with pytest.raises(FaultError, match=said), it.nemesis.fault(kind, target):
            pytest.fail("there is nothing to break")
        assert it.story == []
        assert it.is_whole()


@pytest.mark.parametrize(("kind", "target"), [("switch-down", "net1"), ("link-down", "zk3:net1")])
def test_a_link_is_proved_while_another_server_is_down(kind: str, target: str) -> None:
    """Where servers are containers, a killed one has no NICs to measure with; that is not this fault's doing."""
    with world() as it:
        it.testbed.containers = True
        with it.nemesis.kill("zk3"), it.nemesis.fault(kind, target):
            pass
        assert [moment for moment in it.story if moment.split()[1] == "1"] == life(1)
        assert it.is_whole()


def test_two_threads_never_share_a_fault() -> None:
    with world() as it:

        def restart(server: int) -> None:
            for _ in range(5):
                it.nemesis.restart(server)

        threads = [threading.Thread(target=restart, args=(server.id,)) for server in DUAL.servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert sorted(e.id for e in it.faults(FaultAction.HEALED)) == list(range(15))
        assert it.is_whole()


AGENDA = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 1.5]), st.integers(0, 1), st.integers(0, 9)))


@given(AGENDA)
def test_moments_group_what_is_due_at_the_same_time(drawn: list[tuple[float, int, int]]) -> None:
    agenda = [(at, inject, Step(number, at, "kill", "zk1", 1.0)) for at, inject, number in sorted(drawn)]
    moments = list(_moments(agenda))
    assert [(at, inject, step) for at, group in moments for inject, step in group] == agenda
    assert all(earlier < later for (earlier, _), (later, _) in itertools.pairwise(moments))
    assert all(group for _at, group in moments)


@settings(max_examples=40)  # each takes a tenth of a second, most of it the nemesis's own polling
@given(st.integers(0, 2**32))
def test_a_schedule_of_any_faults_leaves_nothing_broken(seed: int) -> None:
    """Faults that overlap in all ways, injected and healed at drawn moments of a few milliseconds."""
    draw = Random(seed)
    aims = [("switch-down", "net1"), ("switch-down", "net2"), ("link-down", "zk1:net1"), ("kill", "zk2")]
    steps = [Step(n, draw.randrange(10) / 1000, *aims[n], draw.randrange(1, 10) / 1000) for n in range(len(aims))]
    with world(seed) as it:
        it.carry_out(*sorted(steps, key=lambda step: step.at_s))
        assert it.is_whole()
        for action in (FaultAction.INJECTED, FaultAction.HEALED):
            assert sorted(e.id for e in it.faults(action)) == [0, 1, 2, 3]

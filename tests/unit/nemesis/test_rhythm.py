"""Rhythms: what their words mean, what is refused, and that a link is what its holders say whoever flaps it."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import FaultError, TestbedError
from harness.history.records import Event, ProbeEvent
from harness.nemesis import rhythm
from harness.nemesis.flap_fault import FlapFault
from harness.nemesis.kinds import Aim
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.rhythm import Rhythm
from harness.nemesis.targets import check_target, conflict, resolve_target
from harness.nemesis.world import World
from harness.testbed.handles import Link
from harness.topology.loader import load_topology
from tests.unit.memory import memory_ensemble

DUAL = load_topology("dual-net")
FAST = "100ms"


@pytest.mark.parametrize(
    ("text", "dead", "alive"),
    [("500ms", 0.5, 0.5), ("200ms/1s", 0.2, 1.0), ("0.1s/3.9s", 0.1, 3.9), ("2s", 2.0, 2.0), ("100ms", 0.1, 0.1)],
)
def test_so_long_dead_and_so_long_alive(text: str, dead: float, alive: float) -> None:
    assert rhythm.parse(text) == Rhythm(dead, alive)


WRONG = {
    "": '"" is not a rhythm; allowed: "500ms", or "200ms/1s"',
    "often": '"often" is not a rhythm',
    "500": '"500" is not a rhythm',
    "500ms/": '"500ms/" is not a rhythm',
    "/500ms": '"/500ms" is not a rhythm',
    "1s/1s/1s": '"1s/1s/1s" is not a rhythm',
    "500ms / 1s": '"500ms / 1s" is not a rhythm',
    "99ms": '"99ms" is dead for 99ms and alive for 99ms; allowed: each at least 100ms, and both together at most 4s',
    "1s/50ms": '"1s/50ms" is dead for 1s and alive for 50ms; allowed',
    "3s": '"3s" is dead for 3s and alive for 3s; allowed',
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_seen_or_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        rhythm.parse(text)
    assert str(caught.value).startswith(WRONG[text]), str(caught.value)


@given(st.integers(100, 3900).flatmap(lambda dead: st.tuples(st.just(dead), st.integers(100, 4000 - dead))))
def test_what_is_written_is_read_as_the_same(milliseconds: tuple[int, int]) -> None:
    dead, alive = milliseconds
    written = Rhythm(dead / 1000, alive / 1000)
    assert rhythm.parse(written.text) == written


@given(st.text(max_size=30) | st.text(alphabet="0123456789ms/.h", max_size=20))
def test_any_words_are_a_rhythm_or_refused(text: str) -> None:
    try:
        found = rhythm.parse(text)
    except ValueError as problem:
        assert "\n" not in str(problem)
    else:
        assert rhythm.SHORTEST <= found.dead_s <= found.period_s <= rhythm.LONGEST


def test_a_target_is_a_link_and_a_rhythm() -> None:
    for aim, good, wrong in (
        (Aim.SWITCH_RHYTHM, "net1:500ms", "net3:500ms"),
        (Aim.LINK_RHYTHM, "zk2:net1:500ms", "zk9:net1:500ms"),
    ):
        check_target(aim, good, DUAL)
        with pytest.raises(ValueError, match="there is no"):
            check_target(aim, wrong, DUAL)
        with pytest.raises(ValueError, match="is not a rhythm"):
            check_target(aim, good.replace("500ms", "now and then"), DUAL)
        assert conflict(aim, good, good.replace("500ms", "200ms/1s"))
    found = resolve_target(Aim.LINK_RHYTHM, "leader:net1:500ms", DUAL, leader=2, rng=Random(0))
    assert found == "zk2:net1:500ms"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("kind", "target", "link"),
    [("switch-flap", f"net1:{FAST}", Link("net1")), ("link-flap", f"zk2:net2:{FAST}", Link("net2", "zk2"))],
)
def test_it_dies_again_and_again_and_is_whole_afterwards(kind: str, target: str, link: Link) -> None:
    events: list[Event] = []
    with memory_ensemble(DUAL, events) as (ensemble, testbed):
        nemesis = Nemesis(ensemble, events.append, seed=0)
        with nemesis.fault(kind, target):
            for up in (True, False, True):
                wait_for(lambda: (link.name not in testbed.down) == up)  # noqa: B023  # called before the next turn
        assert not testbed.down
        deaths = len([batch for batch in testbed.batches if batch == ((link.name,), False)])
        time.sleep(0.25)
        assert deaths == len([batch for batch in testbed.batches if batch == ((link.name,), False)])
    probes = [event for event in events if isinstance(event, ProbeEvent)]
    assert [probe.bites for probe in probes if probe.stage in ("before", "after")] == [False, False]
    bitten = next(probe for probe in probes if probe.bites)
    assert "lost the carrier" in bitten.summary
    assert bitten.measurements


@pytest.mark.parametrize("other", [("switch-down", "net1"), ("link-down", "zk2:net1"), ("nic-down", "zk2:net1")])
def test_what_another_fault_holds_stays_broken_while_it_flaps(other: tuple[str, str]) -> None:
    with memory_ensemble(DUAL) as (ensemble, testbed):
        nemesis = Nemesis(ensemble, lambda _event: None, seed=0)
        with nemesis.fault(*other):
            down, nics = testbed.down, set(testbed.nics_down)
            with nemesis.fault("switch-flap", f"net1:{FAST}"), nemesis.fault("link-flap", f"zk2:net1:{FAST}"):
                assert down <= testbed.down
            assert (testbed.down, testbed.nics_down) == (down, nics)
        assert not testbed.down
        assert not testbed.nics_down


def test_another_fault_within_a_flapping_switch_is_proved_and_healed() -> None:
    with memory_ensemble(DUAL) as (ensemble, testbed):
        nemesis = Nemesis(ensemble, lambda _event: None, seed=0)
        with nemesis.fault("switch-flap", f"net1:{FAST}"):
            for inner in (("switch-down", "net1"), ("link-down", "zk1:net1"), ("nic-down", "zk1:net1")):
                with nemesis.fault(*inner):
                    pass
            with nemesis.fault("switch-split", "net1:halves"):
                pass
        assert not testbed.down


def test_a_turn_that_fails_is_told_and_what_it_held_is_restored() -> None:
    with memory_ensemble(DUAL) as (ensemble, testbed):
        world = World.of(ensemble)
        fault = FlapFault(0, "switch-flap", f"net1:{FAST}", world)
        fault.inject()
        with pytest.MonkeyPatch.context() as kernel:
            kernel.setattr(testbed, "set_links", _broken)
            time.sleep(0.3)
        with pytest.raises(TestbedError, match="no more links"):
            fault.probe()
        with pytest.raises(TestbedError, match="no more links"):
            fault.heal()
        assert not testbed.down


def _broken(*_links: object, **_how: object) -> tuple[int, int]:
    raise TestbedError("there are no more links")


def test_a_link_that_does_not_obey_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.nemesis.nemesis._BITE_TIMEOUT", 0.1)
    with memory_ensemble(DUAL) as (ensemble, testbed):
        testbed.disobedient.add(Link("net1", "zk2"))
        nemesis = Nemesis(ensemble, lambda _event: None, seed=0)
        with pytest.raises(FaultError, match="did not bite"), nemesis.fault("link-flap", f"zk2:net1:{FAST}"):
            pass


def test_healing_twice_or_before_anything_was_broken_is_nothing() -> None:
    with memory_ensemble(DUAL) as (ensemble, testbed):
        fault = FlapFault(0, "link-flap", f"zk1:net1:{FAST}", World.of(ensemble))
        fault.heal()
        assert fault.probe().bites is False
        assert not testbed.batches or not testbed.down


def test_no_fault_dies_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.nemesis.flap_fault._MOST", 1)
    with memory_ensemble(DUAL) as (ensemble, testbed):
        fault = FlapFault(0, "switch-flap", f"net1:{FAST}", World.of(ensemble))
        fault.inject()
        time.sleep(0.4)
        with pytest.raises(FaultError, match="it has died 1 times"):
            fault.heal()
        assert not testbed.down

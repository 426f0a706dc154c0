"""Outages and recovery, from hand-made histories in which every number is known."""

import dataclasses
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.check.evidence import Evidence
from harness.check.outage import Wait, attempts_of, disturbances, stall_threshold, waits
from harness.check.recovery import check, measure
from harness.check.verdict import Finding
from harness.history.records import (
    Event,
    FaultAction,
    FaultEvent,
    Function,
    Operation,
    Outcome,
    Phase,
    SessionEvent,
    SessionState,
)
from harness.history.scenario import LoadSpec, Scenario
from harness.topology.loader import parse_topology

MS = 1_000_000
SECOND = 1000 * MS

DUAL = 'title = "t"\nservers = 3\n[[switch]]\nname = "net1"\n[[switch]]\nname = "net2"\n'
SINGLE = 'title = "t"\nservers = 3\n[[switch]]\nname = "net1"\n'


def write(process: str, call: float, answered: float | None, outcome: Outcome = Outcome.OK) -> Operation:
    """A write; times in seconds. Without an answer, its loss is noticed half a second after the call."""
    zxid = round(answered * 1000) if answered is not None else None
    returned = round((answered if answered is not None else call + 0.5) * SECOND)
    if answered is None:
        outcome = Outcome.INFO
    return Operation(
        process, round(call * 1000), Function.SET, "/r", round(call * SECOND), returned, outcome, "v", zxid=zxid
    )


def steady(process: str, start: float, end: float, every: float = 0.1, latency: float = 0.01) -> list[Operation]:
    count = round((end - start) / every)
    return [write(process, start + n * every, start + n * every + latency) for n in range(count)]


def fault(
    at: float, healed: float | None, kind: str = "switch-down", target: str = "net1", number: int = 0
) -> list[Event]:
    steps = [(at, FaultAction.INJECT), (at + 0.01, FaultAction.INJECTED)]
    if healed is not None:
        steps += [(healed, FaultAction.HEAL), (healed + 0.01, FaultAction.HEALED)]
    return [FaultEvent(round(when * SECOND), number, action, kind, target) for when, action in steps]


def evidence(
    operations: Iterable[Operation],
    events: Iterable[Event],
    *,
    load_end: float = 20,
    budget: float | None = 5,
    topology: str = DUAL,
    multi_address: bool | None = None,
    sessions: Iterable[SessionEvent] = (),
) -> Evidence:
    scenario = Scenario(
        name="t",
        topology="t",
        topology_source=topology,
        plan="t",
        plan_source="",
        seed=0,
        duration_s=load_end,
        load=LoadSpec(),
        repeat="",
        started="",
        multi_address=multi_address,
        recovery_within_s=budget,
    )
    all_events = [Phase(0, "load"), *events, Phase(round(load_end * SECOND), "quiesce")]
    parsed = parse_topology(topology, "t")
    if multi_address is not None:
        options = dataclasses.replace(parsed.zookeeper, multi_address=multi_address)
        parsed = dataclasses.replace(parsed, zookeeper=options)
    return Evidence(
        folder=Path("nowhere"),
        scenario=scenario,
        topology=parsed,
        operations=tuple(sorted(operations, key=lambda op: op.call)),
        sessions=tuple(sessions),
        events=tuple(sorted(all_events, key=lambda event: event.at)),
        logs={},
        servers=(1, 2, 3),
    )


def one_outage(client: str = "a", at: float = 5, back: float = 8) -> list[Operation]:
    """Served, then one write stuck from the fault on, lost; the next one answered at `back`."""
    return [*steady(client, 0, at), write(client, at + 0.02, None), *steady(client, back - 0.01, 20)]


def test_an_outage_and_the_recovery_from_it_are_measured() -> None:
    (found,) = measure(evidence([*one_outage("a"), *one_outage("b", back=8.5)], fault(5, 15)))
    assert found.write_outage_s == pytest.approx(3.0, abs=0.03)
    assert found.recovery_s == pytest.approx(3.5, abs=0.03)
    assert {d.process for d in found.during} == {"a", "b"}
    assert found.after == ()


def test_within_the_budget_is_valid() -> None:
    verdict = check(evidence(one_outage(), fault(5, 15), budget=5))
    assert verdict.finding is Finding.VALID
    assert verdict.witnesses == ()
    assert verdict.claims == ("NR-01",)
    assert {f.name: f.value for f in verdict.figures}["recovery_s"] == pytest.approx(3, abs=0.03)


def test_beyond_the_budget_is_violated_with_the_last_and_the_first_answer() -> None:
    verdict = check(evidence(one_outage(), fault(5, 15), budget=2))
    assert verdict.finding is Finding.VIOLATED
    texts = [witness.text for witness in verdict.witnesses]
    assert texts[0] == "switch-down net1 was injected at 5.000 s, healed at 15.000 s"
    assert "acknowledged at 4.910 s" in texts[1] and "acknowledged at 8.000 s" in texts[2]


def test_no_budget_is_measured_and_not_judged() -> None:
    verdict = check(evidence(one_outage(), fault(5, 15), budget=None))
    assert verdict.finding is Finding.VALID
    assert "no budget" in verdict.notes[-1]


def test_a_fault_that_nobody_noticed_has_no_recovery() -> None:
    (found,) = measure(evidence(steady("a", 0, 20), fault(5, 15)))
    assert found.recovery_s == 0 and found.during == ()
    assert found.write_outage_s < 0.02


@pytest.mark.parametrize("every", [0.05, 0.2, 1.0])
def test_a_sparse_load_is_no_outage(every: float) -> None:
    """Silence is not waiting: a client that asks once a second is not out for a second."""
    verdict = check(evidence(steady("a", 0, 20, every), fault(5, 15), budget=0.3))
    assert verdict.finding is Finding.VALID
    (found,) = measure(evidence(steady("a", 0, 20, every), fault(5, 15)))
    assert found.write_outage_s < 0.02 and found.during == ()


def test_a_short_stall_long_after_the_fault_counts_from_its_own_begin() -> None:
    """A hiccup nine seconds into a fault is no recovery of nine seconds."""
    hiccup = [*steady("a", 0, 14), write("a", 14, 14.6), *steady("a", 14.7, 20)]
    (found,) = measure(evidence(hiccup, fault(5, 19)))
    assert found.recovery_s == pytest.approx(0.6, abs=0.02)


def test_one_answer_between_two_stalls_is_no_recovery() -> None:
    operations = [*steady("a", 0, 5), write("a", 5, 7), write("a", 7.2, 9.5), *steady("a", 9.6, 20)]
    (found,) = measure(evidence(operations, fault(5, 15)))
    assert found.recovery_s == pytest.approx(4.5, abs=0.02)


def test_what_begins_after_the_heal_counts_from_the_heal() -> None:
    operations = [*steady("a", 0, 15), write("a", 15.1, 17), *steady("a", 17.1, 20)]
    (found,) = measure(evidence(operations, fault(5, 15)))
    assert found.recovery_s == 0
    assert found.heal_s == pytest.approx(2.0, abs=0.03)


def test_a_request_on_its_way_when_the_fault_came_belongs_to_it() -> None:
    operations = [*steady("a", 0, 4.9), write("a", 4.95, 8), *steady("a", 8.1, 20)]
    (found,) = measure(evidence(operations, fault(5, 15)))
    assert found.recovery_s == pytest.approx(3.0, abs=0.01)
    assert found.outage is not None and found.outage.start == 5 * SECOND, "an outage does not begin before its fault"


def test_a_wait_that_ended_when_the_fault_came_is_none_of_its_outage() -> None:
    operations = [*steady("a", 0, 4.2), write("a", 4.3, 4.95), *steady("a", 5.5, 20, every=0.5)]
    (found,) = measure(evidence(operations, fault(5, 15)))
    assert 0 <= found.write_outage_s < 0.02


def test_each_fault_has_its_own_outage() -> None:
    operations = [
        *steady("a", 0, 5),
        write("a", 5, 7),
        *steady("a", 7.1, 12),
        write("a", 12, 13),
        *steady("a", 13.1, 20),
    ]
    first, second = measure(evidence(operations, [*fault(5, 10), *fault(12, 18, target="net2", number=1)]))
    assert (round(first.recovery_s, 1), round(second.recovery_s, 1)) == (2.0, 1.0)
    assert (round(first.write_outage_s, 1), round(second.write_outage_s, 1)) == (2.0, 1.0)


def test_an_outage_that_outlasts_the_next_fault_belongs_to_the_first() -> None:
    operations = [*steady("a", 0, 5), write("a", 5, 13), *steady("a", 13.1, 20)]
    first, second = measure(evidence(operations, [*fault(5, 18), *fault(10, 18, target="net2", number=1)]))
    assert first.recovery_s == pytest.approx(8.0, abs=0.01)
    assert second.recovery_s == 0


def test_a_client_that_is_never_served_again_is_over_budget() -> None:
    operations = [*steady("a", 0, 20), *steady("b", 0, 5), write("b", 5.01, None)]
    gone = [SessionEvent("b", round(5.5 * SECOND), SessionState.SUSPENDED, 1)]
    verdict = check(evidence(operations, fault(5, 15), sessions=gone))
    assert verdict.finding is Finding.VIOLATED
    assert "b was still not answered" in verdict.summary
    assert "gave up" in verdict.witnesses[-1].text


def test_a_load_that_ended_too_early_tells_nothing() -> None:
    operations = [*steady("a", 0, 5), *(write("a", 5 + n / 10, None) for n in range(20))]
    verdict = check(evidence(operations, fault(5, 15), load_end=7.4))
    assert verdict.finding is Finding.UNKNOWN
    assert "too early to tell" in verdict.summary


def test_the_last_write_of_the_load_may_be_lost() -> None:
    """Nobody asked again, so nobody waited."""
    operations = [*steady("a", 0, 19.9), write("a", 19.95, None)]
    verdict = check(evidence(operations, fault(5, 15)))
    assert verdict.finding is Finding.VALID, verdict.summary


def test_too_little_load_is_unknown() -> None:
    verdict = check(evidence([*steady("a", 0, 5), write("a", 18, 18.1)], fault(5, 15)))
    assert verdict.finding is Finding.UNKNOWN
    assert verdict.summary.startswith("Too little load to tell")


def test_a_fault_that_the_next_one_follows_at_once_is_told_by_the_time_that_it_is_on() -> None:
    both = [*fault(5, 15), *fault(5.005, 15, target="net2", number=1)]
    verdict = check(evidence(one_outage(), both))
    assert verdict.finding is Finding.VALID, verdict.summary


def test_no_client_before_the_fault_is_unknown() -> None:
    verdict = check(evidence(steady("a", 6, 20), fault(5, 15)))
    assert verdict.finding is Finding.UNKNOWN
    assert "No client had been answered" in verdict.summary


def test_a_refused_write_is_an_answer() -> None:
    operations = [*steady("a", 0, 5), *(write("a", 5 + n / 10, 5.01 + n / 10, Outcome.FAIL) for n in range(150))]
    (found,) = measure(evidence(operations, fault(5, 15)))
    # Acknowledged writes or not: the quorum was there all the time.
    assert found.write_outage_s < 0.02


def test_a_disconnected_client_waits_even_if_it_has_nothing_on_its_way() -> None:
    operations = [*steady("a", 0, 5), *steady("a", 9, 20)]
    events = [
        SessionEvent("a", round(5.1 * SECOND), SessionState.SUSPENDED, 1),
        SessionEvent("a", round(8.9 * SECOND), SessionState.CONNECTED, 1),
    ]
    (found,) = measure(evidence(operations, fault(5, 15), sessions=events))
    assert found.recovery_s == pytest.approx(4.0, abs=0.03)


@pytest.mark.parametrize(
    ("topology", "multi_address", "why"),
    [(SINGLE, None, "all servers hang on one network"), (DUAL, False, "multi-address is off")],
)
def test_the_control_experiment_is_told_as_such(topology: str, multi_address: bool | None, why: str) -> None:
    operations = [*steady("a", 0, 5), *(write("a", 5 + n / 2, None) for n in range(20)), *steady("a", 17, 20)]
    verdict = check(evidence(operations, fault(5, 15), topology=topology, multi_address=multi_address))
    assert verdict.finding is Finding.VIOLATED
    assert verdict.summary.startswith("As the topology predicts")
    assert "until after the fault was healed" in verdict.summary
    assert verdict.claims == ("NR-11",)
    (note,) = verdict.notes
    assert "NR-11" in note and why in note


def test_a_second_network_means_no_predicted_outage() -> None:
    verdict = check(evidence(one_outage(back=14), fault(5, 15)))
    assert verdict.finding is Finding.VIOLATED
    assert verdict.notes == () and verdict.claims == ("NR-01",)


def test_a_majority_that_is_killed_is_a_predicted_outage_and_no_control_experiment() -> None:
    verdict = check(evidence(one_outage(back=16), fault(5, 15, "kill", "zk1,zk3")))
    assert "The topology predicts an outage under kill zk1,zk3" in verdict.notes[0]
    assert verdict.claims == ("SZ-01",)


def test_an_unknown_kind_of_fault_is_measured_without_a_prediction() -> None:
    verdict = check(evidence(one_outage(), fault(5, 15, "gamma-rays", "everywhere")))
    assert verdict.finding is Finding.VALID
    assert verdict.claims == () and verdict.notes == ()


@pytest.mark.parametrize(
    ("kind", "target", "claims"),
    [
        ("switch-flap", "net1:500ms", ("NR-05",)),
        ("nic-down", "zk1:net1", ("NR-03",)),
        ("partition", "zk1 > zk2 port quorum", ("NR-08",)),
        ("partition", "zk1 > zk2,zk3", ("NR-07",)),
        ("partition", "zk1 | zk2,zk3", ()),
        ("packets", "delay 200ms on net1", ("NR-06",)),
        ("packets", "loss 50% on zk1:net1 out", ("NR-07",)),
        ("packets", "loss 10% on net1", ("NR-06",)),
        ("packets", "rate 1mbit on net1", ()),
        ("disk", "zk1:full", ()),
    ],
)
def test_what_a_fault_puts_to_the_test(kind: str, target: str, claims: tuple[str, ...]) -> None:
    assert check(evidence(one_outage(), fault(5, 15, kind, target))).claims == claims


def test_a_damaged_history_is_unknown() -> None:
    sound = evidence(one_outage(), fault(5, 15))
    nothing = dataclasses.replace(sound, operations=())
    assert check(nothing).finding is Finding.UNKNOWN


TIMES = st.integers(0, 30_000)


@given(st.lists(st.tuples(TIMES, st.integers(0, 5000), st.sampled_from(Outcome)), max_size=30))
def test_waits_are_what_their_definition_says(drawn: list[tuple[int, int, Outcome]]) -> None:
    """Against the definition, moment by moment: no answer within a wait, and somebody wanted something throughout."""
    operations = [
        Operation(
            "a", n, Function.SET, "/r", call, call + length, outcome, zxid=1 if outcome is not Outcome.INFO else None
        )
        for n, (call, length, outcome) in enumerate(sorted(drawn))
    ]
    attempts = attempts_of(operations, [], 40_000)
    answers = sorted(op.returned or 0 for op in operations if op.outcome is not Outcome.INFO)
    found = waits(attempts)
    for wait in found:
        assert not any(wait.start < answer < wait.until for answer in answers)
        assert wait.length >= 0
        if wait.end is not None:
            assert wait.end in answers
            assert any(call <= wait.start <= until for until, call, _answer in attempts)
    assert [w.start for w in found] == sorted(w.start for w in found)
    assert sum(1 for wait in found if wait.end is not None) == len(answers)


@given(st.lists(st.tuples(TIMES, st.integers(0, 5000)), max_size=30))
def test_disturbances_are_stalls_with_calm_between_them(drawn: list[tuple[int, int]]) -> None:
    found, now = [], 0
    for gap, length in drawn:
        found.append(Wait((now + gap) * MS, (now + gap + length) * MS, None, None))
        now += gap + length
    merged = disturbances(found, 250 * MS)
    assert all(one.end is not None and other.start - one.end >= SECOND for one, other in pairwise(merged))
    stalls = [wait for wait in found if wait.length >= 250 * MS]
    assert sum(1 for _ in merged) <= len(stalls)
    for stall in stalls:
        assert any(m.start <= stall.start and stall.until <= m.until for m in merged)


def test_the_threshold_adapts_within_bounds() -> None:
    def normal(milliseconds: int) -> list[Wait]:
        return [Wait(0, milliseconds * MS, None, None)] * 100

    assert stall_threshold([]) == SECOND
    assert stall_threshold(normal(5)) == 250 * MS
    assert stall_threshold(normal(100)) == 500 * MS
    assert stall_threshold(normal(900)) == SECOND


def test_the_order_of_events_in_the_file_does_not_matter() -> None:
    sound = evidence(one_outage(), fault(5, 15))
    reordered = dataclasses.replace(sound, events=tuple(msgspec.structs.replace(e) for e in reversed(sound.events)))
    again = dataclasses.replace(reordered, events=tuple(sorted(reordered.events, key=lambda e: e.at)))
    assert check(sound) == check(again)

"""What is expected of the service, held against hand-made histories in which every number is known."""

import dataclasses
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.check.evidence import Evidence, load_evidence
from harness.check.expectation import check, stops, without
from harness.check.judge import judge
from harness.check.recovery import check as check_recovery
from harness.check.recovery import measure
from harness.check.synthetic import SyntheticFault, SyntheticRun, write_run
from harness.check.verdict import Finding, Overall, Verdict
from harness.history.folder import RunFolder
from harness.history.records import Event, Operation, Outcome, SessionEvent, SessionState
from harness.history.scenario import Scenario, Service
from tests.unit.check.test_recovery import DUAL, SECOND, SINGLE, evidence, fault, one_outage, steady, write

STOPS, SURVIVES = Service.STOPS, Service.SURVIVES


def expecting(
    expected: dict[int, Service],
    operations: Iterable[Operation],
    events: Iterable[Event],
    *,
    budget: float | None = 5,
    topology: str = DUAL,
    sessions: Iterable[SessionEvent] = (),
) -> Evidence:
    made = evidence(operations, events, budget=budget, topology=topology, sessions=sessions)
    return dataclasses.replace(made, scenario=msgspec.structs.replace(made.scenario, expected=expected))


def judged(found: Evidence) -> Verdict:
    verdict = check(found)
    assert verdict is not None
    assert (verdict.finding is Finding.VIOLATED) == bool(verdict.witnesses)
    return verdict


def dead(start: float, end: float, client: str = "a", *, back: float | None = None) -> list[Operation]:
    """Nothing is answered from `start` until `back`, though a write is tried in vain four times a second."""
    back = end + 0.5 if back is None else back
    tries = [write(client, start + 0.02 + n / 4, None) for n in range(round((end - start) * 4))]
    return [*steady(client, 0, start), *tries, *steady(client, back, 20)]


def test_nothing_is_judged_where_nothing_is_expected() -> None:
    silent = evidence(one_outage(), fault(5, 15))
    assert check(silent) is None
    assert "expectation" not in {verdict.guarantee for verdict in judge(silent).verdicts}


def test_a_scenario_of_before_expects_nothing() -> None:
    now = msgspec.json.decode(msgspec.json.encode(evidence([], []).scenario))
    del now["expected"], now["prepared"]
    old = msgspec.json.decode(msgspec.json.encode(now), type=Scenario)
    assert old.expected == {}
    kept = msgspec.structs.replace(old, expected={0: STOPS, 12: SURVIVES})
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Scenario).expected == kept.expected


def test_a_stop_as_expected_is_valid() -> None:
    found = expecting({0: STOPS}, dead(5, 15), fault(5, 15))
    verdict = judged(found)
    assert verdict.finding is Finding.VALID, verdict.summary
    assert verdict.summary == "The service stopped under switch-down net1, as expected."
    assert verdict.notes[0].startswith("The topology predicts something else of switch-down net1: ")
    recovery = check_recovery(found)
    assert recovery.finding is Finding.VALID, recovery.summary
    assert "served again 0.51 s after the healing (budget 5 s)" in recovery.summary


def test_the_control_experiment_is_valid_where_it_is_expected() -> None:
    found = expecting({0: STOPS}, dead(5, 15), fault(5, 15), topology=SINGLE)
    verdict = judged(found)
    assert (verdict.finding, verdict.claims, verdict.notes) == (Finding.VALID, ("NR-11",), ())
    assert check_recovery(found).finding is Finding.VALID


def test_what_was_on_its_way_may_be_answered() -> None:
    late = [write("b", 4.9, 6.9), *dead(5, 15)]
    assert judged(expecting({0: STOPS}, late, fault(5, 15))).finding is Finding.VALID


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.FAIL])
def test_one_answer_in_the_middle_of_a_stop_is_a_violation(outcome: Outcome) -> None:
    verdict = judged(expecting({0: STOPS}, [*dead(5, 15), write("b", 9, 9.5, outcome)], fault(5, 15)))
    assert verdict.finding is Finding.VIOLATED
    assert "1 write was answered while it was on, the last 4.49 s after its injection" in verdict.summary
    assert verdict.witnesses[0].text == ("switch-down net1 was in place at 5.010 s, and its healing began at 15.000 s")
    assert verdict.witnesses[1].operation == "b#9000"
    assert verdict.claims == ()


def test_a_service_that_goes_on_does_not_stop() -> None:
    verdict = judged(expecting({0: STOPS}, one_outage(), fault(5, 15)))
    assert verdict.finding is Finding.VIOLATED
    assert len(verdict.witnesses) == 3


def test_nobody_who_wants_something_is_no_stop() -> None:
    quiet = [*steady("a", 0, 5), write("a", 5.02, None), *steady("a", 15.5, 20)]
    lost = dataclasses.replace(expecting({0: STOPS}, quiet, fault(5, 15)), sessions=())
    assert judged(lost).finding is Finding.VALID, "a write that is never answered is wanted until the next one is"
    quiet = [*steady("a", 0, 5), *steady("a", 15.5, 20)]
    verdict = judged(expecting({0: STOPS}, quiet, fault(5, 15)))
    assert verdict.finding is Finding.UNKNOWN
    assert "too little load to tell" in verdict.summary
    gone = [
        SessionEvent("a", 6 * SECOND, SessionState.SUSPENDED, 1),
        SessionEvent("a", round(15.4 * SECOND), SessionState.CONNECTED, 1),
    ]
    assert judged(expecting({0: STOPS}, quiet, fault(5, 15), sessions=gone)).finding is Finding.VALID


def test_a_stop_that_is_too_short_to_see_is_unknown() -> None:
    verdict = judged(expecting({0: STOPS}, dead(5, 6.5), fault(5, 6.5)))
    assert verdict.finding is Finding.UNKNOWN
    assert "lasted 1.49 s" in verdict.summary


def test_clients_that_stay_away_too_long_after_a_stop_violate_recovery_alone() -> None:
    found = expecting({0: STOPS}, dead(5, 10, back=17), fault(5, 10))
    assert judged(found).finding is Finding.VALID
    recovery = check_recovery(found)
    assert recovery.finding is Finding.VIOLATED
    assert "7.01 s after the healing of switch-down net1; the budget is 5 s" in recovery.summary


def test_a_survival_as_expected_is_valid() -> None:
    verdict = judged(expecting({0: SURVIVES}, one_outage(), fault(5, 15)))
    assert verdict.finding is Finding.VALID
    assert verdict.summary == "1 fault was survived, as expected."
    answered = {figure.name: figure.value for figure in verdict.figures}
    assert answered["answered under faults"] == answered["fault 0 (switch-down net1) answered"] == 70


def test_an_outage_beyond_the_budget_is_no_survival() -> None:
    verdict = judged(expecting({0: SURVIVES}, dead(5, 15, back=12), fault(5, 15)))
    assert verdict.finding is Finding.VIOLATED
    assert "no write was answered for" in verdict.summary
    assert [w.operation is not None for w in verdict.witnesses] == [False, True, True]


def test_one_client_that_is_served_is_the_service() -> None:
    found = expecting({0: SURVIVES}, [*dead(5, 15), *steady("b", 0, 20)], fault(5, 15))
    assert judged(found).finding is Finding.VALID
    assert check_recovery(found).finding is Finding.VIOLATED


def test_a_fault_that_healed_before_anybody_was_answered_is_unknown() -> None:
    verdict = judged(expecting({0: SURVIVES}, dead(5, 8), fault(5, 8)))
    assert verdict.finding is Finding.UNKNOWN
    assert "too short to tell" in verdict.summary


def test_survival_is_not_told_without_a_budget() -> None:
    assert judged(expecting({0: SURVIVES}, one_outage(), fault(5, 15), budget=None)).finding is Finding.UNKNOWN


def test_a_survival_is_not_judged_while_another_fault_stops_the_service() -> None:
    """One of three servers dies, which is survived; then a second, which is not, until it is back."""
    operations = [*steady("a", 0, 6), *dead(6, 12)[60:]]
    events = [*fault(3, 19, "kill", "zk1"), *fault(6, 12, "kill", "zk2", number=1)]
    found = expecting({0: SURVIVES, 1: STOPS}, operations, events, budget=4)
    verdict = judged(found)
    assert verdict.finding is Finding.VALID, verdict.summary
    assert verdict.summary == "The service stopped under kill zk2, and 1 fault was survived, as expected."
    assert check_recovery(found).finding is Finding.VALID
    both = expecting({0: SURVIVES}, operations, events, budget=4)
    assert judged(both).finding is Finding.VIOLATED


def test_a_wait_that_lasts_into_a_stop_counts_from_its_heal() -> None:
    operations = [*steady("a", 0, 5), write("a", 5.5, 13), *steady("a", 13.1, 20)]
    events = [*fault(5, 18), *fault(7, 12, "kill", "zk1,zk2", number=1)]
    first, second = measure(expecting({1: STOPS}, operations, events))
    assert (first.recovery_s, first.heal_s) == (0, 0)
    assert second.recovery_s == 0
    assert second.heal_s == pytest.approx(1.0)


def test_a_fault_that_never_came_is_unknown() -> None:
    verdict = judged(expecting({0: STOPS, 1: STOPS}, dead(5, 15), fault(5, 15)))
    assert verdict.finding is Finding.UNKNOWN
    assert verdict.summary == "1 fault of which something is expected never came."


def test_a_fault_that_never_healed_lasts_to_the_end_of_the_load() -> None:
    found = expecting({0: STOPS}, dead(5, 20, back=20), fault(5, None))
    assert stops(found)[0].healed == 20 * SECOND
    assert judged(found).finding is Finding.VALID
    assert check_recovery(found).finding is Finding.UNKNOWN


def test_no_history_is_unknown() -> None:
    sound = expecting({0: STOPS}, dead(5, 15), fault(5, 15))
    assert judged(dataclasses.replace(sound, operations=())).finding is Finding.UNKNOWN


# --- a whole run folder ----------------------------------------------------------------------------------------------


def expecting_folder(root: Path, outage: float, service: Service, budget: float = 2.0) -> RunFolder:
    run = SyntheticRun(
        duration=10, recovery_within=budget, faults=(SyntheticFault(at=2, healed=7, outage=outage, overwritten=0),)
    )
    folder = write_run(root, run)
    folder.write_json(folder.scenario_file, msgspec.structs.replace(folder.scenario(), expected={0: service}))
    return folder


@pytest.mark.parametrize(
    ("outage", "service", "finding"),
    [
        (1.0, SURVIVES, Finding.VALID),
        (3.5, SURVIVES, Finding.VIOLATED),
        (1.0, STOPS, Finding.VIOLATED),
        (6.0, STOPS, Finding.VALID),
    ],
)
def test_a_run_folder_is_judged_by_what_its_scenario_expects(
    outage: float, service: Service, finding: Finding, tmp_path: Path
) -> None:
    judgement = judge(load_evidence(expecting_folder(tmp_path / "run", outage, service)))
    verdict = next(v for v in judgement.verdicts if v.guarantee == "expectation")
    assert verdict.finding is finding, verdict.summary
    if finding is Finding.VALID:
        assert judgement.overall is Overall.VALID, [v.summary for v in judgement.verdicts]
        assert judgement.overall.exit_code == 0
    else:
        assert judgement.overall.exit_code == 1


SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6)


@given(SPANS, SPANS)
def test_what_is_left_of_spans_is_what_is_in_them_alone(
    drawn: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> None:
    ends = sorted({edge for span in drawn for edge in span})
    spans = list(pairwise(ends))[::2]
    taken = [(min(span), max(span)) for span in taken]
    left = without(spans, taken)
    for moment in range(51):
        inside = any(start <= moment < end for start, end in spans)
        outside = not any(start <= moment < end for start, end in taken)
        assert any(start <= moment < end for start, end in left) == (inside and outside)

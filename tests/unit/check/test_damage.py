"""No false alarm on a sound run, and no kind of damage goes unnoticed."""

from random import Random

import pytest

from harness.check.evidence import Evidence, load_evidence
from harness.check.guarantee import MAX_WITNESSES
from harness.check.judge import judge
from harness.check.verdict import Finding, Judgement, Overall, Verdict
from harness.history.folder import RunFolder
from tests.unit.check.damage import DAMAGES, Damage, without_probe


def verdict_on(guarantee: str, judgement: Judgement) -> Verdict:
    return next(verdict for verdict in judgement.verdicts if verdict.guarantee == guarantee)


def test_a_sound_run_is_valid(sound: Evidence) -> None:
    judgement = judge(sound)
    assert [(v.guarantee, v.finding, v.summary) for v in judgement.verdicts if v.finding is not Finding.VALID] == []
    assert judgement.overall is Overall.VALID
    assert judgement.broken == ()
    assert all(verdict.witnesses == () for verdict in judgement.verdicts)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found(sound: Evidence, damage: Damage, seed: int) -> None:
    damaged = damage.apply(sound, Random(seed))
    if damaged is None:
        pytest.skip("this run has nothing of the kind")
    judgement = judge(damaged)
    verdict = verdict_on(damage.guarantee, judgement)
    assert verdict.finding is Finding.VIOLATED, verdict.summary
    assert judgement.overall is Overall.VIOLATED
    assert 1 <= len(verdict.witnesses) <= MAX_WITNESSES
    assert all(witness.text for witness in verdict.witnesses)
    assert verdict.summary.endswith(".")


def test_every_kind_of_damage_is_possible_in_a_made_up_run(switch_failure: RunFolder) -> None:
    """Else its test above would be skipped everywhere, and prove nothing."""
    evidence = load_evidence(switch_failure)
    assert [damage.name for damage in DAMAGES if damage.apply(evidence, Random(1)) is None] == []


@pytest.mark.parametrize("stage", ["before", "during", "after"])
def test_a_fault_without_proof_breaks_the_run(sound: Evidence, stage: str) -> None:
    if not sound.faults:
        pytest.skip("no fault in this run")
    judgement = judge(without_probe(sound, stage))
    assert verdict_on("faults-proved", judgement).finding is Finding.UNKNOWN
    assert judgement.overall is Overall.BROKEN
    assert any("no probe was taken" in sentence for sentence in judgement.broken)

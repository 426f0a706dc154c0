"""Made-up runs of every shape are valid, and damage of any kind at any place is found."""

import functools
import tempfile
from pathlib import Path
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.check.evidence import Evidence, load_evidence
from harness.check.judge import judge
from harness.check.synthetic import SyntheticFault, SyntheticRun, write_run
from harness.check.verdict import Finding, Overall
from harness.history.records import FaultEvent
from tests.unit.check.damage import DAMAGES, Damage


@st.composite
def faults(draw: st.DrawFn, servers: int) -> tuple[SyntheticFault, ...]:
    """None, one, or two faults, one after the other; at most a minority is down in each."""
    found: list[SyntheticFault] = []
    at = draw(st.floats(0.3, 1.0))
    for _ in range(draw(st.integers(0, 2))):
        outage = draw(st.floats(0.05, 1.0))
        healed = at + outage + draw(st.floats(0.1, 1.0))
        down = draw(st.sets(st.integers(2, servers), max_size=(servers - 1) // 2)) if servers > 1 else set()
        kind, target = draw(st.sampled_from([("switch-down", "net1"), ("link-down", "zk1:net1"), ("pause", "zk1")]))
        found.append(
            SyntheticFault(
                kind=kind,
                target=target,
                at=at,
                healed=healed,
                outage=outage,
                overwritten=draw(st.integers(0, 5)) if servers > 1 else 0,
                down=tuple(sorted(down)),
            )
        )
        at = healed + draw(st.floats(0.3, 0.8))
    return tuple(found)


@st.composite
def runs(draw: st.DrawFn) -> SyntheticRun:
    """Small runs of any shape."""
    servers = draw(st.sampled_from([1, 3, 5]))
    chosen = draw(faults(servers))
    return SyntheticRun(
        seed=draw(st.integers(0, 10**6)),
        servers=servers,
        clients=draw(st.integers(1, 6)),
        rate=draw(st.sampled_from([40.0, 150.0, 400.0])),
        duration=max((fault.healed for fault in chosen), default=0.5) + 1.5,
        paths=draw(st.integers(1, 6)),
        window=draw(st.integers(1, 6)),
        lost=draw(st.sampled_from([0.0, 0.01, 0.2])),
        faults=chosen,
        recovery_within=30.0,
    )


@functools.lru_cache(maxsize=64)
def made(seed: int) -> Evidence:
    """The evidence of a made-up run with a bit of everything."""
    run = SyntheticRun(
        seed=seed,
        duration=4,
        clients=5,
        paths=5,
        lost=0.03,
        faults=(SyntheticFault(at=1, healed=2.5, outage=0.8, overwritten=3, down=(3,)),),
    )
    return evidence_of(run)


def evidence_of(run: SyntheticRun) -> Evidence:
    with tempfile.TemporaryDirectory() as name:
        return load_evidence(write_run(Path(name) / "run", run))


@settings(max_examples=80)
@given(runs())
def test_no_false_alarm(run: SyntheticRun) -> None:
    evidence = evidence_of(run)
    judgement = judge(evidence)
    for verdict in judgement.verdicts:
        assert verdict.finding is not Finding.VIOLATED, (verdict.guarantee, verdict.summary, verdict.witnesses)
    assert judgement.broken == ()
    if run.servers > 1 and run.clients > 1 and run.rate > 100:
        unclear = {v.guarantee: v.summary for v in judgement.verdicts if v.finding is Finding.UNKNOWN}
        # Few acknowledged writes on few znodes may leave a fault without enough attempts around it.
        assert set(unclear) <= {"recovery"}, unclear


@settings(max_examples=40)
@given(runs())
def test_lost_replies_are_resolved_as_they_were(run: SyntheticRun) -> None:
    """Every lost write of a made-up run happened or did not, and the logs tell which."""
    evidence = evidence_of(run)
    lost = evidence.lost_replies
    assert lost.still_open == ()
    for op, txn in lost.happened:
        state = evidence.replay.at(op.path, txn.zxid)
        assert (state is None) if op.written is None else (state is not None and state.value == op.written)
    values = {state.value for chain in evidence.replay.chains.values() for state in chain.states if state is not None}
    assert not any(op.written in values for op in lost.not_happened if op.written is not None)


@settings(max_examples=120)
@given(st.integers(0, 40), st.sampled_from(DAMAGES), st.integers(0, 10**9))
def test_damage_anywhere_is_found(seed: int, damage: Damage, chance: int) -> None:
    damaged = damage.apply(made(seed), Random(chance))
    assume(damaged is not None)
    assert damaged is not None
    judgement = judge(damaged)
    verdict = next(v for v in judgement.verdicts if v.guarantee == damage.guarantee)
    assert verdict.finding is Finding.VIOLATED, (damage.name, verdict.summary)
    assert judgement.overall is Overall.VIOLATED


@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_equal_seeds_make_equal_runs(seed: int) -> None:
    run = SyntheticRun(seed=seed, duration=0.5, faults=())
    assert evidence_of(run).operations == evidence_of(run).operations


def test_a_made_up_run_has_everything_that_judges_must_cope_with() -> None:
    """Else the properties above would say little."""
    evidence = made(0)
    lost = evidence.lost_replies
    assert lost.happened and lost.not_happened
    assert evidence.committed.discarded
    assert any(op.error == name for op in evidence.writes for name in ("NoNode", "NodeExists", "BadVersion"))
    assert any(len(log.txns) < len(evidence.committed.txns) for log in evidence.logs.values()), "a gap by a snapshot"
    assert len({op.server for op in evidence.operations}) == 3, "reconnects"
    assert any(isinstance(event, FaultEvent) for event in evidence.events)
    figures = {f.name: f.value for v in judge(evidence).verdicts for f in v.figures}
    assert figures["reads that lagged behind another session"] > 0

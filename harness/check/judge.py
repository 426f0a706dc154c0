"""Runs every judge on one run, and adds up what they say."""

from __future__ import annotations

from collections.abc import Callable

import harness
from harness.check import (
    agreement,
    durability,
    expectation,
    faults_proved,
    linearizable_writes,
    recovery,
    session_order,
)
from harness.check.collector import no_collection
from harness.check.evidence import Evidence
from harness.check.verdict import Judgement, Verdict, combine

#: In the order in which a report shows them. One that has nothing to judge says nothing.
JUDGES: tuple[Callable[[Evidence], Verdict | None], ...] = (
    linearizable_writes.check,
    session_order.check,
    durability.check,
    agreement.check,
    recovery.check,
    expectation.check,
    faults_proved.check,
)


def judge(evidence: Evidence) -> Judgement:
    """Judge a run. Damaged or missing evidence makes a verdict `unknown`; it is never an error."""
    with no_collection():
        verdicts = tuple(verdict for check in JUDGES if (verdict := check(evidence)) is not None)
    broken = faults_proved.broken(evidence)
    return Judgement(
        overall=combine(verdicts, broken),
        verdicts=verdicts,
        broken=broken,
        harness_version=harness.__version__,
    )

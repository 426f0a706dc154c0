"""Mixtures of faults that overlap, drawn by seeds: each fault is proved, and what the servers promise holds.

Ten mixtures, in which every kind of fault comes at least once; three more in a kernel with netem, in which
`test_a_kernel_with_netem` performs this file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.check.verdict import Finding, Judgement, Overall
from harness.errors import EnvironmentLacking
from harness.history.folder import RunFolder
from harness.judge_and_tell import judge_and_tell
from harness.nemesis.kinds import KINDS
from harness.run import perform
from harness.scenario import make_request
from tests.chaos.conftest import LACKED
from tests.chaos.test_scenarios import proved, told
from tests.integration.conftest import require

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(240)]

#: Plan and seed.
Mixture = tuple[str, int]
TEN: list[Mixture] = [
    *(("mixed-all", seed) for seed in (2, 3, 5, 8, 9, 10, 12)),
    ("mixed-data", 1),
    ("mixed-streams", 1),
    ("mixed-streams", 2),
]
LATE: list[Mixture] = [("mixed-netem", seed) for seed in (1, 2, 3)]


def test_every_kind_of_fault_comes_in_the_ten() -> None:
    drawn = {step.fault for plan, seed in TEN for step in make_request(plan, seed=seed).schedule}
    assert drawn == set(KINDS)


@pytest.mark.parametrize(("plan", "seed"), TEN + LATE)
def test_a_mixture(plan: str, seed: int, namespaces_allowed: None, java: None, tmp_path: Path) -> None:
    request = make_request(plan, seed=seed)
    try:
        folder = perform(request, tmp_path / "run")
    except EnvironmentLacking as lacking:
        require(LACKED.get(type(lacking), "zookeeper"), str(lacking))
        raise
    judgement, page = judge_and_tell(folder)
    assert page.is_file()
    held(folder, judgement, len(request.schedule))


def held(folder: RunFolder, judgement: Judgement, faults: int) -> None:
    """All faults are proved, and every verdict is valid."""
    assert judgement.overall is Overall.VALID, told(judgement)
    assert {verdict.finding for verdict in judgement.verdicts} == {Finding.VALID}
    assert proved(folder) == faults

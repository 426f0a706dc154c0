"""Runs to judge: made up ones, and recorded ones if there are any."""

from pathlib import Path

import pytest

from harness.check.evidence import Evidence, load_evidence
from harness.check.synthetic import SyntheticFault, SyntheticRun, write_run
from harness.history.folder import RunFolder

#: Recorded runs of the real thing, each judged `valid`; the same damage must be found in them.
RECORDED = sorted((Path(__file__).parents[2] / "data" / "runs").glob("*/scenario.json"))

RUNS = {
    "one switch dies": SyntheticRun(duration=8),
    "nothing happens": SyntheticRun(duration=3, faults=(), seed=2),
    "a follower is down": SyntheticRun(
        duration=6, seed=3, faults=(SyntheticFault(kind="kill", target="zk2", outage=0.8, overwritten=0, down=(2,)),)
    ),
    "five servers and two faults": SyntheticRun(
        duration=10,
        seed=4,
        servers=5,
        lost=0.02,
        faults=(
            SyntheticFault(at=1, healed=4, outage=1),
            SyntheticFault(kind="pause", target="zk3", at=5, healed=7, outage=0.6, overwritten=3, down=(3,)),
        ),
    ),
}


@pytest.fixture(scope="session", params=[*RUNS, *(path.parent.name for path in RECORDED)])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """The evidence of a run in which every promise was kept."""
    if request.param in RUNS:
        return load_evidence(write_run(tmp_path_factory.mktemp("run") / "run", RUNS[request.param]))
    return load_evidence(RunFolder.open(next(p.parent for p in RECORDED if p.parent.name == request.param)))


@pytest.fixture(scope="session")
def switch_failure(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A made up run folder in which one switch dies. Not to be changed; copy it first."""
    return write_run(tmp_path_factory.mktemp("run") / "run", RUNS["one switch dies"])

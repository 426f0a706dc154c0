"""Whole scenarios on real servers: what should survive does, and the controls, which should not, do not.

One suite for all testbeds: every plan of the library is performed on Docker, as root and through the helper container.
On namespaces `switch-failure` on dual-net and `follower-restart` are not here: the tests of the command line, of the
wheel and of leaks run them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from harness.check.verdict import Finding, Judgement, Overall
from harness.errors import EngineUnavailable
from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent, ProbeEvent
from harness.judge_and_tell import judge_and_tell
from harness.nemesis.plan_loader import library_plans
from harness.run import perform
from harness.scenario import Request, make_request
from harness.stage.make import ON_ENGINE
from tests.chaos.conftest import everywhere
from tests.integration.conftest import require

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]  # the engine's subnets may be another's first

#: A scenario that should be survived; the promise of ZooKeeper that this shows; the number of faults.
Survived = tuple[Callable[..., Request], str, int]

#: The library's plans, each where it is meant for; but for `mixed`, which has a test of its own.
LIBRARY: dict[str, Survived] = {
    "nothing breaks": (partial(make_request, "no-faults"), "NR-09", 0),
    "a switch": (partial(make_request, "switch-failure", seed=10), "NR-01", 1),
    "a follower restarts": (partial(make_request, "follower-restart", seed=13), "SZ-01", 1),
    "a cable of the leader": (partial(make_request, "link-failure", seed=1), "NR-03", 1),
    "the leader's process": (partial(make_request, "leader-kill", seed=2), "SZ-01", 1),
    "a leader that hangs": (partial(make_request, "leader-pause", seed=3), "SZ-01", 1),
    "two of five servers": (partial(make_request, "minority-kill", seed=4), "SZ-01", 1),
    "one switch, then the other": (partial(make_request, "both-switches-in-turn", seed=5), "NR-01", 2),
}
MORE: dict[str, Survived] = {
    "a switch under five servers": (
        partial(make_request, "switch-failure", topology_name="dual-net-five", seed=6),
        "NR-01",
        1,
    ),
    "the switch that all servers have": (
        partial(make_request, "switch-failure", topology_name="uneven-addresses", seed=7),
        "NR-01",
        1,
    ),
    "a switch under 3.8": (partial(make_request, "switch-failure", version="3.8", seed=8), "NR-01", 1),
}
SURVIVED = LIBRARY | MORE
#: On namespaces these are performed by other tests.
ELSEWHERE = ("nothing breaks", "a switch", "a follower restarts")

#: The same switch dies where there is no second way round it (NR-11).
CONTROLS: dict[str, Callable[..., Request]] = {
    "one network": partial(make_request, "switch-failure", topology_name="single-net", seed=11),
    "one address per server": partial(make_request, "switch-failure", multi_address=False, seed=12),
}

SAFETY = ("linearizable-writes", "session-order", "durability", "agreement", "faults-proved")

#: The library's own plan, aimed at the network that one of the servers does not have.
OTHER_SWITCH = """
title = "The switch that only two of three servers have dies for five seconds"
topology = "uneven-addresses"
duration = "8s"

[expect]
recovery_within = "8s"

[[step]]
at = "0s"
fault = "switch-down"
switch = "net2"
for = "5s"
"""


def carried_out(request: Request, root: Path) -> tuple[RunFolder, Judgement]:
    try:
        folder = perform(request, root)
    except EngineUnavailable as lacking:  # of a version that is not the usual one, the engine may have no image
        require("docker", str(lacking))
        raise
    judgement, page = judge_and_tell(folder)
    assert page.is_file()
    return folder, judgement


def told(judgement: Judgement) -> str:
    """All of it, for the message of a failure."""
    lines = [f"{v.guarantee}: {v.finding.value}: {v.summary}" for v in judgement.verdicts]
    return "\n".join([judgement.overall.value, *judgement.broken, *lines])


def proved(folder: RunFolder) -> int:
    """How many faults were seen to bite and seen to be gone."""
    events = folder.events()
    bit = {e.id for e in events if isinstance(e, ProbeEvent) and e.stage == "during" and e.bites}
    gone = {e.id for e in events if isinstance(e, ProbeEvent) and e.stage == "after" and e.bites is False}
    healed = {e.id for e in events if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED}
    return len(bit & gone & healed)


def claims(judgement: Judgement) -> set[str]:
    return {claim for verdict in judgement.verdicts for claim in verdict.claims}


def test_no_plan_of_the_library_is_left_out() -> None:
    assert {make().plan.name for make, *_ in LIBRARY.values()} | {"mixed"} == set(library_plans())


@pytest.mark.parametrize(
    ("name", "place"),
    everywhere(
        [(name, "namespaces") for name in SURVIVED if name not in ELSEWHERE]
        + [(name, testbed) for testbed in ON_ENGINE for name in LIBRARY],
        list(SURVIVED),
    ),
    indirect=["place"],
)
def test_the_service_survives(name: str, place: str, tmp_path: Path) -> None:
    make, claim, faults = SURVIVED[name]
    folder, judgement = carried_out(make(testbed=place), tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    assert {v.finding for v in judgement.verdicts} == {Finding.VALID}
    assert proved(folder) == faults
    assert claim in claims(judgement)
    assert folder.environment().testbed == place


@pytest.mark.parametrize("place", ["namespaces"], indirect=True)
def test_a_server_with_one_address_among_servers_with_two(place: str, tmp_path: Path) -> None:
    """NR-02, on the network that it does not have: the two others must still find it over the first.

    The switch dies at once: every client has been served by then, or nothing could be said of its recovery.
    """
    plan = tmp_path / "other-switch.toml"
    plan.write_text(OTHER_SWITCH)
    folder, judgement = carried_out(make_request(str(plan), seed=9, testbed=place), tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    assert proved(folder) == 1


@pytest.mark.parametrize(
    ("name", "place"),
    everywhere([*((name, "namespaces") for name in CONTROLS), ("one network", "docker-helper")], list(CONTROLS)),
    indirect=["place"],
)
def test_without_a_second_way_the_service_stops_and_nothing_else_breaks(name: str, place: str, tmp_path: Path) -> None:
    request = CONTROLS[name](testbed=place)
    folder, judgement = carried_out(request, tmp_path / "run")
    findings = {verdict.guarantee: verdict for verdict in judgement.verdicts}
    assert judgement.overall is Overall.VIOLATED, told(judgement)
    assert judgement.overall.exit_code == 1
    assert judgement.broken == ()
    assert [v.guarantee for v in judgement.violated()] == ["recovery"]
    for guarantee in SAFETY:
        assert findings[guarantee].finding is Finding.VALID, told(judgement)
    assert proved(folder) == 1
    recovery = findings["recovery"]
    assert recovery.witnesses
    assert "NR-11" in recovery.claims
    assert any("NR-11" in note for note in recovery.notes)
    # the outage lasts as long as the switch is dead, and not much longer
    dead = request.schedule[0].for_s or 0.0
    outage = next(figure.value for figure in recovery.figures if figure.name == "write_outage_s")
    assert dead - 1 < outage < dead + 6


@pytest.mark.parametrize("place", ["namespaces", *ON_ENGINE], indirect=True)
def test_faults_that_the_seed_draws(place: str, tmp_path: Path) -> None:
    """The first slot of `mixed`; which fault it is, is the same for this seed at all times."""
    request = make_request("mixed", seed=4, duration_s=18.0, testbed=place)
    folder, judgement = carried_out(request, tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    (step,) = request.schedule
    (healed,) = (e for e in folder.events() if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED)
    assert (healed.fault, healed.asked) == (step.fault, step.target)

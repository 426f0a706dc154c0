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
from harness.errors import EngineUnavailable, EnvironmentLacking
from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent, ProbeEvent
from harness.judge_and_tell import judge_and_tell
from harness.nemesis.plan_loader import library_plans
from harness.run import perform
from harness.scenario import Request, make_request
from harness.stage.make import ON_ENGINE
from tests.chaos.conftest import LACKED, everywhere
from tests.integration.conftest import require

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]  # the engine's subnets may be another's first

#: A scenario that should be survived; the promise of ZooKeeper that this shows, if any.
Survived = tuple[Callable[..., Request], str]

#: The library's plans, each where it is meant for; but for `mixed`, which has a test of its own.
LIBRARY: dict[str, Survived] = {
    "nothing breaks": (partial(make_request, "no-faults"), "NR-09"),
    "a switch": (partial(make_request, "switch-failure", seed=10), "NR-01"),
    "a follower restarts": (partial(make_request, "follower-restart", seed=13), "SZ-01"),
    "a cable of the leader": (partial(make_request, "link-failure", seed=1), "NR-03"),
    "the leader's process": (partial(make_request, "leader-kill", seed=2), "SZ-01"),
    "a leader that hangs": (partial(make_request, "leader-pause", seed=3), "SZ-01"),
    "two of five servers": (partial(make_request, "minority-kill", seed=4), "SZ-01"),
    "one switch, then the other": (partial(make_request, "both-switches-in-turn", seed=5), "NR-01"),
}
#: Partitions; on namespaces, as what they are made of is tried on every testbed elsewhere.
PARTITIONS: dict[str, Survived] = {
    "a leader cut off": (partial(make_request, "partition-leader", seed=20), "SZ-01"),
    "a leader cut off on one network": (partial(make_request, "partition-one-network", seed=21), "NR-09"),
    "a leader that is refused": (partial(make_request, "partition-refused", seed=22), "SZ-01"),
    "two halves and a bridge": (partial(make_request, "partition-bridge", seed=23), "SZ-01"),
    "a ring of majorities": (partial(make_request, "partition-ring", seed=24), "SZ-01"),
}
#: Faults of every kind; what each is made of is tried elsewhere, so here, unless all is asked for, some are enough.
FAULTS: dict[str, Survived] = {
    plan: (partial(make_request, plan, seed=30), claim)
    for plan, claim in (
        ("second-switch-failure", "NR-01"),
        ("nic-down", "NR-03"),
        ("link-flapping", "NR-03"),
        ("different-switches", "NR-03"),
        ("switch-split", "NR-04"),
        ("switch-flapping", "NR-05"),
        ("both-switches-flap", "NR-05"),
        ("crash-loop", "SZ-01"),
        ("restart-storm", "SZ-01"),
        ("rolling-restart", "SE-09"),
        ("slow-start", "SZ-01"),
        ("cpu-starved", ""),
        ("memory-limited", ""),
        ("clock-ahead", ""),
        ("clock-drift", ""),
        ("clock-leader-behind", ""),
        ("clock-strobe", ""),
        ("disk-failing", ""),
        ("disk-full", ""),
        ("disk-read-only", ""),
        ("disk-slow", ""),
        ("disk-stuck", ""),
        ("data-wiped", ""),
        ("log-corrupt", ""),
        ("log-torn", ""),
        ("snapshot-corrupt", ""),
        ("proxies-down", ""),
        ("servers-pieces", ""),
        ("servers-silent-stream", ""),
        ("servers-slow-stream", ""),
        ("stream-bandwidth", ""),
        ("stream-cut", ""),
        ("stream-latency", ""),
        ("stream-pieces", ""),
        ("stream-reset", ""),
        ("stream-unreliable", ""),
    )
}
CHOSEN = (
    "different-switches",
    "both-switches-flap",
    "rolling-restart",
    "cpu-starved",
    "clock-leader-behind",
    "disk-full",
    "data-wiped",
    "stream-cut",
)
#: Plans that promise no recovery, that take a kernel with netem, or that the service does not survive.
OF_THEIR_OWN = {
    "control-majority-kill",
    "control-switch-failure",
    "mixed",
    "mixed-all",
    "mixed-data",
    "mixed-netem",
    "mixed-streams",
    "partition-deaf",
    "quorum-port-blocked",
    "bad-cable",
    "lossy-switch",
    "narrow-switch",
    "one-way-loss",
    "slow-link",
    "slow-switch",
    "slow-to-one",
}
MORE: dict[str, Survived] = {
    "a switch under five servers": (
        partial(make_request, "switch-failure", topology_name="dual-net-five", seed=6),
        "NR-01",
    ),
    "the switch that all servers have": (
        partial(make_request, "switch-failure", topology_name="uneven-addresses", seed=7),
        "NR-01",
    ),
    "a switch under 3.8": (partial(make_request, "switch-failure", version="3.8", seed=8), "NR-01"),
}
SURVIVED = LIBRARY | PARTITIONS | MORE | FAULTS
#: With `make test`, one of each sort is enough; `make faults` performs them all.
LONG = {*PARTITIONS, *CHOSEN} - {"a leader cut off", "disk-full", "stream-cut"}
#: On an engine, of which there is one, all scenarios come one after the other.
LONG_ON_DOCKER = {"one switch, then the other", "two of five servers", "a leader that hangs", "a cable of the leader"}
#: On namespaces these are performed by other tests.
ELSEWHERE = ("nothing breaks", "a switch", "a follower restarts")

#: The same switch dies where there is no second way round it (NR-11).
CONTROLS: dict[str, Callable[..., Request]] = {
    "one network": partial(make_request, "switch-failure", topology_name="single-net", seed=11),
    "one address per server": partial(make_request, "switch-failure", multi_address=False, seed=12),
}

SAFETY = ("linearizable-writes", "session-order", "durability", "agreement", "faults-proved")

#: The same where the plan expects the service to stop: then that is what is right.
STOPPED: dict[str, Callable[..., Request]] = {
    "one network": partial(make_request, "control-switch-failure", seed=14),
    "one address per server": partial(
        make_request, "control-switch-failure", topology_name="dual-net", multi_address=False, seed=15
    ),
    "two of three servers": partial(make_request, "control-majority-kill", seed=16),
}


def sorted_out(chosen: list[tuple[str, str]]) -> list[object]:
    """Those that take long in all are for `make faults`: what is made of the same, and all through the helper."""
    return [
        pytest.param(name, testbed, marks=[pytest.mark.long] if takes_long(name, testbed) else [])
        for name, testbed in chosen
    ]


def takes_long(name: str, testbed: str) -> bool:
    """Whether it is performed by `make faults`."""
    return name in LONG or testbed == "docker-helper" or (testbed == "docker" and name in LONG_ON_DOCKER)


def carried_out(request: Request, root: Path) -> tuple[RunFolder, Judgement]:
    try:
        folder = perform(request, root)
    except EngineUnavailable as lacking:  # of a version that is not the usual one, the engine may have no image
        require("docker", str(lacking))
        raise
    except EnvironmentLacking as lacking:
        require(LACKED.get(type(lacking), "zookeeper"), str(lacking))
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
    performed = {make().plan.name for make, *_ in (LIBRARY | PARTITIONS | FAULTS).values()}
    assert performed | OF_THEIR_OWN == set(library_plans())


@pytest.mark.parametrize(
    ("name", "place"),
    sorted_out(
        everywhere(
            [(name, "namespaces") for name in (*LIBRARY, *PARTITIONS, *MORE, *CHOSEN) if name not in ELSEWHERE]
            + [(name, testbed) for testbed in ON_ENGINE for name in LIBRARY],
            list(SURVIVED),
        )
    ),
    indirect=["place"],
)
def test_the_service_survives(name: str, place: str, tmp_path: Path) -> None:
    make, claim = SURVIVED[name]
    request = make(testbed=place)
    folder, judgement = carried_out(request, tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    assert {v.finding for v in judgement.verdicts} == {Finding.VALID}
    assert proved(folder) == len(request.schedule)
    assert not claim or claim in claims(judgement)
    assert folder.environment().testbed == place


@pytest.mark.parametrize("place", ["namespaces"], indirect=True)
def test_a_server_with_one_address_among_servers_with_two(place: str, tmp_path: Path) -> None:
    """NR-02, on the network that it does not have: the two others must still find it over the first."""
    request = make_request("second-switch-failure", topology_name="uneven-addresses", seed=9, testbed=place)
    folder, judgement = carried_out(request, tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    assert proved(folder) == 1


@pytest.mark.parametrize(
    ("name", "place"),
    sorted_out(
        everywhere([*((name, "namespaces") for name in CONTROLS), ("one network", "docker-helper")], list(CONTROLS))
    ),
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


@pytest.mark.parametrize(
    ("name", "place"), everywhere([(name, "namespaces") for name in STOPPED], list(STOPPED)), indirect=["place"]
)
def test_a_stop_that_is_expected_is_valid(name: str, place: str, tmp_path: Path) -> None:
    folder, judgement = carried_out(STOPPED[name](testbed=place), tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    assert judgement.overall.exit_code == 0
    assert proved(folder) == 1
    assert ("NR-11" in claims(judgement)) == (name != "two of three servers")
    expectation = next(v for v in judgement.verdicts if v.guarantee == "expectation")
    assert "The service stopped" in expectation.summary
    assert "the service stops" in folder.report_file.read_text()


@pytest.mark.parametrize("place", ["namespaces"], indirect=True)
def test_a_stop_that_does_not_come_is_a_violation(place: str, tmp_path: Path) -> None:
    request = make_request("control-switch-failure", topology_name="dual-net", seed=17, testbed=place)
    _folder, judgement = carried_out(request, tmp_path / "run")
    assert [v.guarantee for v in judgement.violated()] == ["expectation"]
    assert judgement.overall.exit_code == 1
    (expectation,) = judgement.violated()
    assert expectation.witnesses[1].operation


@pytest.mark.parametrize(
    "place", ["namespaces", "docker", pytest.param("docker-helper", marks=pytest.mark.long)], indirect=True
)
def test_faults_that_the_seed_draws(place: str, tmp_path: Path) -> None:
    """The first slot of `mixed`; which fault it is, is the same for this seed at all times."""
    request = make_request("mixed", seed=4, duration_s=18.0, testbed=place)
    folder, judgement = carried_out(request, tmp_path / "run")
    assert judgement.overall is Overall.VALID, told(judgement)
    (step,) = request.schedule
    (healed,) = (e for e in folder.events() if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED)
    assert (healed.fault, healed.asked) == (step.fault, step.target)

"""Plans that are right, the library, and how a seed turns a plan into a schedule."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import PlanError
from harness.history.scenario import LoadSpec
from harness.nemesis.kinds import KINDS
from harness.nemesis.offers import Guest
from harness.nemesis.plan import Plan, RandomFaults, Step, check_plan, expand
from harness.nemesis.plan_loader import library_plans, load_plan, parse_plan
from harness.topology.loader import library_topologies, load_topology

ROOT = Path(__file__).parents[3]
TRACK_RECORD = sorted((ROOT / "docs/track-record").glob("*.toml"))
FULL = """
title = "Everything that a plan can say"
topology = "uneven-addresses"
duration = "1m"
[expect]
recovery_within = "2.5s"
[load]
clients = 3
rate = 50
paths = 2
session_timeout = "2s"
window = 1
[[step]]
at = "20s"
fault = "link-down"
host = "a follower"
switch = "random"
for = "500ms"
[[step]]
at = "1s"
fault = "restart"
server = "3,zk1"
[[random]]
faults = ["kill", "switch-down"]
count = 2
for = ["2s", "3s"]
rest = "1s"
from = "30s"
until = "50s"
server = 2
"""


def test_everything_that_a_plan_can_say() -> None:
    plan = parse_plan(FULL, "mine/full.toml")
    assert plan == Plan(
        name="full",
        title="Everything that a plan can say",
        steps=(Step(0, 20.0, "link-down", "a follower:random", 0.5), Step(1, 1.0, "restart", "zk3,zk1", None)),
        random=(
            RandomFaults(
                *(0, (("kill", "zk2"), ("switch-down", "random")), 2, None, 2.0, 3.0),
                rest_s=1.0,
                from_s=30.0,
                until_s=50.0,
            ),
        ),
        duration_s=60.0,
        recovery_within_s=2.5,
        topology="uneven-addresses",
        load=LoadSpec(clients=3, rate=50.0, paths=2, session_timeout_ms=2000, window=1),
        source=FULL,
    )


def test_a_schedule_is_in_the_order_of_time() -> None:
    schedule = expand(parse_plan(FULL, "full.toml"), seed=1)
    assert [s.id for s in schedule] == [0, 1, 2, 3]
    assert [s.fault for s in schedule[:2]] == ["restart", "link-down"]
    assert [s.at_s for s in schedule] == sorted(s.at_s for s in schedule)


def test_the_schedule_of_a_seed_never_changes() -> None:
    """A recorded seed must mean the same tomorrow: this is what seed 1 meant when it was first written down."""
    assert [(s.at_s, s.fault, s.target, s.for_s) for s in expand(load_plan("mixed"), seed=1)] == GOLDEN


GOLDEN = [
    (6.076, "restart", "random", None),
    (18.394, "kill", "random", 3.532),
    (34.409, "link-down", "random:random", 3.545),
    (50.262, "link-down", "random:random", 4.27),
]


@given(seed=st.integers(), duration=st.integers(18, 3600))
def test_drawn_faults_keep_within_their_slots(seed: int, duration: int) -> None:
    plan = load_plan("mixed")
    schedule = expand(plan, seed=seed, duration_s=duration)
    assert schedule == expand(plan, seed=seed, duration_s=duration)
    assert len(schedule) == (duration - 3) // 15
    for slot, step in enumerate(schedule):
        assert 3 + 15 * slot <= step.at_s
        assert step.end_s <= 3 + 15 * (slot + 1) - 8
        assert (step.for_s is None) == (not KINDS[step.fault].lasts)
        assert step.for_s is None or 2 <= step.for_s <= 5


def test_seeds_differ() -> None:
    assert len({expand(load_plan("mixed"), seed=seed) for seed in range(50)}) == 50


def test_every_named_fault_is_drawn_sooner_or_later() -> None:
    plan = load_plan("mixed")
    named = {fault for fault, _target in plan.random[0].choices}
    assert {s.fault for seed in range(20) for s in expand(plan, seed=seed)} == named


def test_a_longer_run_keeps_what_a_shorter_one_drew() -> None:
    plan = load_plan("mixed")
    assert expand(plan, seed=7, duration_s=300)[:4] == expand(plan, seed=7)


def test_a_group_does_not_change_what_another_draws() -> None:
    plan = load_plan("mixed")
    other = RandomFaults(1, (("restart", "zk1"),), 1, None, 0.0, 0.0)
    both = expand(Plan("p", "P", (), (*plan.random, other), 65.0), seed=3)
    alone = expand(plan, seed=3)
    assert {(s.at_s, s.fault) for s in alone} < {(s.at_s, s.fault) for s in both}


def test_a_shorter_run_that_cuts_a_step_off_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^switch-failure:step\[0\]\.for: the fault ends at 12s, and the run is over"):
        expand(load_plan("switch-failure"), seed=0, duration_s=10.0)


@pytest.mark.parametrize("duration", [0.0, -1.0, 90_000.0, math.inf, math.nan])
def test_an_impossible_duration_is_refused(duration: float) -> None:
    with pytest.raises(PlanError, match=r"^switch-failure:duration: the run would last "):
        expand(load_plan("switch-failure"), seed=0, duration_s=duration)


def test_a_plan_without_a_duration_leaves_time_to_recover() -> None:
    text = 'title = "T"\n[[step]]\nat = "5s"\nfault = "kill"\nserver = 1\nfor = "10s"\n'
    assert parse_plan(text, "t").duration_s == 25.0
    assert parse_plan(text + 'expect.recovery_within = "4s"\n'.replace("expect.", "[expect]\n"), "t").duration_s == 19.0


def test_one_fault_may_follow_another_on_the_same_target_at_once() -> None:
    parse_plan(
        'title = "T"\n'
        '[[step]]\nat = "1s"\nfault = "kill"\nserver = 1\nfor = "1s"\n'
        '[[step]]\nat = "2s"\nfault = "kill"\nserver = 1\nfor = "1s"\n'
        '[[step]]\nat = "1s"\nfault = "pause"\nserver = 2\nfor = "2s"\n',
        "t",
    )


@pytest.mark.parametrize("name", library_plans())
def test_library_plan_is_right_for_its_own_topology(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    assert parse_plan(plan.source, plan.name) == plan
    assert plan.topology in library_topologies()
    check_plan(plan, load_topology(plan.topology))
    assert bool(expand(plan, seed=0)) == (name != "no-faults")
    # nothing is promised where nothing breaks, where ZooKeeper cannot recover before it is healed, or together with
    # whatever else the seed draws
    unpromised = {"no-faults", "partition-deaf", "mixed-all", "mixed-data", "mixed-netem", "mixed-streams"}
    unpromised |= {"data-wiped", "disk-full", "disk-read-only", "disk-slow", "log-torn", "snapshot-corrupt"}
    assert bool(plan.recovery_within_s) == (name not in unpromised)


@pytest.mark.parametrize("file", TRACK_RECORD, ids=lambda file: file.stem)
def test_a_plan_of_the_track_record_is_right(file: Path) -> None:
    plan = load_plan(str(file))
    check_plan(plan, load_topology(plan.topology))
    assert file.name in (ROOT / "docs/track-record.md").read_text(encoding="utf-8")


def test_the_library() -> None:
    assert {"switch-failure", "link-failure", "leader-kill", "leader-pause", "mixed"} <= set(library_plans())


def test_a_plan_is_held_against_the_topology() -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(load_plan("both-switches-in-turn"), load_topology("single-net"))
    assert str(caught.value) == (
        "both-switches-in-turn:step[1]: fault switch-down cannot be aimed at net2 in topology single-net: "
        'there is no switch "net2"; did you mean "net1"? allowed: "net1", "random"'
    )


def test_drawn_faults_are_held_against_the_topology() -> None:
    plan = parse_plan('title = "T"\nduration = "5s"\n[[random]]\nfaults = ["restart"]\ncount = 1\nserver = 4\n', "t")
    with pytest.raises(PlanError, match=r'^t:random\[0\]: .* there is no server "zk4"'):
        check_plan(plan, load_topology("dual-net"))


@pytest.mark.parametrize(
    ("name", "guest", "said"),
    [
        (
            "leader-kill",
            Guest("zk2", removed_at_end=True),
            "leader-kill:step[0]: fault kill is not offered of zk2: its",
        ),
        (
            "mixed",
            Guest("zk1", removed_at_end=True),
            "mixed:random[0]: fault kill is not offered of zk1: its container",
        ),
        ("leader-pause", Guest("zk3", "tini"), "fault pause is not offered of zk3: the first process of its container"),
    ],
)
def test_a_plan_is_held_against_what_is_offered(name: str, guest: Guest, said: str) -> None:
    plan, topology = load_plan(name), load_topology("dual-net")
    check_plan(plan, topology, [Guest(s.host, "java") for s in topology.servers])
    with pytest.raises(PlanError) as caught:
        check_plan(plan, topology, [Guest("zk9", "java"), guest])
    assert said in str(caught.value)


@st.composite
def _groups(draw: st.DrawFn) -> tuple[RandomFaults, int]:
    """A group, and the least length of its window that it fits into, in milliseconds."""
    count, shortest, more, rest = (draw(st.integers(low, 5000)) for low in (1, 1, 0, 0))
    count = count % 20 + 1
    group = RandomFaults(
        *(0, (("kill", "zk1"), ("pause", "zk1")), count, None, shortest / 1000, (shortest + more) / 1000),
        rest_s=rest / 1000,
        from_s=1.0,
    )
    return group, count * (shortest + more + rest)


@given(fitting=_groups(), spare_ms=st.integers(0, 50_000), seed=st.integers())
def test_drawn_faults_never_overlap_nor_leave_the_window(
    fitting: tuple[RandomFaults, int], spare_ms: int, seed: int
) -> None:
    group, least_ms = fitting
    end_ms = 1000 + least_ms + spare_ms
    schedule = expand(Plan("p", "P", (), (group,), end_ms / 1000), seed=seed)
    assert len(schedule) == group.count
    moments = [1000, *(round(t * 1000) for s in schedule for t in (s.at_s, s.end_s + group.rest_s))]
    assert moments == sorted(moments)
    assert moments[-1] <= end_ms
    assert all(group.shortest_s <= (s.for_s or 0) <= group.longest_s for s in schedule)


@given(fitting=_groups(), missing_ms=st.integers(1, 1000))
def test_drawn_faults_that_do_not_fit_are_refused(fitting: tuple[RandomFaults, int], missing_ms: int) -> None:
    group, least_ms = fitting
    end_s = (1000 + max(0, least_ms - missing_ms)) / 1000
    with pytest.raises(PlanError, match=r"^p:random\[0\]: "):
        expand(Plan("p", "P", (), (group,), end_s), seed=0)

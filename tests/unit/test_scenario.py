"""From names and numbers to a request that fits together, and to a folder of its own."""

import dataclasses
import shlex
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.history.scenario import LoadSpec
from harness.scenario import GUEST_RATE, MAX_CLIENTS, MAX_RATE, check_load, folder_name, make_request, new_run_path
from harness.topology.loader import load_topology

DUAL = load_topology("dual-net")
SCENARIO = make_request("switch-failure", seed=7).scenario


def test_what_the_plan_says_holds_where_nothing_else_is_said() -> None:
    request = make_request("minority-kill")
    assert request.topology.name == "dual-net-five"
    assert request.scenario.duration_s == request.plan.duration_s == 14.0
    assert request.scenario.load == LoadSpec()
    assert request.scenario.recovery_within_s == 8.0
    assert (request.scenario.version, request.scenario.multi_address) == (None, None)
    assert [step.fault for step in request.schedule] == ["kill"]


def test_what_is_said_goes_before_the_plan() -> None:
    request = make_request(
        "switch-failure",
        topology_name="dual-net-five",
        seed=-3,
        duration_s=20.0,
        version="3.8",
        multi_address=False,
        clients=3,
        rate=12.5,
    )
    assert request.topology.zookeeper.version == "3.8"
    assert not request.topology.zookeeper.multi_address
    assert (request.scenario.load.clients, request.scenario.load.rate) == (3, 12.5)
    assert request.plan.load == request.scenario.load
    assert shlex.split(request.scenario.repeat) == [
        *["zkchaos", "run", "switch-failure", "--topology", "dual-net-five", "--seed", "-3", "--duration", "20s"],
        *["--zookeeper", "3.8", "--single-address", "--clients", "3", "--rate", "12.5"],
    ]


def test_a_user_mode_kernel_is_given_less_to_do_and_more_time() -> None:
    inside, outside = (make_request("switch-failure", kernel=kernel).scenario for kernel in ("usermode", "host"))
    assert inside.load.rate == GUEST_RATE < outside.load.rate
    assert inside.recovery_within_s == 30
    assert outside.recovery_within_s == 10
    assert make_request("switch-failure", kernel="usermode", rate=150).scenario.load.rate == 150


def test_the_texts_of_both_files_are_kept(tmp_path: Path) -> None:
    plan, topology = tmp_path / "my plan.toml", tmp_path / "mine.toml"
    plan.write_text('title = "P"\n[[step]]\nat = "1s"\nfault = "restart"\nserver = 1\n')
    topology.write_text('title = "T"\nservers = 3\n[[switch]]\nname = "net1"\n')
    scenario = make_request(str(plan), topology_name=str(topology)).scenario
    assert (scenario.plan_source, scenario.topology_source) == (plan.read_text(), topology.read_text())
    assert shlex.split(scenario.repeat)[2] == str(plan)
    assert "/" not in folder_name(scenario)
    assert " " not in folder_name(scenario)


LIMITS = [
    (LoadSpec(clients=0), "clients", "1..500"),
    (LoadSpec(clients=MAX_CLIENTS + 1), "clients", "1..500"),
    (LoadSpec(rate=0.0), "rate", "0.1..20000"),
    (LoadSpec(rate=MAX_RATE * 2), "rate", "0.1..20000"),
    (LoadSpec(rate=float("nan")), "rate", "0.1..20000"),
    (LoadSpec(paths=0), "paths", "1..10000"),
    (LoadSpec(session_timeout_ms=999), "session_timeout", "1000 to 10000 ms"),
    (LoadSpec(session_timeout_ms=10_001), "session_timeout", "1000 to 10000 ms"),
]


@pytest.mark.parametrize(("load", "key", "allowed"), LIMITS)
def test_a_load_beyond_the_limits(load: LoadSpec, key: str, allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_load(load, DUAL)
    assert caught.value.where == f"load.{key}"
    assert allowed in caught.value.next_step


def test_what_runs_already_decides_which_session_timeouts_there_are() -> None:
    """The plan does not know the tick of an ensemble that somebody else set up."""
    topology = load_topology("dual-net")
    for settings, timeout_ms in (({"tickTime": 3000}, 6000), ({"tickTime": 100}, 2000), ({"tickTime": 2000}, 4000)):
        slow = dataclasses.replace(topology, zookeeper=dataclasses.replace(topology.zookeeper, settings=settings))
        load = make_request("no-faults", attached="shop", attached_topology=slow).scenario.load
        assert load.session_timeout_ms == timeout_ms
        assert load.root.startswith("/zkchaos/")
    own = dataclasses.replace(topology.zookeeper, settings={"tickTime": 2000, "maxSessionTimeout": 3000})
    with pytest.raises(UsageError, match="4000 to 3000"):
        check_load(LoadSpec(session_timeout_ms=4000), dataclasses.replace(topology, zookeeper=own))


def test_the_session_timeout_is_held_against_the_tick() -> None:
    slow = dataclasses.replace(DUAL, zookeeper=dataclasses.replace(DUAL.zookeeper, settings={"tickTime": 2000}))
    check_load(LoadSpec(session_timeout_ms=4000), slow)
    with pytest.raises(UsageError, match="would be changed by the servers"):
        check_load(LoadSpec(session_timeout_ms=3999), slow)


@given(st.text(max_size=200), st.integers())
def test_any_name_makes_a_name_of_a_folder(name: str, seed: int) -> None:
    made = folder_name(msgspec.structs.replace(SCENARIO, name=name, seed=seed))
    assert made not in (".", "..")
    assert "/" not in made
    assert "\0" not in made
    assert made.isascii()
    assert made.endswith(f"-{seed}")


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = new_run_path(tmp_path, SCENARIO)
        path.mkdir()
        names.append(path.name)
    base = folder_name(SCENARIO)
    assert names == [base, f"{base}.1", f"{base}.2"]

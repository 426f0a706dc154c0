"""Nothing that a run makes on a Docker engine outlives it by more than the reaper's bound, whatever ends the run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import docker
import pytest
from docker.errors import APIError

from harness.errors import TestbedError
from harness.testbed import leftovers as leftovers_module
from harness.testbed.engine import LABEL_OWNER, LABEL_RUN, LABEL_TOPOLOGY, connect_engine, new_run_id, run_labels
from harness.testbed.helper import engine_pid
from harness.testbed.leftovers import find_things, is_miscounted, leftovers, remove_run
from harness.testbed.owners import Life, Owner
from harness.testbed.reaper import BOUND, Reaper
from tests.integration.command_line import wait_until_gone, zkchaos
from tests.integration.conftest import command
from tests.integration.engine_things import Things

#: Moments at which an owner is killed, seconds after its start: from its first import until it has made everything.
KILLS = 20
#: The same for things alone, without a run.
KILLS_OF_THINGS = 8
LATEST_KILL_S = 4.0
#: The same for a whole run: until its load has begun. A busy machine is given more each time that it had made nothing.
LATEST_KILL_OF_A_RUN_S = 6.0
MORE_TIME = 1.3

#: Has a reaper, and makes what a run makes: networks with fixed subnets, volumes, containers with fixed addresses, side
#: by side. Says the reaper's pid, and then that all stands.
VICTIM = """
import signal, sys
from concurrent.futures import ThreadPoolExecutor
from docker.types import EndpointConfig, IPAMConfig, IPAMPool
from harness.testbed.engine import connect_engine, run_labels
from harness.testbed.reaper import Reaper

run, prefix, image, subnet = sys.argv[1:]
reaper = Reaper.start(run)
print(reaper.pid, flush=True)
client = connect_engine()
labels = run_labels(run)

def network(number):
    pool = IPAMPool(subnet=f"{subnet}.{number * 16}/28", gateway=f"{subnet}.{number * 16 + 14}")
    ipam = IPAMConfig(pool_configs=[pool])
    client.networks.create(f"{prefix}-{run}-net{number}", labels=labels, internal=True, ipam=ipam)

def container(number):
    client.volumes.create(f"{prefix}-{run}-data{number}", labels=labels)
    name = f"{prefix}-{run}-zk{number}"
    client.api.create_container(
        image, name=name, labels=labels, volumes=["/data"],
        host_config=client.api.create_host_config(network_mode=f"{prefix}-{run}-net0"),
        networking_config=client.api.create_networking_config(
            {f"{prefix}-{run}-net0": EndpointConfig("1.41", ipv4_address=f"{subnet}.{number}")}
        ),
    )
    client.api.connect_container_to_network(name, f"{prefix}-{run}-net1", ipv4_address=f"{subnet}.{16 + number}")
    client.api.start(name)

with ThreadPoolExecutor(5) as workers:
    list(workers.map(network, range(2)))
    list(workers.map(container, range(1, 6)))
print("stands", flush=True)
signal.pause()
"""


class Killable:
    """A process that owns things on the engine, to be killed at some moment."""

    def __init__(self, words: Sequence[str]) -> None:
        self.marker = f"ZKCHAOS_LEAK_TEST={secrets.token_hex(8)}"
        name, _, value = self.marker.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.owner = str(Owner.of(self.process.pid))

    def kill(self) -> float:
        """When."""
        self.process.kill()
        at = time.monotonic()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return at


class Victim(Killable):
    """Makes what a run makes, without a run."""

    def __init__(self, things: Things, subnet: str) -> None:
        self.run = new_run_id()
        super().__init__(["-c", VICTIM, self.run, things.prefix, things.image, subnet])

    def wait_until_it_stands(self) -> int:
        """The reaper's pid."""
        assert self.process.stdout is not None
        reaper = int(self.process.stdout.readline())
        assert self.process.stdout.readline() == b"stands\n"
        return reaper


class Watch:
    """Looks at the engine all the time; keeps which runs each owner had, and when each of its things was last seen."""

    def __init__(self) -> None:
        self.last_seen: dict[str, dict[str, float]] = {}
        self.runs: dict[str, set[str]] = {}
        self._client = connect_engine()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            for thing in find_things(self._client):
                self.last_seen.setdefault(thing.owner, {})[thing.id] = time.monotonic()
                self.runs.setdefault(thing.owner, set()).add(thing.run)

    def stayed(self, killed: Mapping[str, float], apart: Collection[str]) -> list[float]:
        """For how long something was there after its owner was killed; owners that had made nothing are left out."""
        seen = {
            owner: [at for thing, at in things.items() if thing not in apart]
            for owner, things in self.last_seen.items()
        }
        return sorted(round(max(seen[owner]) - at, 2) for owner, at in killed.items() if seen.get(owner))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


@pytest.fixture
def things(engine: docker.DockerClient) -> Iterator[Things]:
    made = Things(engine)
    yield made
    made.clear()


@pytest.fixture
def make_victim(things: Things) -> Iterator[Callable[[int], Victim]]:
    """Victims by number; each number is a /24 of its own."""
    made: list[Victim] = []

    def make(number: int) -> Victim:
        made.append(Victim(things, f"10.98.{number}"))
        return made[-1]

    yield make
    for victim in made:
        victim.kill()
        if not any(is_miscounted(things.client, thing) for thing in find_things(things.client, victim.run)):
            remove_run(things.client, victim.run)


def test_nothing_is_left_after_sigkill_at_random_moments(
    engine: docker.DockerClient,
    make_victim: Callable[[int], Victim],
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    moments = random.Random(4)
    killed: dict[str, float] = {}
    miscounted: set[str] = set()
    with Watch() as watch:
        for number in range(KILLS_OF_THINGS):
            victim = make_victim(number)
            time.sleep(moments.uniform(0.0, LATEST_KILL_S))  # the random moment itself, not a wait for a condition
            killed[victim.owner] = victim.kill()
            miscounted |= wait_until_owns_nothing(engine, victim.owner)
        wait_until_gone("ZKCHAOS_LEAK_TEST=", 60)  # the reapers look on for a while, so whatever comes late is seen
    stayed = watch.stayed(killed, miscounted)
    record_testsuite_property("networks that the engine lost count of", sorted(miscounted))
    assert len(miscounted) <= 1  # it is seldom
    record_testsuite_property("seconds to nothing left, things alone", stayed)
    assert len(stayed) >= KILLS_OF_THINGS / 4
    assert max(stayed) <= BOUND


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("engine_images", "subnets")
@pytest.mark.parametrize(("testbed", "kills"), [("docker", KILLS), ("docker-helper", KILLS // 2)])
def test_nothing_is_left_of_a_run_after_sigkill_at_random_moments(
    engine: docker.DockerClient,
    testbed: str,
    kills: int,
    tmp_path: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    moments = random.Random(testbed)
    killed: dict[str, float] = {}
    miscounted: set[str] = set()
    latest = LATEST_KILL_OF_A_RUN_S
    with Watch() as watch:
        for number in range(kills):
            words = ["run", "switch-failure", "--testbed", testbed, "--seed", str(number), "--runs", str(tmp_path)]
            run = Killable(["-m", "harness.cli", *words])
            moment = moments.uniform(0.0, latest)
            time.sleep(moment)  # the random moment itself, not a wait for a condition
            killed[run.owner] = run.kill()
            latest *= 1.0 if run.owner in watch.runs else MORE_TIME
            miscounted |= wait_until_owns_nothing(engine, run.owner)  # the next one wants the same subnets
        wait_until_gone("ZKCHAOS_LEAK_TEST=", 60)
        ports = engine_ports(engine)
    stayed = watch.stayed(killed, miscounted)
    record_testsuite_property("networks that the engine lost count of", sorted(miscounted))
    assert len(miscounted) <= 1  # it is seldom
    record_testsuite_property(f"seconds to nothing left, {testbed}", stayed)
    assert len(stayed) >= kills / 4  # so many had come to make something, on a busy machine too
    assert max(stayed) <= BOUND
    runs = {run for owner in killed for run in watch.runs.get(owner, ())}
    assert [port for port in ports if any(port.startswith(f"zkc{run[:5]}") for run in runs)] == []


def wait_until_owns_nothing(engine: docker.DockerClient, owner: str) -> set[str]:
    """Ids of networks that stay because the engine has lost count of what is attached to them: no run can help that."""
    deadline = time.monotonic() + 2 * BOUND
    while left := [thing for thing in find_things(engine) if thing.owner == owner]:
        if time.monotonic() > deadline:
            assert all(is_miscounted(engine, thing) for thing in left), [str(thing) for thing in left]
            return {thing.id for thing in left}
        time.sleep(0.02)
    return set()


def engine_ports(engine: docker.DockerClient) -> list[str]:
    """The names of the interfaces in the engine's network namespace, where it can be looked into."""
    if not engine_pid(engine) or os.geteuid() != 0:
        return []
    words = [command("nsenter"), f"--net=/proc/{engine_pid(engine)}/ns/net", command("ip"), "-o", "link"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    return [line.split(": ")[1] for line in said.splitlines()]


def test_what_is_left_when_the_reaper_dies_too_is_removed_by_clean(
    engine: docker.DockerClient, make_victim: Callable[[int], Victim], tmp_path: Path
) -> None:
    victim = make_victim(100)
    os.kill(victim.wait_until_it_stands(), signal.SIGKILL)
    assert zkchaos("clean", cwd=tmp_path).code == 0
    assert {thing.life for thing in find_things(engine, victim.run)} == {Life.ALIVE}
    left = find_things(engine, victim.run)
    assert len(left) == 2 + 2 * 5
    victim.kill()
    assert {thing.id for thing in leftovers(engine)} >= {thing.id for thing in left}
    done = zkchaos("clean", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert {line for line in done.out.splitlines() if victim.run in line} == {f"removed {thing}" for thing in left}
    assert find_things(engine, victim.run) == []
    assert victim.run not in zkchaos("clean", cwd=tmp_path).out


def test_clean_touches_nothing_else(things: Things, tmp_path: Path) -> None:
    me = Owner.of_this_process()
    run = new_run_id()
    things.container({})
    things.container(run_labels(run))
    things.network({LABEL_TOPOLOGY: "dual-net"}, "10.98.110.0/24")
    things.network({LABEL_RUN: run, LABEL_OWNER: str(me)}, "10.98.111.0/24")
    things.volume({LABEL_OWNER: str(dataclasses.replace(me, start=1))})
    unsure = {
        things.volume({LABEL_RUN: run}): Life.UNREADABLE,
        things.volume({LABEL_RUN: run, LABEL_OWNER: str(dataclasses.replace(me, space="pid:[1]"))}): Life.OTHER_SPACE,
        things.volume(
            {LABEL_RUN: run, LABEL_OWNER: str(dataclasses.replace(me, boot="0" * 36, machine="0" * 12))}
        ): Life.OTHER_MACHINE,
    }
    before = things.names()
    dead = {
        things.volume({LABEL_RUN: run, LABEL_OWNER: str(dataclasses.replace(me, start=1))}),
        things.volume({LABEL_RUN: run, LABEL_OWNER: str(dataclasses.replace(me, boot="0" * 36))}),
    }
    done = zkchaos("clean", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert things.names() == before
    assert {line for line in done.out.splitlines() if run in line} == {
        *(f"removed volume {name} of run {run}" for name in dead),
        *(
            f"kept volume {name} of run {run}: {life}; by hand: docker volume rm {name}"
            for name, life in unsure.items()
        ),
    }


def test_ctrl_c_and_sigterm_do_not_end_the_reaper(
    engine: docker.DockerClient, make_victim: Callable[[int], Victim]
) -> None:
    victim = make_victim(101)
    reaper = victim.wait_until_it_stands()
    assert os.getsid(reaper) == reaper
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(reaper, number)
    assert find_things(engine, victim.run)
    victim.kill()
    wait_until_gone(victim.marker, BOUND)
    assert find_things(engine, victim.run) == []


#: Has forked a child, as a pool of processes does, that keeps every descriptor; and started one as a server is.
FORKED = """
import os, signal, subprocess, sys
from harness.testbed.reaper import Reaper
reaper = Reaper.start(sys.argv[1])
forked = os.fork()
if forked == 0:
    signal.pause()
other = subprocess.Popen(["sleep", "60"])
print(forked, other.pid, flush=True)
signal.pause()
"""


def test_children_of_the_owner_do_not_keep_the_reaper_waiting(things: Things) -> None:
    run = new_run_id()
    owner = subprocess.Popen([sys.executable, "-c", FORKED, run], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    forked, other = map(int, owner.stdout.readline().split())
    try:
        open_there = {str(path.readlink()) for path in Path(f"/proc/{other}/fd").iterdir()}
        assert not any(name.startswith("socket:") for name in open_there), open_there
        things.volume(run_labels(run))
        owner.kill()
        deadline = time.monotonic() + BOUND
        while find_things(things.client, run):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert Path(f"/proc/{forked}").exists(), "the forked child should have outlived its parent"
    finally:
        owner.kill()
        os.kill(other, signal.SIGKILL)
        os.kill(forked, signal.SIGKILL)
        owner.communicate()


#: Stops what another started, as a run that is attached to it does.
STOPPER = """
import signal, sys
from harness.testbed.engine import connect_engine, new_run_id
from harness.testbed.reaper import Reaper

reaper = Reaper.start(new_run_id(), revive=sys.argv[1:])
api = connect_engine().api
ended, stopped, removed = sys.argv[1:]
api.kill(ended)
api.kill(stopped, "SIGSTOP")
api.remove_container(removed, force=True)
print("done", flush=True)
signal.pause()
"""


def test_what_another_started_runs_again(things: Things) -> None:
    ended, stopped, removed = (things.container({}) for _ in range(3))
    owner = Killable(["-c", STOPPER, ended, stopped, removed])
    assert owner.process.stdout is not None
    assert owner.process.stdout.readline() == b"done\n"
    assert state_of(things.client, stopped) == "T"
    killed = owner.kill()
    while "S" not in state_of(things.client, stopped) or "S" not in state_of(things.client, ended):
        assert time.monotonic() < killed + BOUND
        time.sleep(0.02)
    wait_until_gone(owner.marker, BOUND)
    assert things.names() == {ended, stopped}


def state_of(client: docker.DockerClient, container: str) -> str:
    """As `ps` says: `S`, `T` (stopped); empty if it does not run."""
    try:
        return str(client.api.top(container, "-o pid,stat")["Processes"][0][1])[0]
    except APIError:
        return ""


def test_an_owner_whose_end_is_not_told_is_looked_at(things: Things) -> None:
    """As on a Mac, where there are no pidfds."""
    run = new_run_id()
    without = "import os; del os.pidfd_open\n"
    owner = Killable(["-c", without + FORKED, run])
    assert owner.process.stdout is not None
    children = [int(word) for word in owner.process.stdout.readline().split()]
    try:
        things.volume(run_labels(run))
        killed = owner.kill()
        while find_things(things.client, run):
            assert time.monotonic() < killed + BOUND
            time.sleep(0.02)
    finally:
        owner.kill()
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_a_good_end_leaves_no_reaper_and_nothing_that_was_overlooked(things: Things) -> None:
    run = new_run_id()
    reaper = Reaper.start(run)
    things.volume(run_labels(run))
    began = time.monotonic()
    reaper.close()
    assert time.monotonic() - began < BOUND
    reaper.close()
    assert find_things(things.client, run) == []
    assert not Path(f"/proc/{reaper.pid}").exists()


def test_a_reaper_that_was_killed_or_finds_no_engine_says_so_at_the_end(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = Reaper.start(new_run_id())
    os.kill(reaper.pid, signal.SIGKILL)
    with pytest.raises(TestbedError, match="code -9"):
        reaper.close()
    monkeypatch.setenv("DOCKER_HOST", "unix:///there/is/no/engine")
    reaper = Reaper.start(new_run_id())
    with pytest.raises(TestbedError, match="/there/is/no/engine"):
        reaper.close()


def test_removal_takes_what_stands_still_and_may_be_repeated(things: Things) -> None:
    run = new_run_id()
    labels = run_labels(run)
    network = things.network(labels, "10.98.112.0/24")
    things.client.api.pause(things.container(labels, network))
    things.client.api.kill(things.container(labels))
    things.volume(labels)
    other = things.volume(run_labels(new_run_id()))
    assert sorted(thing.kind for thing in remove_run(things.client, run)) == [
        "container",
        "container",
        "network",
        "volume",
    ]
    assert remove_run(things.client, run) == []
    assert things.names() == {other}


def test_several_may_remove_the_same(things: Things) -> None:
    run = new_run_id()
    network = things.network(run_labels(run), "10.98.113.0/24")
    for _ in range(3):
        things.container(run_labels(run), network)
    problems: list[Exception] = []

    def remove() -> None:
        try:
            with contextlib.closing(connect_engine()) as client:
                remove_run(client, run)
        except TestbedError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert things.names() == set()


def test_what_the_engine_refuses_to_remove_is_told(things: Things) -> None:
    run = new_run_id()
    network = things.network(run_labels(run), "10.98.114.0/24")
    foreign = things.container({}, network)
    volume = things.volume(run_labels(run))
    with pytest.raises(TestbedError, match=network) as told:
        remove_run(things.client, run, patience=0.5)
    assert "active endpoints" in told.value.cause
    assert things.names() == {network, foreign}
    assert volume not in things.names()


def test_a_network_that_the_engine_has_miscounted_is_told_as_what_it_is(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own slip cannot be had at will: the refusal is real, what the engine lists is not looked at."""
    run = new_run_id()
    labels = {LABEL_RUN: run, LABEL_OWNER: str(dataclasses.replace(Owner.of_this_process(), start=1))}
    network = things.network(labels, "10.98.115.0/24")
    (thing,) = find_things(things.client, run)
    assert is_miscounted(things.client, thing)
    things.container({}, network)
    assert not is_miscounted(things.client, thing)
    monkeypatch.setattr(leftovers_module, "is_miscounted", lambda _client, _thing: True)
    with pytest.raises(TestbedError, match="moby issue 42119") as told:
        remove_run(things.client, run, patience=0.2)
    assert "restart of the engine" in str(told.value)
    kept = [str(kept) for kept in leftovers_module.remove_leftovers(things.client, lambda _thing: None, patience=0.2)]
    (line,) = (line for line in kept if network in line)
    assert "moby issue 42119" in line
    assert line.endswith(f"docker network rm {network}")


def test_clean_says_what_it_lacks(tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": "unix:///there/is/no/engine"}
    assert "no Docker engine answers" in zkchaos("clean", cwd=tmp_path, environ=nowhere).complaint(3)
    without = "import sys; sys.modules['docker'] = None"
    assert "zk-chaos-harness[docker]" in zkchaos("clean", cwd=tmp_path, prelude=without).complaint(3)

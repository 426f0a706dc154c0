"""Every kind of fault, alone, in its manners, on real servers: injected, proved to bite, healed, proved to be gone.

One ensemble serves all cases of a topology, one after the other; after a case that failed the next one gets a fresh
one. What takes netem runs in a kernel that has it: `test_a_kernel_with_netem` performs this file there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import EnvironmentLacking
from harness.history.records import Event, FaultAction, FaultEvent, ProbeEvent
from harness.history.scenario import LoadSpec, Scenario
from harness.nemesis.kinds import KINDS
from harness.nemesis.offers import offers
from harness.scenario import now_text
from harness.stage.make import ON_ENGINE, TESTBEDS
from harness.testbed.engine import connect_engine
from harness.testbed.turns import turn
from harness.testing import ChaosTest
from harness.topology.loader import load_topology, parse_topology
from harness.usermode.machine import inside
from tests.chaos.conftest import everywhere
from tests.integration.conftest import require

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(120)]

#: How long the servers may take to serve again once a fault has healed, seconds.
_PATIENCE = 60.0
#: For one way over one switch, milliseconds; nothing is late any more.
_ANSWER_MS = 500

#: Each kind in its manners: the target as in a plan.
MANNERS: dict[str, tuple[str, ...]] = {
    "switch-down": ("net1", "random"),
    "link-down": ("zk1:net1", "leader:net2", "a follower:random", "c1:net1"),
    "switch-flap": ("net1:300ms", "random:200ms/500ms"),
    "switch-split": ("net1:zk1,c1 | zk2,zk3", "net2:leader | others", "random:halves"),
    "link-flap": ("leader:net1:300ms", "c1:net2:200ms/400ms"),
    "nic-down": ("zk2:net1", "leader:net2"),
    "partition": (
        "halves",
        "isolate leader",
        "isolate a follower over net1",
        "deaf zk2",
        "mute zk2 over net2",
        "minority",
        "majorities-ring",
        "bridge",
        "one-way",
        "zk1 | zk2,zk3",
        "zk1 > zk2,zk3; zk2 > zk1 over net1",
        "isolate leader port quorum",
        "zk1 > zk2 port election",
        "isolate zk3 rejected",
        "zk1,zk2,zk3 > zk1,zk2,zk3 over net1 port quorum rejected",
        "c1 | zk1",
    ),
    "packets": (
        "loss 10% on net1",
        "delay 100ms on net1",
        "delay 50ms jitter 10ms normal on leader",
        "delay 200ms on zk1 > zk2",
        "loss 100% on zk3:net1 out",
        "loss 10% in bursts of 5 on net2",
        "duplicate 5% on net1",
        "corrupt 2% on zk2",
        "delay 20ms, reorder 25% on net1",
        "rate 1mbit on net1",
        "rate 2mbit on zk1 > zk2 over net2",
        "loss 10%, rate 2mbit on a follower:net1 in",
    ),
    "stream": (
        "latency 200ms on clients",
        "latency 100ms jitter 20ms on zk1 > zk2",
        "latency 200ms on servers > leader",
        "bandwidth 100kbit on clients downstream",
        "slow_close 500ms on clients",
        "timeout 0ms on zk1 > zk2 upstream",
        "timeout 0ms on clients toxicity 50%",
        "reset_peer 100ms on clients > leader",
        "slicer 64B every 1ms on c1",
        "limit_data 10kB on c2 upstream",
        "down on clients > a follower",
    ),
    "kill": ("leader", "zk1,zk3", "minority", "all"),
    "pause": ("leader", "a follower", "majority"),
    "restart": ("leader", "zk2,zk3"),
    "crash-loop": ("a follower", "leader"),
    "restart-storm": ("minority", "all"),
    "rolling-restart": ("all",),
    "slow-start": ("a follower", "leader"),
    "limit": ("leader:cpu 5%", "zk2:memory 48MB"),
    "clock": ("zk1:ahead 5s", "leader:behind 1h", "a follower:jumps 2s every 300ms", "zk2:drifts 1.5x", "all:ahead 1m"),
    "disk": ("leader:full", "zk2:read-only", "a follower:slow 50ms", "zk3:failing", "zk1:stuck"),
    "damage": ("a follower:truncate log", "zk1:corrupt log", "zk2:corrupt snapshot", "zk3:wipe"),
}
#: Where a kind, or one manner of it, needs more than two switches and three servers.
TOPOLOGIES = {"stream": "proxied", "partition majorities-ring": "dual-net-five"}
#: On an engine, only the streams of clients pass proxies.
CLIENTS_ONLY = """
title = "Three servers, and proxies for the streams of two client hosts"
servers = 3
clients = 2
[zookeeper]
settings = { tickTime = 500, initLimit = 10, syncLimit = 4 }
[proxies]
clients = true
[[switch]]
name = "net1"
subnet = "10.77.1.0/24"
"""
#: What a machine may lack, by the name that ZKCHAOS_REQUIRE knows.
NEEDS = {
    "packets": "netem",
    "partition": "nftables",
    "switch-split": "nftables",
    "stream": "toxiproxy",
    "clock": "faketime",
    "disk": "fuse",
    "limit": "cgroups",
}


@dataclass(frozen=True)
class Case:
    """A fault, and where it is tried."""

    kind: str
    target: str
    testbed: str = "namespaces"

    def __str__(self) -> str:
        return f"{self.testbed}: {self.kind} {self.target}"

    @property
    def ground(self) -> tuple[str, str, str]:
        """Testbed, topology, and what its servers are started with: cases with the same share an ensemble."""
        topology = TOPOLOGIES.get(f"{self.kind} {self.target}") or TOPOLOGIES.get(self.kind, "dual-net")
        if topology == "proxied" and self.testbed in ON_ENGINE:
            topology = "clients-only"
        return self.testbed, topology, KINDS[self.kind].prepared


def cases() -> list[Case]:
    """Every manner on namespaces, and the first of each kind on Docker; those that share an ensemble together."""
    manners = [(f"{kind} {target}", kind, target) for kind, targets in MANNERS.items() for target in targets]
    first = {kind: f"{kind} {targets[0]}" for kind, targets in MANNERS.items()}
    chosen = [(name, "namespaces") for name, _kind, _target in manners]
    if not inside():
        never = {offer.kind for offer in offers("docker") if offer.never}
        chosen += [(name, "docker") for kind, name in first.items() if kind not in never]
    wanted = everywhere(chosen, [name for name, _kind, _target in manners])
    found = [Case(kind, target, bed) for bed in TESTBEDS for name, kind, target in manners if (name, bed) in wanted]
    grounds = list(dict.fromkeys(case.ground for case in found))
    return sorted(found, key=lambda case: grounds.index(case.ground))


class Grounds:
    """The one ensemble that stands at a time."""

    def __init__(self, root: Path) -> None:
        self._root, self._number = root, 0
        self._stack = contextlib.ExitStack()
        self._key: tuple[str, str, str] | None = None
        self._chaos: ChaosTest | None = None
        #: Whether the last case has left it as it was.
        self.sound = False

    def of(self, case: Case) -> ChaosTest:
        """The ensemble that stands, if it is of the right kind and whole; else a new one."""
        if self._chaos is None or self._key != case.ground:
            self.clear()
            testbed, name, prepared = self._key = case.ground
            if testbed in ON_ENGINE:
                client = self._stack.enter_context(contextlib.closing(connect_engine()))
                self._stack.enter_context(turn(client))
            self._number += 1
            topology = parse_topology(CLIENTS_ONLY, name) if name == "clients-only" else load_topology(name)
            scenario = Scenario(
                name="every-fault",
                topology=name,
                topology_source=topology.source,
                plan="",
                plan_source="",
                seed=0,
                duration_s=0.0,
                load=LoadSpec(),
                repeat="",
                started=now_text(),
                testbed=testbed,
                prepared=(prepared,) if prepared else (),
            )
            self._chaos = self._stack.enter_context(ChaosTest(scenario, topology, self._root / str(self._number)))
        self.sound = False
        return self._chaos

    def clear(self) -> None:
        """End the ensemble that stands."""
        self._chaos = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    made = Grounds(tmp_path_factory.mktemp("grounds"))
    yield made
    made.clear()


@pytest.fixture
def chaos(request: pytest.FixtureRequest, grounds: Grounds) -> Iterator[ChaosTest]:
    """An ensemble that serves; one that a case has left otherwise is not used again."""
    case: Case = request.getfixturevalue("case")
    for name in ("namespaces_allowed", "java") if case.testbed == "namespaces" else ("engine_images",):
        request.getfixturevalue(name)
    try:
        made = grounds.of(case)
    except EnvironmentLacking as lacking:
        grounds.clear()
        require(NEEDS.get(case.kind, "zookeeper"), str(lacking))
        raise
    failed = request.session.testsfailed
    yield made
    try:
        if request.session.testsfailed == failed:
            whole(made)
            grounds.sound = True
    finally:
        if not grounds.sound:
            grounds.clear()


def whole(chaos: ChaosTest) -> None:
    """Every server serves, a write is acknowledged, and every datagram arrives: nothing of any fault is left."""
    chaos.ensemble.servers.wait_until_serving(within=_PATIENCE)
    chaos.ensemble.wait_for_quorum(within=_PATIENCE)
    paths = chaos.run.testbed.reach(chaos.ensemble.topology.switch_names, timeout_ms=_ANSWER_MS)
    assert [path for path in paths if path.micros is None] == []


def test_no_kind_of_fault_is_left_out() -> None:
    assert set(MANNERS) == set(KINDS)
    assert all(MANNERS.values())


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_fault_alone(case: Case, chaos: ChaosTest) -> None:
    told = len(chaos.run.folder.events())
    try:
        with chaos.nemesis.fault(case.kind, case.target):
            pass
    except EnvironmentLacking as lacking:
        require(NEEDS.get(case.kind, case.kind), str(lacking))
        raise
    events = chaos.run.folder.events()[told:]
    assert [event.action for event in events if isinstance(event, FaultEvent)] == [
        FaultAction.INJECT,
        FaultAction.INJECTED,
        FaultAction.HEAL,
        FaultAction.HEALED,
    ]
    seen = proofs(events)
    assert {stage: probe.bites for stage, probe in seen.items()} == {"before": False, "during": True, "after": False}
    assert all(probe.summary and probe.measurements for probe in seen.values())
    assert any(not measurement.healthy for measurement in seen["during"].measurements)


def proofs(events: list[Event]) -> dict[str, ProbeEvent]:
    """The last probe of each stage, which is the one that counts."""
    return {event.stage: event for event in events if isinstance(event, ProbeEvent)}

"""A scenario to perform: topology, plan, load and seed, checked against each other before anything is started."""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from harness import __version__
from harness.errors import UsageError
from harness.history.scenario import LoadSpec, Scenario
from harness.nemesis.kinds import KINDS, FaultKind
from harness.nemesis.offers import Guest
from harness.nemesis.plan import Plan, Step, check_plan, expand
from harness.nemesis.plan_loader import load_plan
from harness.topology.duration import format_duration
from harness.topology.loader import load_topology, with_overrides
from harness.topology.model import Topology
from harness.usermode.machine import inside

#: Bounds on the load: what one machine can drive, and what a page can show.
MAX_CLIENTS = 500
MAX_RATE = 20_000.0
MAX_PATHS = 10_000
#: Operations per second in a user-mode kernel, if not said otherwise: a process takes many times longer there, and a
#: load that cannot be carried would hide what a fault does.
GUEST_RATE = 50.0
#: For the same reason recovery may take so many times longer there than a plan allows it, and everything that is waited
#: for.
GUEST_PATIENCE = 3.0


@dataclass(frozen=True)
class Request:
    """Everything that a run needs to know. Holding one means that it fits together."""

    scenario: Scenario
    topology: Topology
    plan: Plan
    schedule: tuple[Step, ...]


def make_request(
    plan_name: str,
    *,
    topology_name: str | None = None,
    seed: int = 0,
    duration_s: float | None = None,
    version: str | None = None,
    multi_address: bool | None = None,
    clients: int | None = None,
    rate: float | None = None,
    testbed: str = "namespaces",
    kernel: str = "host",
    attached: str | None = None,
    attached_topology: Topology | None = None,
    guests: Sequence[Guest] = (),
) -> Request:
    """Read and check a plan and a topology, by name or by path, or a plan and the topology of what runs already.

    Raises:
        UsageError: one of the files or values is wrong; nothing has been started.
    """
    plan = load_plan(plan_name)
    topology = attached_topology or load_topology(topology_name or plan.topology)
    topology = with_overrides(topology, version=version, multi_address=multi_address)
    duration = plan.duration_s if duration_s is None else duration_s
    check_plan(plan, topology, guests)
    schedule = expand(plan, seed=seed, duration_s=duration)
    load = plan.load
    in_guest = kernel == "usermode" or inside()
    if clients is not None:
        load = msgspec.structs.replace(load, clients=clients)
    if rate is not None:
        load = msgspec.structs.replace(load, rate=rate)
    elif in_guest:
        load = msgspec.structs.replace(load, rate=min(load.rate, GUEST_RATE))
    started = now_text()
    if attached is not None:
        # The registers of an earlier run may still be there, and each value is written once in a run. Which session
        # timeouts the servers allow is not the plan's to say.
        least_ms, most_ms = session_timeouts(topology)
        timeout_ms = min(max(load.session_timeout_ms, least_ms), most_ms)
        root = f"/zkchaos/{_compact(started)}-{seed}"
        load = msgspec.structs.replace(load, root=root, session_timeout_ms=timeout_ms)
    check_load(load, topology)
    budget = plan.recovery_within_s
    if budget is not None and in_guest:
        budget *= GUEST_PATIENCE
    words = ["zkchaos", "run", plan_name]
    words += ["--attach", attached] if attached else ["--topology", topology_name or plan.topology]
    words += ["--seed", str(seed)]
    words += ["--duration", format_duration(duration)]
    words += ["--zookeeper", version] if version else []
    words += ["--single-address"] if multi_address is False else []
    words += ["--clients", str(clients)] if clients is not None else []
    words += ["--rate", f"{rate:g}"] if rate is not None else []
    words += ["--testbed", testbed] if testbed != "namespaces" else []
    words += ["--kernel", kernel] if kernel != "host" else []
    scenario = Scenario(
        name=plan.name,
        topology=topology.name,
        topology_source=topology.source,
        plan=plan.name,
        plan_source=plan.source,
        seed=seed,
        duration_s=duration,
        load=load,
        repeat=shlex.join(words),
        started=started,
        testbed=testbed,
        attached=attached,
        version=version,
        multi_address=multi_address,
        recovery_within_s=budget,
        scheduled_faults=len(schedule),
        harness_version=__version__,
        prepared=tuple(sorted({kind.prepared for kind in _kinds_of(plan) if kind.prepared})),
        expected={step.id: step.expect for step in schedule if step.expect is not None},
    )
    return Request(scenario, topology, replace(plan, load=load), schedule)


def _kinds_of(plan: Plan) -> list[FaultKind]:
    return [KINDS[s.fault] for s in plan.steps] + [KINDS[name] for g in plan.random for name, _target in g.choices]


def check_load(load: LoadSpec, topology: Topology) -> None:
    """Refuse a load that this machine or this topology cannot carry.

    Raises:
        UsageError: with the value found and what is allowed.
    """
    for name, value, least, most in (
        ("clients", load.clients, 1, MAX_CLIENTS),
        ("rate", load.rate, 0.1, MAX_RATE),
        ("paths", load.paths, 1, MAX_PATHS),
    ):
        if not least <= value <= most:
            raise UsageError(
                f"{value:g} is not allowed", where=f"load.{name}", next_step=f"allowed: {least:g}..{most:g}"
            )
    least_ms, most_ms = session_timeouts(topology)
    if not least_ms <= load.session_timeout_ms <= most_ms:
        raise UsageError(
            f"a session timeout of {load.session_timeout_ms} ms would be changed by the servers",
            where="load.session_timeout",
            next_step=f"allowed at tickTime {topology.zookeeper.tick_ms}: {least_ms} to {most_ms} ms",
        )


def session_timeouts(topology: Topology) -> tuple[int, int]:
    """The shortest and the longest session timeout that the servers leave as it is, milliseconds."""
    options = topology.zookeeper
    least = options.settings.get("minSessionTimeout", 2 * options.tick_ms)
    most = options.settings.get("maxSessionTimeout", 20 * options.tick_ms)
    return int(least), int(most)


def now_text() -> str:
    """The wall clock for people, ISO 8601 UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def folder_name(scenario: Scenario) -> str:
    """`20261122T110203-switch-failure-7`."""
    moment = _compact(scenario.started)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", scenario.name).strip("-")[:80]
    return f"{moment}-{name}-{scenario.seed}"


def _compact(moment: str) -> str:
    """`20261122T110203`."""
    return re.sub(r"[-:]|\+.*", "", moment)


def new_run_path(runs: Path, scenario: Scenario) -> Path:
    """A path below `runs` that is not taken yet."""
    base = runs / folder_name(scenario)
    for number in range(1000):
        path = base if number == 0 else base.with_name(f"{base.name}.{number}")
        if not path.exists():
            return path
    raise UsageError("a thousand runs of this name began in this second", where=str(base))

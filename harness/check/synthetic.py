"""Makes up runs: a simulated ensemble under load, written as a real run folder with real transaction logs.

For tests of the judges, for benchmarks, and for anyone who wants to see a report without a cluster. A made-up run is
always sound (see `simulation.py`). To see a judge complain, damage it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from harness.check.simulation import Simulation, SyntheticFault, SyntheticRun, register_path
from harness.history.folder import RunFolder
from harness.history.records import (
    Barrier,
    Event,
    FaultAction,
    FaultEvent,
    FinalRead,
    Measurement,
    Phase,
    ProbeEvent,
    Sample,
)
from harness.history.scenario import LoadSpec, Scenario
from harness.zookeeper.txnlog import write_log

__all__ = ["SyntheticFault", "SyntheticRun", "write_run"]

_SECOND = 1_000_000_000
_MS = 1_000_000

_TOPOLOGY = """\
title = "{title}"
servers = {servers}
[zookeeper]
settings = {{ tickTime = 500 }}
"""
_SWITCH = '[[switch]]\nname = "net{number}"\nsubnet = "10.77.{number}.0/24"\n'


def write_run(root: Path, run: SyntheticRun) -> RunFolder:
    """Make up a run, and write it as a folder.

    Args:
        root: a folder that does not exist yet, or is empty.
        run: what to make up; equal arguments give equal folders.

    Raises:
        RunFolderError: the folder is taken.
    """
    folder = RunFolder.create(root)
    simulation = Simulation(run)
    simulation.carry_out()
    folder.write_json(folder.scenario_file, _scenario(run))
    _write_lines(folder.clients_folder / "c1.jsonl", simulation.client_records())
    _write_lines(folder.events_file, _events(simulation))
    for server in range(1, run.servers + 1):
        place = folder.server(server)
        place.create()
        write_log(place.txnlog, simulation.log(server))
        (place.snapshot / "version-2").mkdir()
        for zxid in simulation.snapshots[server]:
            (place.snapshot / "version-2" / f"snapshot.{zxid:x}").touch()
    return folder


def _write_lines(path: Path, records: Iterable[msgspec.Struct]) -> None:
    path.write_bytes(msgspec.json.Encoder().encode_lines(list(records)))


def _scenario(run: SyntheticRun) -> Scenario:
    topology = _TOPOLOGY.format(title="Made up", servers=run.servers)
    topology += "".join(_SWITCH.format(number=number + 1) for number in range(run.switches))
    return Scenario(
        name="synthetic",
        topology="synthetic",
        topology_source=topology,
        plan="synthetic" if run.faults else "",
        plan_source="",
        seed=run.seed,
        duration_s=run.duration,
        load=LoadSpec(clients=run.clients, rate=run.rate, paths=run.paths, window=run.window),
        repeat="",
        started="2000-01-01T00:00:00Z",
        recovery_within_s=run.recovery_within,
        scheduled_faults=len(run.faults),
    )


def _events(simulation: Simulation) -> list[Event]:
    """The events of the whole run."""
    start, last = simulation.start, simulation.last
    events: list[Event] = [Phase(start - 2 * _SECOND, "bring-up"), Phase(start, "load")]
    for number, fault in enumerate(simulation.run.faults):
        events += _fault_events(number, fault, simulation)
    for second in range(int(simulation.run.duration) + 1):
        for server in simulation.servers():
            events.append(Sample(start + second * _SECOND, server, "leader" if server == 1 else "follower"))
    events += (Phase(simulation.end, "quiesce"), Phase(last + 2 * _MS, "collect"))
    events.append(Barrier(last + 3 * _MS, simulation.barrier, tuple(simulation.servers())))
    for server in simulation.servers():
        for path in map(register_path, range(simulation.run.paths)):
            node = simulation.nodes.get(path)
            value, stat = (node.value, node.stat()) if node is not None else (None, None)
            events.append(FinalRead(last + 4 * _MS, server, path, simulation.barrier, value, stat))
    events.append(Phase(last + 5 * _MS, "done"))
    return sorted(events, key=lambda event: event.at)


def _fault_events(number: int, fault: SyntheticFault, simulation: Simulation) -> list[Event]:
    inject, heal = simulation.moment(fault.at), simulation.moment(fault.healed)
    steps = (
        (inject, FaultAction.INJECT),
        (inject + _MS, FaultAction.INJECTED),
        (heal, FaultAction.HEAL),
        (heal + _MS, FaultAction.HEALED),
    )
    events: list[Event] = [FaultEvent(at, number, action, fault.kind, fault.target) for at, action in steps]
    probes = (
        (inject - 50 * _MS, "before", False),
        (inject + 50 * _MS, "during", True),
        (heal + 50 * _MS, "after", False),
    )
    for at, stage, bites in probes:
        found = "no answer" if bites else "an answer in 0.2 ms"
        measurement = Measurement("zk1>zk2", found, healthy=not bites)
        events.append(ProbeEvent(at, number, stage, bites, f"zk1>zk2: {found}", (measurement,)))
    return events

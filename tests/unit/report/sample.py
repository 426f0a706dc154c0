"""Made-up run folders, written with the real records, for tests of the page.

The figures are chosen, not measured: a switch dies at 3.0 s for 8.0 s, writes stop for 2.1 s, all clients are back
4.3 s after the fault.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.check.verdict import Figure, Finding, Judgement, Overall, Verdict, Witness, combine
from harness.history.folder import LineWriter, RunFolder
from harness.history.records import (
    Complete,
    Event,
    FaultAction,
    FaultEvent,
    Function,
    Invoke,
    Measurement,
    Note,
    Outcome,
    Phase,
    ProbeEvent,
    ProcessEvent,
    Sample,
    SessionEvent,
    SessionState,
)
from harness.history.scenario import Environment, LoadSpec, Scenario, ServerSoftware

SECOND = 1_000_000_000
#: CLOCK_MONOTONIC at the start of load.
LOAD = 5_000 * SECOND

TOPOLOGY = """\
title = "Three servers, each on two switches"
[zookeeper]
version = "3.9.5"
settings = { tickTime = 500, initLimit = 10, syncLimit = 4 }
[[switch]]
name = "net1"
subnet = "10.77.1.0/24"
[[switch]]
name = "net2"
subnet = "10.77.2.0/24"
[[server]]
id = 1
switches = ["net1", "net2"]
[[server]]
id = 2
switches = ["net1", "net2"]
[[server]]
id = 3
switches = ["net1", "net2"]
[[client_host]]
name = "c1"
switches = ["net1", "net2"]
[[client_host]]
name = "c2"
switches = ["net1", "net2"]
"""

PLAN = """\
title = "The first switch dies for eight seconds"
[[step]]
at = "3s"
fault = "switch-down"
switch = "net1"
for = "8s"
"""


def at(seconds: float) -> int:
    """Monotonic nanoseconds of an instant on the axis."""
    return LOAD + round(seconds * SECOND)


@dataclass(frozen=True)
class Run:
    """A written run folder and what a judge says of it."""

    folder: RunFolder
    judgement: Judgement


def scenario(**changes: object) -> Scenario:
    """The dual-network scenario, with changes."""
    fields: dict[str, object] = {
        "name": "switch-failure",
        "topology": "dual-net",
        "topology_source": TOPOLOGY,
        "plan": "switch-failure",
        "plan_source": PLAN,
        "seed": 7,
        "duration_s": 18.0,
        "load": LoadSpec(),
        "repeat": "zkchaos run switch-failure --topology dual-net --seed 7 --duration 18s",
        "started": "2025-11-22T10:15:00Z",
        "version": "3.9.5",
        "multi_address": True,
        "recovery_within_s": 10.0,
        "harness_version": "0.1.0",
    }
    return Scenario(**(fields | changes))  # type: ignore[arg-type]  # the names are checked by msgspec at run time


def environment() -> Environment:
    """A machine and its software."""
    jars = {f"zookeeper-{part}-3.9.5.jar": f"{n:064x}" for n, part in enumerate(("server", "jute", "log"), start=0xABC)}
    return Environment(
        kernel="Linux 6.18.0",
        machine="x86_64",
        cpus=2,
        memory_mb=7962,
        python="3.11.2",
        harness="0.1.0",
        java='openjdk version "17.0.17" 2025-10-21',
        java_source="PATH",
        testbed="namespaces",
        rootless=True,
        # 10:15:03.4 on the wall was the start of load.
        wall_offset_ns=round(datetime(2025, 11, 22, 10, 15, 3, 400_000, tzinfo=UTC).timestamp() * SECOND) - LOAD,
        servers=tuple(ServerSoftware(s, "3.9.5", "maven", jars) for s in (1, 2, 3)),
    )


# --- operations ---------------------------------------------------------------------------------------------------


def operations(
    *, number: int = 3600, seconds: float = 18.0, clients: int = 8, outage: tuple[float, float] | None = (3.0, 5.1)
) -> Iterator[Invoke | Complete]:
    """A paced load; in the outage some operations wait for its end, some lose their reply, some are refused."""
    dice = random.Random(7)
    for index in range(number):
        process = f"c{1 + index % 2}.{index % clients}"
        call = seconds * index / number
        function = (Function.SET, Function.GET, Function.SYNC_GET, Function.CREATE)[dice.randrange(4)]
        path = f"/r/{dice.randrange(16)}"
        yield Invoke(process, index, at(call), function, path, f"v{index}" if function.is_write else None)
        yield _end(dice, process, index, call, function=function, outage=outage)


def _end(
    dice: random.Random,
    process: str,
    index: int,
    call: float,
    *,
    function: Function,
    outage: tuple[float, float] | None,
) -> Complete:
    latency = dice.lognormvariate(-6.2, 0.6) * (1.6 if function.is_write else 1.0)
    session, server = 0x1000_0000 + index % 8, f"10.77.{1 + index % 2}.{1 + index % 3}:2181"
    outcome, error = Outcome.OK, None
    if outage and outage[0] <= call < outage[1]:
        latency = outage[1] - call + abs(dice.gauss(0.2, 0.3)) if function.is_write else latency * 30
        if dice.random() < 0.35:
            outcome, error, latency = Outcome.INFO, "ConnectionLoss", min(latency, 1.3)
        elif dice.random() < 0.1:
            outcome, error, latency = Outcome.FAIL, "SessionMoved", 0.004
    elif dice.random() < 0.01:
        outcome, error = Outcome.FAIL, dice.choice(("BadVersion", "NoNode", "NodeExists"))
    # A session that moved was refused by the server alone, without the quorum, so without a zxid.
    zxid = None if outcome is Outcome.INFO or error == "SessionMoved" else 0x2_0000_0000 + index
    return Complete(process, index, at(call + latency), outcome, session, index, server, zxid, error=error)


def sessions(*, clients: int = 8) -> Iterator[SessionEvent]:
    """Every client connects; those on the dying switch lose their connection for a while."""
    for client in range(clients):
        process, session = f"c{1 + client % 2}.{client}", 0x1000_0000 + client
        yield SessionEvent(process, at(-0.3), SessionState.CONNECTED, session, "10.77.1.1:2181")
        if client % 2 == 0:
            yield SessionEvent(process, at(3.9 + client / 10), SessionState.SUSPENDED, session)
            yield SessionEvent(process, at(6.4 + client * 0.15), SessionState.CONNECTED, session, "10.77.2.2:2181")


# --- events -------------------------------------------------------------------------------------------------------


def phases(*, seconds: float = 18.0) -> list[Event]:
    """A run that went through all of them."""
    return [
        Phase(at(-3.4), "bring-up", "3 servers, 2 switches"),
        Phase(at(0), "load", "8 clients"),
        Phase(at(seconds), "quiesce"),
        Phase(at(seconds + 0.6), "collect"),
        Phase(at(seconds + 1.1), "done"),
    ]


def samples(*, seconds: float = 18.0) -> list[Event]:
    """Servers that elect a new leader when the switch dies."""
    events: list[Event] = []
    for tick in range(int((seconds + 1.6) * 10)):
        now = tick / 10 - 1.0
        for server in (1, 2, 3):
            role = "leader" if server == 3 else "follower"
            if 3.4 <= now < 4.9 - server / 10:
                role = "looking"
            elif now >= 4.5:
                role = "leader" if server == 2 else "follower"
            shares = (3, 3, 2) if now < 3.9 else (4, 1, 0) if now < 6.5 else (4, 2, 2)
            connections = shares[server - 1]
            events.append(Sample(at(now), server, role, 0x2_0000_0000 + tick, connections))
    return events


def paths(*, healthy: bool) -> tuple[Measurement, ...]:
    """Every pair of hosts over both switches, as a probe measures them."""
    pairs = [(a, b) for a in ("zk1", "zk2", "zk3") for b in ("zk1", "zk2", "zk3", "c1", "c2") if a < b or b[0] == "c"]
    alive = [Measurement(f"{a}>{b} over net2", "0.06 ms", True) for a, b in pairs]
    if healthy:
        return (*(Measurement(f"{a}>{b} over net1", "0.05 ms", True) for a, b in pairs), *alive)
    return (*(Measurement(f"{a}>{b} over net1", "no answer in 200 ms", False) for a, b in pairs), *alive)


def switch_down(
    *, start: float = 3.0, end: float | None = 11.0, fault_id: int = 0, switch: str = "net1"
) -> list[Event]:
    """A switch that dies, with its proofs; never healed where `end` is None."""
    events: list[Event] = [
        ProbeEvent(at(start - 0.1), fault_id, "before", False, f"{switch} carries 9 of 9 paths", paths(healthy=True)),
        FaultEvent(at(start), fault_id, FaultAction.INJECT, "switch-down", switch),
        FaultEvent(at(start + 0.0008), fault_id, FaultAction.INJECTED, "switch-down", switch),
        ProbeEvent(at(start + 0.3), fault_id, "during", True, f"{switch} carries 0 of 9 paths", paths(healthy=False)),
    ]
    if end is not None:
        events += [
            FaultEvent(at(end), fault_id, FaultAction.HEAL, "switch-down", switch),
            FaultEvent(at(end + 0.0009), fault_id, FaultAction.HEALED, "switch-down", switch),
            ProbeEvent(at(end + 0.2), fault_id, "after", False, f"{switch} carries 9 of 9 paths", paths(healthy=True)),
        ]
    return events


def starts() -> list[Event]:
    """The servers' processes."""
    return [ProcessEvent(at(-3.2), server, "started", pid=4000 + server) for server in (1, 2, 3)]


# --- verdicts -----------------------------------------------------------------------------------------------------


def verdicts() -> tuple[Verdict, ...]:
    """All six guarantees, kept."""
    return (
        Verdict(
            "linearizable-writes",
            "Writes are linearizable: they take effect in one order that agrees with real time",
            Finding.VALID,
            "1,731 acknowledged writes took effect in the order of their zxids, which agrees with real time.",
            figures=(Figure("writes", 1731, ""), Figure("znodes", 16, "")),
            claims=("NR-09",),
        ),
        Verdict(
            "session-order",
            "A session sees its own writes and never goes back in time",
            Finding.VALID,
            "8 sessions read 1,752 times; no read was older than what its session had seen.",
            figures=(Figure("sessions", 8, ""), Figure("reads", 1752, "")),
        ),
        Verdict(
            "durability",
            "no acknowledged write is lost",
            Finding.VALID,
            "Every acknowledged write is in the transaction log of every server.",
            figures=(
                Figure("acknowledged writes", 1731, ""),
                Figure("lost replies", 78, ""),
                Figure("of them applied", 31, ""),
                Figure("of them not applied", 47, ""),
            ),
            claims=("SE-01", "RC-20"),
        ),
        Verdict(
            "agreement",
            "After healing, all servers hold the same data",
            Finding.VALID,
            "3 servers gave the same value and version for all 16 znodes.",
            figures=(Figure("servers", 3, ""), Figure("znodes", 16, "")),
        ),
        Verdict(
            "recovery",
            "The service recovers within 10 s of each fault",
            Finding.VALID,
            "After switch-down net1, writes stopped for 2.1 s; all 8 clients were back after 4.3 s.",
            figures=(Figure("write outage", 2.1, "s"), Figure("all clients back", 4.3, "s"), Figure("budget", 10, "s")),
            claims=("NR-01",),
            notes=("Without multi-address the same fault is predicted to stop the service (NR-11).",),
        ),
        Verdict(
            "faults-proved",
            "Every fault was seen to bite and seen to be healed",
            Finding.VALID,
            "1 of 1 faults was proved before, during and after.",
            figures=(Figure("faults", 1, ""),),
        ),
    )


def lost_write() -> Verdict:
    """A violated promise with its witness."""
    return Verdict(
        "durability",
        "no acknowledged write is lost",
        Finding.VIOLATED,
        "The write c1.4#812 was acknowledged with zxid 0x20000032c, but no server has it.",
        witnesses=(
            Witness("c1.4#812 set /r/3 = v812, called at 4.060 s", at(4.06), at(5.31), "c1.4#812"),
            Witness("the reply had zxid 0x20000032c and version 41, from 10.77.1.3:2181 (zk3)", at(5.31), at(5.31)),
            Witness("after healing, zk1 reads /r/3 = v797 (mzxid 0x20000031d, version 40)", at(18.7), at(18.7)),
            Witness("no transaction log has 0x20000032c: zk1 goes on from 0x20000032b to 0x300000001"),
        ),
        figures=(Figure("acknowledged writes", 1731, ""), Figure("lost writes", 1, "")),
        claims=("SE-01", "RC-20"),
    )


def with_verdicts(*changed: Verdict, broken: tuple[str, ...] = ()) -> Judgement:
    """The valid judgement with some verdicts replaced."""
    by_name = {v.guarantee: v for v in (*verdicts(), *changed)}
    every = tuple(by_name.values())
    return Judgement(combine(every, broken), every, broken, "0.1.0")


# --- whole folders ------------------------------------------------------------------------------------------------


def log_text(server: int) -> str:
    """A server's log, in the layout of ZooKeeper's own logback configuration."""
    peer = f"QuorumPeer[myid={server}](plain=0.0.0.0:2181)"
    lines = (
        ("01,220", "INFO ", "main:QuorumPeerMain@185", f"Starting quorum peer, myid={server}"),
        ("02,101", "INFO ", f"{peer}:QuorumPeer@1441", "LOOKING"),
        ("02,480", "INFO ", f"{peer}:QuorumPeer@1549", "LEADING"),
        ("02,512", "INFO ", f"{peer}:Leader@620", "LEADING - LEADER ELECTION TOOK - 31 MS"),
        ("03,000", "INFO ", "NIOWorkerThread-1:ZooKeeperServer@1127", "nothing that matters"),
        ("06,912", "WARN ", "LearnerHandler-/10.77.1.1:41822:LearnerHandler@713", "GOODBYE /10.77.1.1:41822"),
        ("07,010", "ERROR", "LearnerHandler-/10.77.1.2:41824:LearnerHandler@715", "Unexpected exception"),
        ("07,050", "INFO ", f"{peer}:QuorumPeer@1441", "LOOKING"),
        *(
            (f"07,9{n}0", "WARN ", "WorkerSender:QuorumCnxManager@401", f"Cannot open channel to {n}")
            for n in (1, 2, 3)
        ),
        ("08,402", "INFO ", f"{peer}:QuorumPeer@1531", "FOLLOWING"),
    )
    text = "".join(
        f"2025-11-22 10:15:{when} [myid:{server}] - {level} [{where}] - {what}\n" for when, level, where, what in lines
    )
    return text.replace(
        "Unexpected exception\n", "Unexpected exception\njava.io.IOException: closed\n\tat java.base/Net\n"
    )


def write(
    root: Path,
    judgement: Judgement,
    *,
    what: Scenario | None = None,
    machine: Environment | None = None,
    events: list[Event],
    clients: list[Invoke | Complete | SessionEvent],
) -> Run:
    """Write a run folder: clients' records into one file a host."""
    folder = RunFolder.create(root)
    folder.write_json(folder.scenario_file, what or scenario())
    if machine:
        folder.write_json(folder.environment_file, machine)
    folder.write_json(folder.verdicts_file, judgement)
    _lines(folder.events_file, sorted(events, key=lambda e: e.at))
    by_host: dict[str, list[Invoke | Complete | SessionEvent]] = {}
    for record in clients:
        by_host.setdefault(record.process.split(".")[0], []).append(record)
    for host, records in by_host.items():
        _lines(folder.clients_folder / f"{host}.jsonl", sorted(records, key=lambda r: r.at))
    for server in (1, 2, 3):
        folder.server(server).create()
        (folder.server(server).logs / "server.log").write_text(log_text(server))
        (folder.server(server).config / "zoo.cfg").write_text("tickTime=500\ninitLimit=10\n")
    return Run(folder, judgement)


def _lines(path: Path, records: list[Event] | list[Invoke | Complete | SessionEvent]) -> None:
    writer = LineWriter(path)
    writer.write(*records)
    writer.close()


def valid_run(root: Path) -> Run:
    """A switch of two dies, and every promise is kept."""
    return write(
        root,
        with_verdicts(),
        machine=environment(),
        events=[*phases(), *starts(), *samples(), *switch_down()],
        clients=[*operations(), *sessions()],
    )


def violated_run(root: Path) -> Run:
    """The same, but an acknowledged write is lost."""
    return write(
        root,
        with_verdicts(lost_write()),
        machine=environment(),
        events=[*phases(), *starts(), *samples(), *switch_down()],
        clients=[*operations(), *sessions()],
    )


def broken_run(root: Path) -> Run:
    """The harness could not heal the fault, and stopped there."""
    reason = "switch-down net1 could not be healed: the agent answered 'no device'"
    events = [
        *phases()[:2],
        *starts(),
        *(e for e in samples() if e.at < at(11)),
        *switch_down(end=None),
        FaultEvent(at(11.02), 0, FaultAction.FAILED, "switch-down", "net1", detail="the agent answered 'no device'"),
        Note(at(11.02), reason, broken=True),
        Phase(at(11.1), "aborted", reason),
    ]
    unknown = Verdict(
        "agreement", "After healing, all servers hold the same data", Finding.UNKNOWN, "No final reads were taken."
    )
    records = [r for r in (*operations(), *sessions()) if r.at < at(11.0)]
    return write(root, with_verdicts(unknown, broken=(reason,)), machine=environment(), events=events, clients=records)


def empty_run(root: Path) -> Run:
    """Nothing but scenario.json: the run ended before anything was done."""
    folder = RunFolder.create(root)
    folder.write_json(folder.scenario_file, scenario())
    return Run(folder, Judgement(Overall.UNKNOWN, ()))


def big_run(root: Path, *, number: int = 100_000, seconds: float = 600.0) -> Run:
    """Many operations over a long time."""
    return write(
        root,
        with_verdicts(),
        machine=environment(),
        events=[*phases(seconds=seconds), *starts(), *samples(seconds=seconds), *switch_down(start=100.0, end=160.0)],
        clients=[*operations(number=number, seconds=seconds, outage=(100.0, 102.1)), *sessions()],
    )

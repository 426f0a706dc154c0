"""How long it takes from the command to a quorum: three servers on two networks, beside a bare JVM, in one run.

    python benchmarks/bring_up.py [--rounds 5] [--topology dual-net]

Each round builds a fresh testbed and ensemble in a fresh run folder. The figures:

* bare JVM: `java -version` with the same flags, the least that any server costs;
* to quorum: from the call that builds everything (namespaces, NICs, configuration, servers) until one server leads and
  a majority serves. The agent was started ahead, as `zkchaos run` and the pytest plugin do while they load;
* to all: until every server serves;
* cold: to quorum, with the start of the agent in it;
* command: from the start of a `zkchaos run` process to the quorum, Python and its imports included;
* ratio: to quorum / bare JVM, pair by pair, which holds on a machine of another speed.

Where a Docker engine answers, the same topology is brought up there too, as the `docker` testbed does it and as
`docker compose up --wait` does it with the file of `zkchaos compose` (its figures end when every server serves).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.compose_project import ComposeProject
from harness.errors import EnvironmentLacking
from harness.history.folder import RunFolder
from harness.history.records import Phase
from harness.history.scenario import LoadSpec, Scenario
from harness.run import Run
from harness.scenario import now_text
from harness.stage.namespaces import Software
from harness.testbed.client import give_back, take_agent
from harness.testbed.engine import connect_engine
from harness.topology.loader import load_topology
from harness.topology.model import Topology
from harness.zookeeper.java import JVM_FLAGS, find_java


def bare_jvm() -> float:
    """Seconds that `java -version` takes."""
    command = [str(find_java().executable), *JVM_FLAGS, "-version"]
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start


@dataclass(frozen=True)
class BringUp:
    """Seconds from the call."""

    to_quorum: float
    to_all: float


def ensemble(topology: Topology, root: Path, *, warm: bool, testbed: str = "namespaces") -> BringUp:
    """Bring up a new ensemble and take it down again."""
    scenario = Scenario(
        name="bring-up",
        topology=topology.name,
        topology_source=topology.source,
        plan="",
        plan_source="",
        seed=0,
        duration_s=0.0,
        load=LoadSpec(),
        repeat="python benchmarks/bring_up.py",
        started=now_text(),
        testbed=testbed,
    )
    if warm:
        agent = take_agent()
        agent.wait_ready()
        give_back(agent)
    start = time.monotonic()
    with Run(scenario, topology, root, with_load=False) as run:
        ready = time.monotonic()
        return BringUp(run.ensemble.quorum_at - start, ready - start)


def command(topology: Topology, runs: Path) -> float:
    """Seconds from the start of a `zkchaos` process to the quorum that it brings up."""
    words = ["run", "no-faults", "--topology", topology.name, "--runs", str(runs)]
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "harness.cli", *words], check=True, capture_output=True)
    events = RunFolder.open(runs / "latest").events()
    quorum = next(e.at for e in events if isinstance(e, Phase) and e.name == "quorum")
    return quorum / 1e9 - start


def compose(topology: Topology) -> float:
    """Seconds until `docker compose up --wait` has every server healthy; all is removed again."""
    with contextlib.closing(connect_engine()) as engine:
        project = ComposeProject(topology.name, engine)
        start = time.monotonic()
        try:
            project.up(topology, lambda _line: None)
            return time.monotonic() - start
        finally:
            project.down()


def engine_lacks(topology: Topology, scratch: Path) -> str:
    """Why nothing can be measured on a Docker engine; empty where it can. Downloads and makes what is needed, once."""
    try:
        compose(topology)
        ensemble(topology, scratch, warm=True, testbed="docker")
    except EnvironmentLacking as lacking:
        return str(lacking)
    return ""


def row(name: str, values: list[float], unit: str) -> str:
    """Minimum, median and maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{name:28} {low:8.3f} {middle:8.3f} {high:8.3f} {unit}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--topology", default="dual-net")
    arguments = parser.parse_args()
    topology = load_topology(arguments.topology)
    Software(topology, print)  # downloads and the class-data archive, once per machine
    jvm, warm, cold, commands, docker, composed = [], [], [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        lacks = engine_lacks(topology, Path(scratch) / "engine")
        for number in range(arguments.rounds):
            jvm.append(bare_jvm())
            warm.append(ensemble(topology, Path(scratch) / f"warm{number}", warm=True))
            cold.append(ensemble(topology, Path(scratch) / f"cold{number}", warm=False))
            commands.append(command(topology, Path(scratch) / f"command{number}"))
            if not lacks:
                docker.append(ensemble(topology, Path(scratch) / f"docker{number}", warm=True, testbed="docker"))
                composed.append(compose(topology))
    java = find_java()
    print(f"{len(topology.servers)} servers, {len(topology.switches)} networks; Java {java.version_line}")
    print(f"{'':28} {'min':>8} {'median':>8} {'max':>8}")
    print(row("bare JVM", jvm, "s"))
    print(row("to quorum", [w.to_quorum for w in warm], "s"))
    print(row("to all", [w.to_all for w in warm], "s"))
    print(row("cold, to quorum", [c.to_quorum for c in cold], "s"))
    print(row("command, to quorum", commands, "s"))
    if lacks:
        print(f"on Docker: not measured: {lacks}")
    else:
        print(row("docker testbed, to quorum", [d.to_quorum for d in docker], "s"))
        print(row("docker testbed, to all", [d.to_all for d in docker], "s"))
        print(row("docker compose up --wait", composed, "s"))
        print(row("docker testbed / namespaces", [d.to_all / w.to_all for d, w in zip(docker, warm, strict=True)], "x"))
        print(row("compose / namespaces", [c / w.to_all for c, w in zip(composed, warm, strict=True)], "x"))
    print(row("ratio to bare JVM", [w.to_quorum / j for w, j in zip(warm, jvm, strict=True)], "x"))


if __name__ == "__main__":
    main()

"""How long it takes from the command to a quorum: three servers on two networks, beside a bare JVM, in one run.

    python benchmarks/bring_up.py [--rounds 5] [--topology dual-net]

Each round builds a fresh testbed and ensemble in a fresh run folder. Three figures are printed:

* bare JVM: `java -version` with the same flags, the least that any server costs;
* ensemble: from the call that starts everything (agent, namespaces, NICs, servers) until every server serves;
* ratio: ensemble / bare JVM, pair by pair, which holds on a machine of another speed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness.history.scenario import LoadSpec, Scenario
from harness.run import Run, Software
from harness.scenario import now_text
from harness.topology.loader import load_topology
from harness.topology.model import Topology
from harness.zookeeper.java import JVM_FLAGS, find_java


def bare_jvm() -> float:
    """Seconds that `java -version` takes."""
    command = [str(find_java().executable), *JVM_FLAGS, "-version"]
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start


def ensemble(topology: Topology, root: Path) -> float:
    """Seconds until every server of a new ensemble serves."""
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
    )
    start = time.monotonic()
    with Run(scenario, topology, root, with_load=False):
        return time.monotonic() - start


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
    jvm, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(arguments.rounds):
            jvm.append(bare_jvm())
            whole.append(ensemble(topology, Path(scratch) / str(number)))
    java = find_java()
    print(f"{len(topology.servers)} servers, {len(topology.switches)} networks; Java {java.version_line}")
    print(f"{'':28} {'min':>8} {'median':>8} {'max':>8}")
    print(row("bare JVM", jvm, "s"))
    print(row("ensemble to quorum", whole, "s"))
    print(row("ratio", [w / j for w, j in zip(whole, jvm, strict=True)], "x"))


if __name__ == "__main__":
    main()

"""How long it takes to judge a run: reading its folder and checking every guarantee, in one fresh process each.

    python benchmarks/check.py [--rounds 5] [RUN ...]

Two made-up histories, with transaction logs of three servers, lost replies and a fault:

* 60 s at 200 operations/s of 8 clients, the usual run;
* 100,000 operations: 50 s at 2,000/s of 30 clients.

and any recorded run folders. The figures are the median and the best of the rounds: `load` (decoding client records
and events, joining them, reading and checksumming three transaction logs), `check` (merging the logs, replaying them,
all six guarantees), and both together; `cpu` is the processor time of both, which a busy machine inflates less.
Besides, how fast a transaction log is read, first and as a replica.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.check.evidence import load_evidence
from harness.check.judge import judge
from harness.check.synthetic import SyntheticRun, write_run
from harness.history.folder import RunFolder
from harness.zookeeper.txnlog import Replicas, read_logs

USUAL = SyntheticRun(rate=200, duration=60, clients=8)
LARGE = SyntheticRun(rate=2060, duration=50, clients=30)


@dataclass(frozen=True)
class Timing:
    """One judgement: seconds, and what was judged."""

    load: float
    check: float
    cpu: float
    operations: int
    transactions: int
    overall: str


def judge_once(root: Path) -> Timing:
    """Load and judge a run folder in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    evidence = load_evidence(RunFolder.open(root))
    loaded = time.perf_counter()
    judgement = judge(evidence)
    judged = time.perf_counter()
    return Timing(
        loaded - start,
        judged - loaded,
        time.process_time() - cpu,
        len(evidence.operations),
        len(evidence.committed.txns),
        judgement.overall.value,
    )


def in_a_fresh_process(root: Path) -> Timing:
    """The same in a process of its own, so that no round profits from the one before."""
    command = [sys.executable, __file__, "--once", str(root)]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Timing(float(words[0]), float(words[1]), float(words[2]), int(words[3]), int(words[4]), words[5])


def report(name: str, root: Path, rounds: int) -> None:
    """Judge a folder several times, and print the figures."""
    timings = [in_a_fresh_process(root) for _ in range(rounds)]
    one = timings[0]
    print(f"{name}: {one.operations:,} operations, {one.transactions:,} transactions, verdict {one.overall}")
    for part, seconds in (
        ("load", [t.load for t in timings]),
        ("check", [t.check for t in timings]),
        ("both", [t.load + t.check for t in timings]),
        ("cpu", [t.cpu for t in timings]),
    ):
        print(f"  {part:6} median {statistics.median(seconds):.3f} s   best {min(seconds):.3f} s")
    print(f"  {one.operations / statistics.median(t.load + t.check for t in timings):,.0f} operations/s")


def report_reader(root: Path, rounds: int) -> None:
    """How fast the logs of a folder are read: the first one, and its replicas."""
    folder = RunFolder.open(root)
    first: list[float] = []
    replica: list[float] = []
    for _ in range(rounds):
        replicas = Replicas()
        start = time.perf_counter()
        count = len(read_logs(folder.server(2).txnlog, replicas).txns)
        middle = time.perf_counter()
        read_logs(folder.server(3).txnlog, replicas)
        end = time.perf_counter()
        first.append(count / (middle - start))
        replica.append(count / (end - middle))
    print(
        f"transaction log: {statistics.median(first):,.0f} transactions/s (best {max(first):,.0f}), "
        f"as a replica {statistics.median(replica):,.0f}/s"
    )


def main() -> None:
    """Parse the command line, and measure."""
    parser = argparse.ArgumentParser(description="How long it takes to judge a run.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("runs", type=Path, nargs="*", help="recorded run folders to judge besides")
    options = parser.parse_args()
    if options.once is not None:
        timing = judge_once(options.once)
        print(timing.load, timing.check, timing.cpu, timing.operations, timing.transactions, timing.overall)
        return
    with tempfile.TemporaryDirectory() as name:
        usual = write_run(Path(name) / "usual", USUAL).root
        large = write_run(Path(name) / "large", LARGE).root
        report("usual run", usual, options.rounds)
        report("large history", large, options.rounds)
        report_reader(large, options.rounds)
    for root in options.runs:
        report(str(root), root, options.rounds)


if __name__ == "__main__":
    main()

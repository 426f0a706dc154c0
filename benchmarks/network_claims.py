"""Puts what ZooKeeper promises of networks (NR-01 to NR-11) to the test, and writes docs/network-claims.md.

::

    python benchmarks/network_claims.py docs/network-claims.md
    python benchmarks/network_claims.py            (to the terminal)

Every scenario is a command that anybody can repeat; each has a process of its own, one after the other. Those that need
netem are performed in a user-mode kernel. Takes about twelve minutes; nothing else should run beside it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.check.evidence import Evidence, load_evidence
from harness.check.recovery import measure
from harness.check.verdict import Finding, Judgement, Overall, load_judgement
from harness.errors import ZkChaosError
from harness.history.folder import RunFolder, run_folders

ROOT = Path(__file__).parents[1]
#: Judges of what must hold whatever path a message took.
SAFETY = ("linearizable-writes", "session-order", "durability", "agreement")
#: A run takes half a minute; a kernel that boots first, on a busy machine, longer.
TIMEOUT_S = 600
#: The scenario that is a test, because no plan changes addresses.
TEST = "tests/chaos/test_network_claims.py::test_addresses_are_changed_while_a_switch_is_down"


@dataclass(frozen=True)
class Scenario:
    """One scenario, and what it shows of which claim."""

    claim: str
    what: str
    words: tuple[str, ...]


def run(claim: str, what: str, *words: str) -> Scenario:
    """`zkchaos run` with these words."""
    return Scenario(claim, what, ("run", *words))


INSIDE = ("--kernel", "usermode")
SCENARIOS = (
    run("NR-01", "the first of two switches dies", "switch-failure"),
    run("NR-01", "the second of two switches dies", "second-switch-failure"),
    run("NR-01", "one switch, then the other", "both-switches-in-turn"),
    run("NR-01", "the same under five servers", "switch-failure", "--topology", "dual-net-five"),
    run("NR-02", "the switch that all servers have dies", "switch-failure", "--topology", "uneven-addresses"),
    run("NR-02", "the switch that one server lacks dies", "second-switch-failure", "--topology", "uneven-addresses"),
    run("NR-03", "one cable of the leader is cut", "link-failure"),
    run("NR-03", "one NIC of the leader is set down", "nic-down"),
    run("NR-03", "one cable of a follower comes and goes", "link-flapping"),
    run("NR-04", "some lose the first switch, others the second", "different-switches"),
    run("NR-04", "the first switch falls into two islands", "switch-split"),
    run("NR-05", "both switches flap", "both-switches-flap"),
    run("NR-05", "one switch flaps", "switch-flapping"),
    run("NR-06", "a switch that is 200 ms late beside a good one", "slow-switch", *INSIDE),
    run("NR-06", "a switch that loses 10 % beside a good one", "lossy-switch"),
    run("NR-07", "half of what the leader sends on one network is lost", "one-way-loss"),
    run("NR-08", "the quorum port is blocked on one network", "quorum-port-blocked"),
    Scenario("NR-10", "addresses removed, replaced and added while a switch is down", ("pytest", TEST)),
    run("NR-11", "the only switch dies", "control-switch-failure"),
    run(
        "NR-11",
        "one of two switches dies, one address per server",
        *("control-switch-failure", "--topology", "dual-net", "--single-address"),
    ),
)
PROMISES = {
    "NR-01": "one dead switch of two does not stop the ensemble",
    "NR-02": "servers with one and with two addresses in one ensemble",
    "NR-03": "any single NIC, link or cable",
    "NR-04": "different switches for different hosts at the same time",
    "NR-05": "flapping switches",
    "NR-06": "a slow and a lossy switch beside a good one",
    "NR-07": "loss in one direction",
    "NR-08": "the quorum port blocked while ping passes",
    "NR-09": "order and completeness, whatever path carried the messages",
    "NR-10": "addresses changed by reconfig while a switch is down",
    "NR-11": "without a second address the same faults stop the service",
}


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    scenario: Scenario
    judgement: Judgement | None
    #: What the run was told to do again.
    repeat: str = ""
    kernel: str = ""
    outage_s: float = 0.0
    recovery_s: float = 0.0
    heal_s: float = 0.0
    #: Where it differs from what was promised, a sentence each.
    differs: tuple[str, ...] = field(default=())


def main() -> None:
    """Perform everything, and write it down."""
    with tempfile.TemporaryDirectory(prefix="claims") as place:
        outcomes = [_perform(scenario, Path(place, str(n))) for n, scenario in enumerate(SCENARIOS)]
    text = "\n".join(_document(outcomes)) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def _perform(scenario: Scenario, runs: Path) -> Outcome:
    runs.mkdir()
    print(f"{scenario.claim}  {scenario.what}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            _command(scenario, runs), cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        folder = next(iter(run_folders(runs)))
        return _outcome(scenario, folder)
    except (StopIteration, ZkChaosError) as problem:
        return Outcome(scenario, None, differs=(str(problem) or done.stderr.strip()[-300:],))
    except subprocess.TimeoutExpired:
        return Outcome(scenario, None, differs=(f"it had not ended after {TIMEOUT_S} s",))


def _command(scenario: Scenario, runs: Path) -> list[str]:
    if scenario.words[0] == "pytest":
        quiet = ("-q", "-p", "no:cacheprovider")
        return [sys.executable, "-m", "pytest", *quiet, scenario.words[1], "--zkchaos-runs", str(runs)]
    program = "from harness.cli import main; main()"
    return [sys.executable, "-c", program, *scenario.words, "--seed", "1", "--runs", str(runs)]


def _outcome(scenario: Scenario, folder: RunFolder) -> Outcome:
    evidence, judgement = load_evidence(folder), load_judgement(folder)
    recoveries = measure(evidence)
    return Outcome(
        scenario,
        judgement,
        repeat=folder.scenario().repeat,
        kernel=folder.environment().kernel.removeprefix("Linux "),
        outage_s=max((r.write_outage_s for r in recoveries), default=0.0),
        recovery_s=max((r.recovery_s for r in recoveries), default=0.0),
        heal_s=max((r.heal_s for r in recoveries), default=0.0),
        differs=_differences(evidence, judgement),
    )


def _differences(evidence: Evidence, judgement: Judgement) -> tuple[str, ...]:
    found = [f"{v.guarantee}: {v.summary}" for v in judgement.verdicts if v.finding is not Finding.VALID]
    if evidence.scenario.recovery_within_s is None:
        found.append("no recovery is promised while it lasts")
    return (*judgement.broken, *found)


def _document(outcomes: list[Outcome]) -> Iterator[str]:
    yield "# What ZooKeeper promises of networks, and what came of it"
    yield ""
    yield f"Written by `benchmarks/network_claims.py` on {os.cpu_count()} processors, Linux {platform.release()}."
    yield "Times are the worst of a run: how long no write at all was answered; when the last client that a fault"
    yield "disturbed was served again, from the injection; and the same of those that the healing disturbed, from it."
    yield ""
    yield "| claim | scenario | verdict | writes stopped | clients back | after healing |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for claim in PROMISES:
        if claim == "NR-09":
            yield _safety(outcomes)
        yield from (_row(outcome) for outcome in outcomes if outcome.scenario.claim == claim)
    yield from ("", "## The claims", "")
    yield from (f"* {claim}: {promise}" for claim, promise in PROMISES.items())
    yield from ("", "## How to repeat each", "")
    for outcome in outcomes:
        kernel = f" (Linux {outcome.kernel})" if "usermode" in outcome.scenario.words else ""
        yield f"* {outcome.scenario.claim}, {outcome.scenario.what}{kernel}: `{_again(outcome)}`"
    yield from ("", "## Where it differs from what was promised", "")
    differing = [(outcome.scenario, text) for outcome in outcomes for text in outcome.differs]
    yield from (f"* {scenario.claim}, {scenario.what}: {text}" for scenario, text in differing)
    if not differing:
        yield "Nowhere."


def _again(outcome: Outcome) -> str:
    if outcome.scenario.words[0] == "pytest":
        return " ".join(outcome.scenario.words)
    return outcome.repeat or f"zkchaos {' '.join(outcome.scenario.words)} --seed 1"


def _row(outcome: Outcome) -> str:
    name = f"| {outcome.scenario.claim} | {outcome.scenario.what} |"
    if outcome.judgement is None:
        return f"{name} {Overall.BROKEN.value} | | | |"
    times = (outcome.outage_s, outcome.recovery_s, outcome.heal_s)
    stopped = any(v.guarantee == "expectation" and "stopped" in v.summary for v in outcome.judgement.verdicts)
    verdict = outcome.judgement.overall.value + (", it stopped" if stopped else "")
    return f"{name} {verdict} | {' | '.join(f'{seconds:.2f} s' for seconds in times)} |"


def _safety(outcomes: list[Outcome]) -> str:
    """One row of all runs: what must hold whatever happens to the network."""
    verdicts = [v for o in outcomes if o.judgement for v in o.judgement.verdicts if v.guarantee in SAFETY]
    runs = sum(1 for outcome in outcomes if outcome.judgement)
    kept = all(v.finding is Finding.VALID for v in verdicts) and runs == len(outcomes)
    return f"| NR-09 | all {runs} runs: {', '.join(SAFETY)} | {'valid' if kept else 'not all valid'} | | | |"


if __name__ == "__main__":
    main()

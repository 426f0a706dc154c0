"""Nothing may outlive a run, and nothing of the host may change: not after a good end, not after SIGKILL."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.command_line import living
from tests.integration.conftest import command

pytestmark = pytest.mark.alone

#: Moments at which a run is killed, seconds after its start: from the first import to the middle of the load.
KILLS = 50
LATEST_KILL_S = 4.0


def host_state() -> dict[str, str]:
    """Everything of the host's network that a testbed could spoil."""
    # A network namespace lives as long as a process in it (see `living`), a name or a mount of it.
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    # An engine's containers come and go, whoever's they are; their mounts are at EXEC-ROOT/netns.
    ours = [line for line in mounts if " nsfs " in line and not re.search(r"/(exec|docker)/netns/", line)]
    state = {"mounts": "\n".join(ours)}
    for name, arguments in {
        "links": [command("ip"), "-o", "-d", "link"],
        "addresses": [command("ip"), "-o", "address"],
        "routes": [command("ip"), "route", "show", "table", "all"],
        "rules": [command("ip"), "rule"],
        "namespaces": [command("ip"), "netns", "list"],
        "qdiscs": [command("tc"), "qdisc", "show"],
        "nftables": [command("nft"), "list", "ruleset"],
        "sysctls": [command("sysctl"), "-a", "--pattern", r"^net\."],
    }.items():
        text = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30).stdout
        # counters and ages go on by themselves
        words = (
            "valid_lft",
            "conntrack_count",
            "tcp_mem",
            "udp_mem",
            "random",
            "_max_entries",
            "nf_conntrack_",
            "age ",
        )
        state[name] = "\n".join(line for line in text.splitlines() if not any(word in line for word in words))
    return state


def wait_until_none(marker: str) -> None:
    deadline = time.monotonic() + 10
    while left := living(marker):
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.02)


def begin(tmp_path: Path, number: int, marker: str) -> subprocess.Popen[bytes]:
    words = ["run", "switch-failure", "--seed", str(number), "--runs", str(tmp_path / f"runs{number}")]
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *words],
        env={**os.environ, "ZKCHAOS_LEAK_TEST": marker},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.timeout(600)
def test_nothing_is_left_after_sigkill_at_random_moments(namespaces_allowed: None, java: None, tmp_path: Path) -> None:
    before = host_state()
    moments = random.Random(20)
    for number in range(KILLS):
        marker = f"leak-{os.getpid()}-{number}"
        process = begin(tmp_path, number, marker)
        time.sleep(moments.uniform(0.0, LATEST_KILL_S))  # the random moment itself, not a wait for a condition
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until_none(f"ZKCHAOS_LEAK_TEST={marker}")
    assert host_state() == before


@pytest.mark.parametrize("victim", ["zkchaos-agent", "zkchaos-launch"])
def test_nothing_is_left_when_the_agent_itself_is_killed(
    namespaces_allowed: None, java: None, tmp_path: Path, victim: str
) -> None:
    marker = f"agent-{os.getpid()}-{victim}"
    process = begin(tmp_path, 0, marker)
    deadline = time.monotonic() + 60
    events = tmp_path / "runs0" / "latest" / "events.jsonl"
    while not (events.exists() and '"load"' in events.read_text()):  # an agent that dies before is replaced
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _is(p, victim, marker)]
    os.kill(int(found[0].name), signal.SIGKILL)
    assert process.wait(timeout=60) == 3  # broken, not a traceback
    wait_until_none(f"ZKCHAOS_LEAK_TEST={marker}")


def _is(folder: Path, name: str, marker: str) -> bool:
    try:
        return (folder / "comm").read_text().strip() == name and marker.encode() in (folder / "environ").read_bytes()
    except OSError:
        return False


def test_the_host_is_the_same_after_a_good_run(namespaces_allowed: None, java: None, tmp_path: Path) -> None:
    before = host_state()
    marker = f"good-{os.getpid()}"
    process = begin(tmp_path, 1, marker)
    assert process.wait(timeout=90) == 0
    wait_until_none(f"ZKCHAOS_LEAK_TEST={marker}")
    assert host_state() == before

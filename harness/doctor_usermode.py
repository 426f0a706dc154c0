"""Whether packets can be delayed and lost here: by this machine's own kernel, or by a user-mode one. Both are tried."""

from __future__ import annotations

import os
import subprocess
import sys

from harness.doctor_finding import CapabilityFinding
from harness.errors import ZkChaosError
from harness.usermode import machine
from harness.usermode.supervision import make_order, run_in_guest

NETEM = "netem"
#: How long each may take, seconds; a kernel boots in two.
_TRY_S = 30
_BOOT_S = 60.0
#: Done by a process of its own, in a network namespace of its own, which ends with it.
_TRY = """
import os
from harness.testbed import kernel
kernel.unshare(kernel.CLONE_NEWNET | (kernel.CLONE_NEWUSER if os.geteuid() else 0))
from pyroute2 import IPRoute
with IPRoute() as route:
    route.tc("add", "netem", index=1, handle="1:", delay=1000)
"""


def examine_usermode() -> list[CapabilityFinding]:
    """Neither is needed for a run whose faults are links, switches and processes."""
    if machine.inside():
        here = CapabilityFinding(machine.WHERE, True, (), f"this is one: Linux {os.uname().release}")
        return [_netem(), here]
    return [_netem(), _usermode()]


def _netem() -> CapabilityFinding:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", _TRY],
        env=environ,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=_TRY_S,
        check=False,
    )
    if done.returncode == 0:
        return CapabilityFinding(NETEM, True, (), f"in this machine's kernel, {os.uname().release}")
    why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["refused"]
    return CapabilityFinding(
        NETEM,
        False,
        (),
        f"not in this machine's kernel, {os.uname().release} ({why[0][-60:]})",
        "faults of packets (delay, loss, ...) need it: `modprobe sch_netem` as root, or --kernel usermode",
    )


def _usermode() -> CapabilityFinding:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        order = make_order(("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"), streams=(null, null))
        outcome = run_in_guest(order, memory_mb=machine.LEAST_MEMORY_MB, deadline_s=_BOOT_S, streams=(null, null))
    except ZkChaosError as problem:
        found = f"{problem.what}; needed where the machine's own kernel has no {NETEM}"
        return CapabilityFinding(machine.WHERE, False, (), found, problem.next_step)
    finally:
        os.close(null)
    if outcome.code:
        return CapabilityFinding(machine.WHERE, False, (), "it boots, and has no netem", machine.INSTALL)
    found = f"boots in {outcome.boot_s:.1f} s, with {NETEM}: `zkchaos usermode`, `zkchaos run --kernel usermode`"
    return CapabilityFinding(machine.WHERE, True, (), found)

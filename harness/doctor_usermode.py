"""Which faults of the network this machine's own kernel does, and whether a user-mode one is there: both are tried."""

from __future__ import annotations

import contextlib
import os

from harness.doctor_finding import CapabilityFinding
from harness.errors import ZkChaosError
from harness.nemesis.kernel_parts import EFFECTS, OTHER_KERNEL, refused_effects
from harness.testbed import wire
from harness.testbed.client import AgentClient
from harness.usermode import machine
from harness.usermode.supervision import make_order, run_in_guest

#: What the findings are about.
PACKETS, PARTITIONS = "faults of packets", "partitions"
#: How long a kernel may take to boot and to run a command, seconds; it takes two.
_BOOT_S = 60.0


def examine_usermode() -> list[CapabilityFinding]:
    """None of it is needed for a run whose faults are links and processes."""
    here = _own_kernel()
    if machine.inside():
        found = f"this is one: Linux {os.uname().release}"
        return [*here, CapabilityFinding(machine.WHERE, True, (), found)]
    return [*here, _usermode()]


def _own_kernel() -> list[CapabilityFinding]:
    try:
        with contextlib.closing(AgentClient()) as agent:
            lacking = agent.ask(wire.GetLacking(), wire.Lacking).refusals
    except ZkChaosError as problem:
        return [CapabilityFinding(what, False, (), problem.what, problem.next_step) for what in (PACKETS, PARTITIONS)]
    return [_packets(lacking), _partitions(lacking)]


def _packets(lacking: dict[str, str]) -> CapabilityFinding:
    refused = refused_effects(lacking)
    offered = [name for name in EFFECTS if name not in refused]
    found = f"in this machine's kernel, {os.uname().release}: {', '.join(offered) or 'none'}"
    if not refused:
        return CapabilityFinding(PACKETS, True, (), found)
    missing = ", ".join(dict.fromkeys(refused.values()))
    step = f"{OTHER_KERNEL}; or, where it has the module, `modprobe sch_netem` as root"
    return CapabilityFinding(PACKETS, False, (), f"{found}; not {', '.join(refused)}, for want of {missing}", step)


def _partitions(lacking: dict[str, str]) -> CapabilityFinding:
    parts = {"bridge": "dropped", "reject": "rejected"}
    offered = [word for part, word in parts.items() if part not in lacking]
    found = f"in this machine's kernel: {', '.join(offered) or 'none'}"
    return CapabilityFinding(
        PARTITIONS, len(offered) == len(parts), (), found, "" if len(offered) > 1 else OTHER_KERNEL
    )


def _usermode() -> CapabilityFinding:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        order = make_order(("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"), streams=(null, null))
        outcome = run_in_guest(order, memory_mb=machine.LEAST_MEMORY_MB, deadline_s=_BOOT_S, streams=(null, null))
    except ZkChaosError as problem:
        found = f"{problem.what}; needed where the machine's own kernel lacks something"
        return CapabilityFinding(machine.WHERE, False, (), found, problem.next_step)
    finally:
        os.close(null)
    if outcome.code:
        return CapabilityFinding(machine.WHERE, False, (), "it boots, and has no netem", machine.INSTALL)
    found = f"boots in {outcome.boot_s:.1f} s, with netem: `zkchaos usermode`, `zkchaos run --kernel usermode`"
    return CapabilityFinding(machine.WHERE, True, (), found)

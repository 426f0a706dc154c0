"""What faults of the network are made of in the kernel, and how it is told that a kernel has not got it."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import KernelLacking
from harness.nemesis.effects import needs, parse_effects

#: By the names of `Testbed.lacking`.
_PARTS = {
    "netem": "sch_netem",
    "tbf": "sch_tbf",
    "htb": "sch_htb with u32 filters",
    "bridge": "nftables for bridges",
    "numgen": "random numbers in nftables",
    "reject": "packet filter for IPv4 that refuses",
}
#: What to do about it.
OTHER_KERNEL = "`zkchaos run ... --kernel usermode` performs it in a kernel that has it"
#: Each thing that packets may suffer, with an example.
EFFECTS = {
    "rate": "rate 1mbit",
    "loss": "loss 10%",
    "delay": "delay 100ms",
    "jitter": "delay 100ms jitter 10ms normal correlated 25%",
    "loss in bursts": "loss 10% in bursts of 5",
    "duplication": "duplicate 1%",
    "reordering": "delay 10ms, reorder 25%",
    "corruption": "corrupt 0.1%",
}


def kernel_lacking(part: str, lacking: Mapping[str, str], where: str) -> KernelLacking:
    """The error that says so.

    Args:
        part: one of the names in `lacking`.
        lacking: as `Testbed.lacking` says.
        where: the fault.
    """
    return KernelLacking(
        f"this kernel has no {_PARTS[part]}, which the fault is made of",
        where=where,
        cause=f"it says: {lacking[part]}",
        next_step=OTHER_KERNEL,
    )


def refused_effects(lacking: Mapping[str, str]) -> dict[str, str]:
    """Those of `EFFECTS` that a kernel cannot do, and what it lacks."""
    found = {}
    for name, example in EFFECTS.items():
        missing = [_PARTS[part] for part in needs(parse_effects(example), lacking) if part in lacking]
        if missing:
            found[name] = ", ".join(missing)
    return found

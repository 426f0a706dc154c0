"""Makes the fault of a kind: the one place that knows all of them.

A fault can be injected and healed, and has a probe that proves that it bites and that it is gone. A probe measures the
thing itself, on the wire or in the process, and never asks the code that broke it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.errors import FaultError
from harness.nemesis.clock_fault import ClockFault
from harness.nemesis.crash_fault import CrashLoopFault
from harness.nemesis.damage_fault import DamageFault
from harness.nemesis.disk_fault import DiskFault
from harness.nemesis.flap_fault import FlapFault
from harness.nemesis.holds import Hold
from harness.nemesis.kinds import KINDS
from harness.nemesis.limit_fault import LimitFault
from harness.nemesis.link_fault import LinkFault
from harness.nemesis.nic_fault import NicFault
from harness.nemesis.packets_fault import PacketsFault
from harness.nemesis.partition_fault import PartitionFault
from harness.nemesis.process_fault import ProcessFault
from harness.nemesis.rolling_fault import RollingRestartFault
from harness.nemesis.slow_start_fault import SlowStartFault
from harness.nemesis.split_fault import SplitFault
from harness.nemesis.storm_fault import RestartStormFault
from harness.nemesis.stream_fault import StreamFault
from harness.nemesis.world import Fault, World

#: Takes the fault's id, its kind, its resolved target, and what faults are made of.
Maker = Callable[[int, str, str, World], Fault]

MAKERS: dict[str, Maker] = {
    "switch-down": LinkFault,
    "switch-flap": FlapFault,
    "switch-split": SplitFault,
    "link-down": LinkFault,
    "link-flap": FlapFault,
    "nic-down": NicFault,
    "partition": PartitionFault,
    "packets": PacketsFault,
    "stream": StreamFault,
    "kill": partial(ProcessFault, how=Hold.DOWN),
    "pause": partial(ProcessFault, how=Hold.PAUSED),
    "restart": partial(ProcessFault, how=Hold.DOWN, gently=True),
    "crash-loop": CrashLoopFault,
    "restart-storm": RestartStormFault,
    "rolling-restart": RollingRestartFault,
    "slow-start": SlowStartFault,
    "limit": LimitFault,
    "clock": ClockFault,
    "disk": DiskFault,
    "damage": DamageFault,
}


def make_fault(fault_id: int, kind: str, target: str, world: World) -> Fault:
    """The fault of a kind and a resolved target (`net1`, `zk2:net1`, `zk1,zk3`, `zk2:ahead 5s`).

    Raises:
        FaultError: there is no such kind.
    """
    if kind not in MAKERS:
        raise FaultError("there is no such kind of fault", where=kind, next_step=f"kinds: {', '.join(KINDS)}")
    return MAKERS[kind](fault_id, kind, target, world)

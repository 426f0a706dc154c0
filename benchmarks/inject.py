"""How long a fault takes, and how far apart its first and its last NIC are; beside the same by `ip`, `nft` and `tc`.

::

    python benchmarks/inject.py [--rounds 15] [--hosts 2,10,50]
    zkchaos usermode -- python benchmarks/inject.py --rounds 5     (in a kernel with netem; a process takes 0.1 s there)

Networks of so many hosts with a NIC on each of two switches, nothing running on them. Three faults:

* switch: it dies, and takes the carrier of every port along;
* partition: one host and all the others do not hear each other, on both networks;
* packets: every packet of a switch is late (netem; where there is none, the switch passes a megabit a second: tbf).

A fault is what a run does: rules and shapes are made from its words, what is held is worked out, the agent is asked
and answers. In the same minute, on a network of the same size, the same is done by processes as shell scripts and most
tools do it: one for each port or host. The figures are medians, in milliseconds:

* inject: from `inject()` until it returns, and the least of all rounds. From then on no packet passes a dead switch,
  whose bridge is down, and packets are parted or shaped;
* skew: for ours, the whole time that the agent takes until it answers, which is more than what is between two NICs; for
  processes, from the end of the first to the end of the last, which is less;
* whole: of a switch, from `inject()` until its last port has no carrier. That is done behind the answer and before the
  agent reads anything else, so it is measured by another request, which is asked for at once, and is in the figure;
* heal: from `heal()` until it returns, and all of it is done by then;
* kernel: `inject` and `whole` of the kernel alone, which gets the same messages from a loop that made them beforehand:
  nobody can be faster. A kernel closes the ports of a switch one by one;
* one: all of it by a single process (`ip -batch`, `tc -batch`, `nft -f` in the switches), the best that programs do;
* ratio: inject by processes / ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from inject_parts.floor import kernel_alone
from inject_parts.network import SWITCHES, PlainNetwork, apart
from inject_parts.programs import by_programs

from harness.history.folder import RunFolder
from harness.nemesis.faults import make_fault
from harness.nemesis.world import Fault, World
from harness.testbed import wire
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from harness.topology.model import ClientHost, Nic, Topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter

TARGET_MS, TARGET_RATIO = 1.0, 20.0
#: What becomes of packets, without netem and with it.
_EFFECTS = ("rate 1mbit", "delay 50ms")


@dataclass(frozen=True)
class Taken:
    """Milliseconds."""

    inject: float
    skew: float
    whole: float
    heal: float


def topology_of(hosts: int) -> Topology:
    """So many client hosts, each on both switches; more than a file may declare."""
    base = load_topology("dual-net")

    def nic(number: int, position: int) -> Nic:
        return Nic(f"h{number}", SWITCHES[position], IPv4Address(f"10.77.{position + 1}.{number}"), 24)

    clients = tuple(ClientHost(f"h{n}", tuple(nic(n, p) for p in range(2))) for n in range(1, hosts + 1))
    return replace(base, servers=(), client_hosts=clients)


def targets_of(topology: Topology, effects: str) -> dict[str, tuple[str, str]]:
    """Kind and target of each fault."""
    first, *others = (host.host for host in topology.hosts)
    return {
        "switch": ("switch-down", "net1"),
        "partition": ("partition", f"{first} | {','.join(others)}"),
        "packets": ("packets", f"{effects} on net1"),
    }


# --- ours ---------------------------------------------------------------------------------------------------


def ours(hosts: int, rounds: int, scratch: Path) -> tuple[dict[str, list[Taken]], bool]:
    """Each fault so many times; and whether this kernel has netem."""
    topology = topology_of(hosts)
    testbed = _Timed(topology)
    try:
        netem = "netem" not in testbed.lacking()
        ensemble = Ensemble(testbed, topology, RunFolder(scratch), JvmStarter(testbed, {}), lambda _event: None)
        world = World.of(ensemble)
        found: dict[str, list[Taken]] = {}
        for name, (kind, target) in targets_of(topology, _EFFECTS[netem]).items():
            fault = make_fault(0, kind, target, world)
            _once(fault, testbed)  # what is made once for a network, as a table of filters
            found[name] = [_once(fault, testbed) for _ in range(rounds)]
    finally:
        testbed.close()
    return found, netem


class _Timed(NamespacesTestbed):
    """Remembers how long the agent took for the last change, nanoseconds."""

    took = 0

    def _done(self, times: tuple[int, int]) -> tuple[int, int]:
        self.took += times[1] - times[0]
        return times

    def set_links(self, *arguments, **options):  # type: ignore[no-untyped-def]
        return self._done(super().set_links(*arguments, **options))

    def set_rules(self, *arguments):  # type: ignore[no-untyped-def]
        return self._done(super().set_rules(*arguments))

    def set_shapes(self, *arguments):  # type: ignore[no-untyped-def]
        return self._done(super().set_shapes(*arguments))

    def wait_until_settled(self) -> None:
        """Ask for nothing, and have the answer: what followed the last answer is done."""
        self._agent.ask(wire.GetStates(()), wire.States)


def _once(fault: Fault, testbed: _Timed) -> Taken:
    testbed.took = 0
    begun = time.monotonic_ns()
    fault.inject()
    injected = time.monotonic_ns()
    skew = testbed.took
    testbed.wait_until_settled()
    settled = time.monotonic_ns()
    fault.heal()
    healed = time.monotonic_ns()
    return Taken((injected - begun) / 1e6, skew / 1e6, (settled - begun) / 1e6, (healed - settled) / 1e6)


# --- both ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--hosts", default="2,10,50")
    arguments = parser.parse_args()
    if missing := [name for name in ("ip", "tc", "nft", "nsenter") if shutil.which(name) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    print(f"Linux {platform.release()}, {os.cpu_count()} cores; medians of {arguments.rounds}, milliseconds")
    print(f"{'':>6} {'':10} {'ours':^40}  {'kernel alone':^16}  {'processes':^42}")
    print(
        f"{'hosts':>6} {'fault':10} {'inject':>8}{'least':>8}{'skew':>8}{'whole':>8}{'heal':>8}  "
        f"{'inject':>8}{'whole':>8}  {'inject':>9}{'skew':>9}{'heal':>8}{'one':>8}{'ratio':>8}"
    )
    for hosts in map(int, arguments.hosts.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            mine, netem = ours(hosts, arguments.rounds, Path(scratch))
        apart(lambda: _compare(hosts, arguments.rounds, mine, netem=netem))  # noqa: B023  # it is called at once
    print(f"target: at most {TARGET_MS:g} ms, and a ratio of at least {TARGET_RATIO:g}")


def _compare(hosts: int, rounds: int, mine: dict[str, list[Taken]], *, netem: bool) -> None:
    network = PlainNetwork(hosts)
    floors = kernel_alone(network, rounds, _EFFECTS[netem])
    theirs = by_programs(network, rounds, netem=netem)
    for name, taken in mine.items():
        processes, single = theirs[name]
        inject = _median(t.inject for t in taken)
        by_processes = _median(p.inject for p in processes)
        # all but a switch has done everything when it answers
        whole = f"{_median(t.whole for t in taken):8.2f}" if name == "switch" else f"{'-':>8}"
        last = f"{_median(f.whole for f in floors[name]):8.2f}" if name == "switch" else f"{'-':>8}"
        print(
            f"{hosts:6} {name:10} {inject:8.2f}{min(t.inject for t in taken):8.2f}"
            f"{_median(t.skew for t in taken):8.2f}{whole}{_median(t.heal for t in taken):8.2f}  "
            f"{_median(f.inject for f in floors[name]):8.2f}{last}  "
            f"{by_processes:9.1f}{_median(p.skew for p in processes):9.1f}{_median(p.heal for p in processes):8.1f}"
            f"{_median(single):8.1f}{by_processes / inject:8.0f}"
        )


def _median(figures: Iterable[float]) -> float:
    return statistics.median(figures)


if __name__ == "__main__":
    main()

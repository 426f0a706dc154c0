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

* ours: from `inject()` until it returns (and the least of all rounds), and from `heal()` until it returns;
* skew: for ours, the whole time that the agent takes, which is more than what is between two NICs; for processes, from
  the end of the first to the end of the last, which is less;
* one: all of it by a single process (`ip -batch`, `tc -batch`, `nft -f` in the switches), the best that programs do;
* ratio: processes / ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from harness.history.folder import RunFolder
from harness.nemesis.faults import make_fault
from harness.nemesis.world import Fault, World
from harness.testbed import kernel
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from harness.topology.model import ClientHost, Nic, Topology
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.launch import JvmStarter

SWITCHES = ("net1", "net2")
TARGET_MS, TARGET_RATIO = 1.0, 20.0


@dataclass(frozen=True)
class Taken:
    """Milliseconds."""

    inject: float
    skew: float
    heal: float


def topology_of(hosts: int) -> Topology:
    """So many client hosts, each on both switches; more than a file may declare."""
    base = load_topology("dual-net")

    def nic(number: int, position: int) -> Nic:
        return Nic(f"h{number}", SWITCHES[position], IPv4Address(f"10.77.{position + 1}.{number}"), 24)

    clients = tuple(ClientHost(f"h{n}", tuple(nic(n, p) for p in range(2))) for n in range(1, hosts + 1))
    return replace(base, servers=(), client_hosts=clients)


def targets_of(topology: Topology, *, netem: bool) -> dict[str, tuple[str, str]]:
    """Kind and target of each fault."""
    first, *others = (host.host for host in topology.hosts)
    return {
        "switch": ("switch-down", "net1"),
        "partition": ("partition", f"{first} | {','.join(others)}"),
        "packets": ("packets", "delay 50ms on net1" if netem else "rate 1mbit on net1"),
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
        for name, (kind, target) in targets_of(topology, netem=netem).items():
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


def _once(fault: Fault, testbed: _Timed) -> Taken:
    testbed.took = 0
    begun = time.monotonic_ns()
    fault.inject()
    injected = time.monotonic_ns()
    skew = testbed.took
    fault.heal()
    return Taken((injected - begun) / 1e6, skew / 1e6, (time.monotonic_ns() - injected) / 1e6)


# --- by processes -------------------------------------------------------------------------------------------


def programs(hosts: int, rounds: int, *, netem: bool) -> dict[str, tuple[list[Taken], list[float]]]:
    """The same by processes, one each; and by a single one, where the first list's skew does not exist."""
    network = _Plain(hosts)
    found: dict[str, tuple[list[Taken], list[float]]] = {}
    for name, fault in (
        ("switch", network.switch()),
        ("partition", network.partition()),
        ("packets", network.packets(netem=netem)),
    ):
        taken, single = [], []
        for _ in range(rounds):
            ends = [_run(words) for words in fault.inject]
            begun, injected = ends[0][0], ends[-1][1]
            healed = [_run(words) for words in fault.heal]
            taken.append(
                Taken((injected - begun) / 1e6, (injected - ends[0][1]) / 1e6, (healed[-1][1] - healed[0][0]) / 1e6)
            )
        for _ in range(rounds):
            start, end = _run(fault.one, fault.one_text)
            single.append((end - start) / 1e6)
            _run(fault.one, fault.one_heal)
        found[name] = (taken, single)
    return found


@dataclass(frozen=True)
class _Commands:
    """The command lines of a fault, and of one process that does it all, told by its standard input."""

    inject: Sequence[Sequence[str]]
    heal: Sequence[Sequence[str]]
    one: Sequence[str]
    one_text: str
    one_heal: str


def _run(words: Sequence[str], text: str = "") -> tuple[int, int]:
    start = time.monotonic_ns()
    done = subprocess.run(words, input=text.encode(), capture_output=True, check=False)
    end = time.monotonic_ns()
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.decode().strip()}")
    return start, end


class _Plain:
    """A network of the same size and make, by `ip` in the namespaces that this process stands in."""

    def __init__(self, hosts: int) -> None:
        self._hosts = [f"h{number}" for number in range(1, hosts + 1)]
        lines = []
        for switch in SWITCHES:
            lines.append(f"link add {switch} type bridge stp_state 0")
            lines.append(f"link set {switch} up")
        for host in self._hosts:
            _run(["ip", "netns", "add", host])
            for switch in SWITCHES:
                lines.append(f"link add {switch}{host} type veth peer name {switch} netns {host}")
                lines.append(f"link set {switch}{host} master {switch} up")
        _run(["ip", "-batch", "-"], "\n".join(lines))
        for number, host in enumerate(self._hosts, start=1):
            own = [f"addr add 10.77.{p}.{number}/24 dev net{p}\nlink set net{p} up" for p in (1, 2)]
            _run(["ip", "-n", host, "-batch", "-"], "\n".join(own))

    def switch(self) -> _Commands:
        """One `ip link set` for the bridge, and one for each port."""
        names = ["net1", *(f"net1{host}" for host in self._hosts)]
        down, up = ([f"link set {name} {how}" for name in names] for how in ("down", "up"))
        return _Commands(
            [["ip", *line.split()] for line in down],
            [["ip", *line.split()] for line in up],
            ["ip", "-batch", "-"],
            "\n".join(down),
            "\n".join(up),
        )

    def partition(self) -> _Commands:
        """One `nft` in each host; `iptables` where the kernel's nftables know no IPv4."""
        inject, heal = [], []
        trial = ["nft", "add table ip trial; delete table ip trial"]
        by_nft = not subprocess.run(trial, capture_output=True, check=False).returncode
        pairs = []
        for number, host in enumerate(self._hosts, start=1):
            others = range(2, len(self._hosts) + 1) if number == 1 else (1,)
            sources = [f"10.77.{p}.{other}" for p in (1, 2) for other in others]
            pairs += [f"{source} . {source[: source.rindex('.')]}.{number}" for source in sources]
            rules = (
                "add table ip part; add chain ip part input { type filter hook input priority 0; }; "
                f"add rule ip part input ip saddr {{ {', '.join(sources)} }} drop"
            )
            inside = ["nsenter", f"--net=/run/netns/{host}"]
            add = (
                ["nft", rules] if by_nft else ["iptables-legacy", "-A", "INPUT", "-s", ",".join(sources), "-j", "DROP"]
            )
            inject.append([*inside, *add])
            heal.append([*inside, *(["nft", "delete table ip part"] if by_nft else ["iptables-legacy", "-F", "INPUT"])])
        text = (
            "add table bridge part\nadd chain bridge part forward { type filter hook forward priority 0; }\n"
            f"add rule bridge part forward ip saddr . ip daddr {{ {', '.join(pairs)} }} drop\n"
        )
        return _Commands(inject, heal, ["nft", "-f", "-"], text, "delete table bridge part\n")

    def packets(self, *, netem: bool) -> _Commands:
        """One `tc` for each port."""
        what = "netem limit 100000 delay 50ms" if netem else "tbf rate 1mbit burst 3200 limit 50000"
        add = [f"qdisc add dev net1{host} root {what}" for host in self._hosts]
        remove = [f"qdisc del dev net1{host} root" for host in self._hosts]
        return _Commands(
            [["tc", *line.split()] for line in add],
            [["tc", *line.split()] for line in remove],
            ["tc", "-batch", "-"],
            "\n".join(add),
            "\n".join(remove),
        )


def _apart(work: Callable[[], None]) -> None:
    """Do it in a process that stands in namespaces of its own, which end with it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            uid, gid = os.getuid(), os.getgid()
            kernel.unshare((kernel.CLONE_NEWUSER if uid else 0) | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
            if uid:
                Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
                Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
                Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
            kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
            kernel.mount("tmpfs", "/run", "tmpfs", 0)
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit(1)


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
    print(f"{'':>6} {'':10} {'ours':^32}  {'processes':^42}")
    print(
        f"{'hosts':>6} {'fault':10} {'inject':>8}{'least':>8}{'skew':>8}{'heal':>8}  "
        f"{'inject':>9}{'skew':>9}{'heal':>8}{'one':>8}{'ratio':>8}"
    )
    for hosts in map(int, arguments.hosts.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            mine, netem = ours(hosts, arguments.rounds, Path(scratch))
        _apart(lambda: _compare(hosts, arguments.rounds, mine, netem=netem))  # noqa: B023  # it is called at once
    print(f"target: at most {TARGET_MS:g} ms, and a ratio of at least {TARGET_RATIO:g}")


def _compare(hosts: int, rounds: int, mine: dict[str, list[Taken]], *, netem: bool) -> None:
    theirs = programs(hosts, rounds, netem=netem)
    for name, taken in mine.items():
        processes, single = theirs[name]
        a, b = _median(taken), _median(processes)
        print(
            f"{hosts:6} {name:10} {a.inject:8.2f}{min(t.inject for t in taken):8.2f}{a.skew:8.2f}{a.heal:8.2f}  "
            f"{b.inject:9.1f}{b.skew:9.1f}{b.heal:8.1f}{statistics.median(single):8.1f}{b.inject / a.inject:8.0f}"
        )


def _median(taken: Sequence[Taken]) -> Taken:
    return Taken(*(statistics.median(getattr(t, name) for t in taken) for name in ("inject", "skew", "heal")))


if __name__ == "__main__":
    main()

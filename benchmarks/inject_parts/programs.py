"""The faults of `benchmarks/inject.py` by processes: `ip`, `nft` and `tc`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from inject_parts.network import PlainNetwork, run


@dataclass(frozen=True)
class ByPrograms:
    """How long one fault took, once, milliseconds; `skew` from the end of the first process to that of the last."""

    inject: float
    skew: float
    heal: float


def by_programs(network: PlainNetwork, rounds: int, *, netem: bool) -> dict[str, tuple[list[ByPrograms], list[float]]]:
    """The same by processes, one each; and by a single one, where the first list's skew does not exist."""
    faults = _Faults(network)
    found: dict[str, tuple[list[ByPrograms], list[float]]] = {}
    for name, fault in (
        ("switch", faults.switch()),
        ("partition", faults.partition()),
        ("packets", faults.packets(netem=netem)),
    ):
        taken, single = [], []
        for _ in range(rounds):
            ends = [run(words) for words in fault.inject]
            begun, injected = ends[0][0], ends[-1][1]
            healed = [run(words) for words in fault.heal]
            taken.append(
                ByPrograms(
                    (injected - begun) / 1e6, (injected - ends[0][1]) / 1e6, (healed[-1][1] - healed[0][0]) / 1e6
                )
            )
        for _ in range(rounds):
            start, end = run(fault.one, fault.one_text)
            single.append((end - start) / 1e6)
            run(fault.one, fault.one_heal)
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


class _Faults:
    """What is run for each."""

    def __init__(self, network: PlainNetwork) -> None:
        self._network = network

    def switch(self) -> _Commands:
        """One `ip link set` for the bridge, and one for each port."""
        names = ["net1", *self._network.ports()]
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
        for number, host in enumerate(self._network.hosts, start=1):
            others = range(2, len(self._network.hosts) + 1) if number == 1 else (1,)
            sources = [f"10.77.{p}.{other}" for p in (1, 2) for other in others]
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
        pairs = ", ".join(f"{source} . {to}" for source, to in self._network.pairs())
        text = (
            "add table bridge part\nadd chain bridge part forward { type filter hook forward priority 0; }\n"
            f"add rule bridge part forward ip saddr . ip daddr {{ {pairs} }} drop\n"
        )
        return _Commands(inject, heal, ["nft", "-f", "-"], text, "delete table bridge part\n")

    def packets(self, *, netem: bool) -> _Commands:
        """One `tc` for each port."""
        what = "netem limit 100000 delay 50ms" if netem else "tbf rate 1mbit burst 3200 limit 50000"
        add = [f"qdisc add dev {port} root {what}" for port in self._network.ports()]
        remove = [f"qdisc del dev {port} root" for port in self._network.ports()]
        return _Commands(
            [["tc", *line.split()] for line in add],
            [["tc", *line.split()] for line in remove],
            ["tc", "-batch", "-"],
            "\n".join(add),
            "\n".join(remove),
        )

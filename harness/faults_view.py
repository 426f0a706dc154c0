"""Shows every kind of fault: what it is, how a plan says it, what it takes, and whether this machine has that."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from harness.errors import ZkChaosError
from harness.nemesis.kernel_parts import EFFECTS, refused_effects
from harness.nemesis.kinds import KINDS, FaultKind
from harness.testbed import wire
from harness.testbed.client import AgentClient
from harness.testbed.disk import find_fuse
from harness.testbed.group_places import find_places
from harness.toxiproxy.program import find_program
from harness.usermode import machine
from harness.zookeeper.clock import find_faketime

#: What each key of a step may be; together they are a step that `dual-net` takes, or `proxied` for streams.
EXAMPLES = {
    "switch": "net1",
    "host": "zk2",
    "server": "zk2",
    "partition": "isolate leader",
    "packets": "delay 200ms on net1",
    "every": "500ms",
    "islands": "zk1 | others",
    "stream": "latency 200ms on clients",
    "clock": "ahead 5s",
    "disk": "full",
    "damage": "truncate log",
    "limit": "cpu 5%",
    "for": "5s",
}
_IN_GUEST = "by --kernel usermode"


@dataclass(frozen=True)
class Need:
    """What a kind of fault is made of beyond what every run needs."""

    #: In a word or two.
    what: str
    #: What it can do without it; empty for nothing.
    unless: str = ""
    #: Whether a user-mode kernel has it, whatever this machine has.
    in_guest: bool = False


NEEDS: dict[str, Need] = {
    "switch-split": Need("nftables for bridges", in_guest=True),
    "partition": Need("nftables for bridges, and for IPv4 or ip_tables where it is `rejected`", in_guest=True),
    "packets": Need("sch_netem", "rates, and random loss", in_guest=True),
    "stream": Need("toxiproxy, or Go to make it; and a topology with proxies, as `proxied`"),
    "limit": Need("control groups that may be made", "a share of the processor, by signals", in_guest=True),
    "clock": Need("libfaketime"),
    "disk": Need("FUSE: /dev/fuse and libfuse"),
}


@dataclass(frozen=True)
class Here:
    """What this machine has of it."""

    #: Why not; empty where it has all of it.
    why: str = ""
    #: Whether it can do a part.
    partly: bool = False


def show_faults(console: Console) -> None:
    """All kinds, three lines each or four."""
    here = look()
    guest = _guest()
    for kind in KINDS.values():
        console.print(Text(f"{kind.name:16} {kind.summary}"), soft_wrap=True)
        _say(console, example_of(kind))
        if need := NEEDS.get(kind.name):
            without = f"; without it: {need.unless}" if need.unless else ""
            _say(console, f"needs {need.what}{without}")
        _say(console, f"here: {_word(here.get(kind.name, Here()), NEEDS.get(kind.name), guest)}")


def example_of(kind: FaultKind) -> str:
    """The keys of a step, as TOML has them."""
    keys = (*kind.aim.keys, "for") if kind.lasts else kind.aim.keys
    return ", ".join(f'{key} = "{EXAMPLES[key]}"' for key in keys)


def look() -> Mapping[str, Here]:
    """Try on this machine what kinds of fault are made of; those that need nothing are left out."""
    checks: dict[str, Callable[[], Here]] = {
        "stream": _stream,
        "limit": _limit,
        "clock": lambda: _tried(find_faketime),
        "disk": lambda: _tried(find_fuse),
    }
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        tried = {kind: pool.submit(check) for kind, check in checks.items()}
        return {**_in_kernel(), **{kind: future.result() for kind, future in tried.items()}}


def _in_kernel() -> dict[str, Here]:
    try:
        with contextlib.closing(AgentClient()) as agent:
            lacking = agent.ask(wire.GetLacking(), wire.Lacking).refusals
    except ZkChaosError as problem:
        return {kind: Here(problem.what) for kind in ("switch-split", "partition", "packets")}
    refused = refused_effects(lacking)
    packets = f"not {', '.join(refused)}, for want of {', '.join(dict.fromkeys(refused.values()))}" if refused else ""
    # what filters drop is a partition; what they reject is another kind of it
    missing = {part: f"the kernel says of it: {lacking[part]}" for part in ("bridge", "reject") if part in lacking}
    return {
        "switch-split": Here(missing.get("bridge", "")),
        "partition": Here("; ".join(missing.values()), partly="bridge" not in missing),
        "packets": Here(packets, partly=len(refused) < len(EFFECTS)),
    }


def _limit() -> Here:
    refusals = find_places().refusals
    return Here("; ".join(f"{name}: {why}" for name, why in refusals.items()), partly=True)


def _stream() -> Here:
    try:
        return Here("" if find_program() or shutil.which("go") else "neither is found")
    except (ZkChaosError, OSError, subprocess.SubprocessError, ValueError) as problem:
        return Here(str(problem))


def _tried(find: Callable[[], object]) -> Here:
    try:
        find()
    except ZkChaosError as problem:
        return Here(f"{problem.what}; {problem.next_step}" if problem.next_step else problem.what)
    return Here()


def _guest() -> str:
    """Where else it can be done; empty where there is no such place."""
    try:
        machine.find_kernel(os.environ)
    except ZkChaosError as problem:
        return f"{_IN_GUEST}, whose kernel is {problem.what}: {problem.next_step}"
    return "" if machine.inside() else _IN_GUEST


def _word(here: Here, need: Need | None, guest: str) -> str:
    if not here.why:
        return "yes"
    elsewhere = f"; {guest}" if need is not None and need.in_guest and guest else ""
    return f"{'in part' if here.partly else 'no'}: {here.why}{elsewhere}"


def _say(console: Console, line: str) -> None:
    console.print(Text(f"{'':16} {line}"), soft_wrap=True)

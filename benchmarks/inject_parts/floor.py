"""What the kernel alone needs for the faults of `benchmarks/inject.py`: the same messages, made beforehand, by a loop.

No client, no agent, no words: whoever asks the kernel for this waits as long.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.nemesis.effects import parse_effects
from harness.testbed.netlink import ROUTE, Channel, Message, set_link
from harness.testbed.nft import BRIDGE, Group, Table, key
from harness.testbed.shaping import Shaper, Treatments, remove
from harness.testbed.wire import Manner, Side
from inject_parts.network import SWITCHES, PlainNetwork


@dataclass(frozen=True)
class Floor:
    """Milliseconds: until no packet passes as it did, and until all that belongs to the fault has been done."""

    inject: float
    whole: float


def kernel_alone(network: PlainNetwork, rounds: int, effects: str) -> dict[str, list[Floor]]:
    """Each fault so many times."""
    route, table = Channel(ROUTE), Table(BRIDGE)
    bridge, ports = socket.if_nametoindex(SWITCHES[0]), [socket.if_nametoindex(name) for name in network.ports()]
    parted = [Group(Manner.DROP, tuple(key(source, to, None) for source, to in network.pairs()))]
    shape: Treatments = {None: parse_effects(effects)}
    shapes = [message for port in ports for message in Shaper(port, Side.IN).change(shape)]

    def links(*indexes: int, up: bool) -> list[Message]:
        return [set_link(index, up=up) for index in indexes]

    dead, behind, alive = links(bridge, up=False), links(*ports, up=False), links(bridge, *ports, up=True)
    away = [remove(port) for port in ports]

    def nothing() -> object:
        return None

    faults: dict[str, tuple[Callable[[], object], Callable[[], object], Callable[[], object]]] = {
        "switch": (lambda: route.send(dead), lambda: route.send(behind), lambda: route.send(alive)),
        "partition": (lambda: table.set(parted), nothing, lambda: table.set([])),
        "packets": (lambda: route.send(shapes), nothing, lambda: route.send(away)),
    }
    return {name: [_once(*fault) for _ in range(rounds)] for name, fault in faults.items()}


def _once(inject: Callable[[], object], rest: Callable[[], object], heal: Callable[[], object]) -> Floor:
    begun = time.monotonic_ns()
    inject()
    injected = time.monotonic_ns()
    rest()
    ended = time.monotonic_ns()
    heal()
    return Floor((injected - begun) / 1e6, (ended - begun) / 1e6)

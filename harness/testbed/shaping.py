"""Queueing disciplines: what becomes of packets on their way out of an interface.

What a host sends is shaped on its own NIC; what it receives, on the switch's port of its cable, which is the way out
of the switch. Nothing on the receiving side of an interface is needed, and containers need nothing in their image.

Delay, loss and the like are netem's; a rate alone is tbf's, which splits large segments and is in every kernel. Where
some peers are treated in another way than the rest, htb sorts by address and each class has a queue of its own.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Mapping

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWQDISC, TC_H_ROOT
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from harness.testbed import netem
from harness.testbed.wire import Chain, Effects, Side, Spread

#: What is to become of packets on one interface, by the address of the peer; None: of all others.
Treatments = Mapping[str | None, Effects]

_ROOT_HANDLE = 0x10000
_IPV4 = 0x0800
#: Where an IPv4 header has the address of the peer.
_OFFSETS = {Side.OUT: 16, Side.IN: 12}
#: The rate of htb's classes, bytes per second: more than any of these paths has.
_UNLIMITED = 4_000_000_000
_QUANTUM = 60_000
#: tbf: the bucket holds so many seconds, the queue so many; and the least that both must hold, bytes. What a late timer
#: of a busy machine finds beyond the bucket is lost to the rate.
_BUCKET_SECONDS, _LEAST_BUCKET = 0.02, 3_200
_QUEUE_SECONDS, _LEAST_QUEUE = 0.4, 32_768
#: What an empty namespace has: the loopback.
_LOOPBACK_INDEX = 1


class _RawOptions(tcmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A message of pyroute2 whose options are bytes."""

    nla_map = tuple((name, "cdata" if name == "TCA_OPTIONS" else kind) for name, kind in tcmsg.nla_map)


def bucket(rate: int) -> int:
    """How many bytes pass at once before a rate is felt."""
    return max(_LEAST_BUCKET, round(rate / 8 * _BUCKET_SECONDS))


class Shaper:
    """The queues of one interface."""

    def __init__(self, netlink: IPRoute, index: int, side: Side) -> None:
        self._netlink, self._index, self._side = netlink, index, side
        self._treatments: Treatments = {}

    def set(self, treatments: Treatments) -> None:
        """Let packets be treated so. Nothing is sent where that is so already.

        Where the same queue has other numbers now, those who wait in it stay; else they are lost.
        """
        if treatments == self._treatments:
            return
        kinds = [{kind_of(e) for e in t.values()} if set(t) == {None} else None for t in (treatments, self._treatments)]
        if self._treatments and (kinds[0] is None or kinds[0] != kinds[1]):
            remove(self._netlink, self._index)
        self._treatments = {}
        if set(treatments) == {None}:
            self._queue(treatments[None], TC_H_ROOT, _ROOT_HANDLE)
        elif treatments:
            self._sorted(treatments)
        self._treatments = dict(treatments)

    def _queue(self, effects: Effects, parent: int, handle: int) -> None:
        if kind_of(effects) == "tbf":
            rate = effects.rate // 8
            limit = max(_LEAST_QUEUE, round(rate * _QUEUE_SECONDS))
            self._netlink.tc(
                "replace", "tbf", self._index, handle, parent=parent, rate=rate, burst=bucket(effects.rate), limit=limit
            )
            return
        message = _RawOptions()
        message["index"], message["handle"], message["parent"] = self._index, handle, parent
        message["attrs"] = [("TCA_KIND", "netem"), ("TCA_OPTIONS", netem.options(effects))]
        message["header"]["type"] = RTM_NEWQDISC
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._netlink.nlm_request_batch([message])

    def _sorted(self, treatments: Treatments) -> None:
        """A class for each peer; what has none passes as if there was no queue."""
        self._netlink.tc("add", "htb", self._index, _ROOT_HANDLE, default=1 if None in treatments else 0)
        ordered = sorted(treatments, key=lambda peer: (peer is not None, peer))
        for number, peer in enumerate(ordered, start=1 if None in treatments else 2):
            name = _ROOT_HANDLE + number
            self._netlink.tc(
                "add-class",
                "htb",
                self._index,
                name,
                parent=_ROOT_HANDLE,
                rate=_UNLIMITED,
                burst=2**20,
                cburst=2**20,
                quantum=_QUANTUM,
            )
            self._queue(treatments[peer], name, _ROOT_HANDLE * (number + 1))
            if peer is not None:
                key = f"0x{_address(peer):08x}/0xffffffff+{_OFFSETS[self._side]}"
                self._netlink.tc(
                    "add-filter",
                    "u32",
                    self._index,
                    parent=_ROOT_HANDLE,
                    prio=1,
                    protocol=_IPV4,
                    target=name,
                    keys=[key],
                )


def kind_of(effects: Effects) -> str:
    """Which queue makes these effects."""
    return "tbf" if effects == Effects(rate=effects.rate) and effects.rate else "netem"


def remove(netlink: IPRoute, index: int) -> None:
    """Give an interface its own queue back. Idempotent.

    Raises:
        NetlinkError: the kernel refused.
    """
    try:
        netlink.tc("del", index=index, parent=TC_H_ROOT)
    except NetlinkError as problem:
        if problem.code not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            raise


def lacking(netlink: IPRoute) -> dict[str, str]:
    """What this kernel refuses of all that is used here, tried on the loopback of an empty namespace."""
    everything = Effects(
        1.0, 1.0, Spread.NORMAL, 0.1, bursts=Chain(0.1, 0.5), duplicate=0.1, reorder=0.1, corrupt=0.1, rate=1_000_000
    )
    slow = Effects(rate=1_000_000)
    trials: dict[str, Callable[[], None]] = {
        "netem": lambda: Shaper(netlink, _LOOPBACK_INDEX, Side.OUT).set({None: everything}),
        "tbf": lambda: Shaper(netlink, _LOOPBACK_INDEX, Side.OUT).set({None: slow}),
        "htb": lambda: Shaper(netlink, _LOOPBACK_INDEX, Side.OUT).set({"10.0.0.1": slow, None: slow}),
    }
    refusals: dict[str, str] = {}
    for name, attempt in trials.items():
        try:
            attempt()
        except NetlinkError as problem:
            refusals[name] = str(problem.args[-1]) if problem.args else str(problem)
        with contextlib.suppress(NetlinkError):
            remove(netlink, _LOOPBACK_INDEX)
    return refusals


def _address(text: str) -> int:
    return int.from_bytes(bytes(map(int, text.split("."))), "big")

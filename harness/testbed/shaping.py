"""Queueing disciplines: what becomes of packets on their way out of an interface.

What a host sends is shaped on its own NIC; what it receives, on the switch's port of its cable, which is the way out
of the switch. Nothing on the receiving side of an interface is needed, and containers need nothing in their image.

Delay, loss and the like are netem's; a rate alone is tbf's, which splits large segments and is in every kernel. Where
some peers are treated in another way than the rest, htb sorts by address and each class has a queue of its own.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache

from harness.testbed import netem
from harness.testbed.netlink import CREATE, EXCLUSIVE, REPLACE, Channel, Message, attribute, text
from harness.testbed.wire import Chain, Effects, Side, Spread

#: What is to become of packets on one interface, by the address of the peer; None: of all others.
Treatments = Mapping[str | None, Effects]

#: Messages (linux/rtnetlink.h) and what each of them begins with; where the whole of an interface begins.
_NEW_QUEUE, _DELETE_QUEUE, _NEW_CLASS, _NEW_FILTER = 36, 37, 40, 44
_HEADER = struct.Struct("=BxxxiIII")
_KIND, _OPTIONS = 1, 2
_ROOT, _ROOT_HANDLE = 0xFFFFFFFF, 0x10000
#: Of a filter: its priority, and that it is for IPv4.
_FILTER_INFO = 1 << 16 | socket.htons(0x0800)
#: Where an IPv4 header has the address of the peer.
_OFFSETS = {Side.OUT: 16, Side.IN: 12}
#: A rate (linux/pkt_sched.h) on Ethernet, of which the kernel makes its own table; bytes per second.
_RATE = struct.Struct("=BBHhHI")
_ETHERNET = 1
#: The rate of htb's classes, bytes per second: more than any of these paths has. Their bucket, in ticks of 64 ns.
_UNLIMITED, _TICKS = 4_000_000_000, 4096
_QUANTUM = 60_000
#: htb: its version, and how it makes quanta of rates.
_HTB_VERSION, _RATE_TO_QUANTUM = 3, 10
_TERMINAL = 1
#: tbf: the bucket holds so many seconds, the queue so many; and the least that both must hold, bytes. What a late timer
#: of a busy machine finds beyond the bucket is lost to the rate.
_BUCKET_SECONDS, _LEAST_BUCKET = 0.02, 3_200
_QUEUE_SECONDS, _LEAST_QUEUE = 0.4, 32_768
#: What an empty namespace has: the loopback.
_LOOPBACK_INDEX = 1
#: What is said of a queue that is to go and is not there.
_NOTHING_THERE = frozenset({errno.ENOENT, errno.EINVAL})


def bucket(rate: int) -> int:
    """How many bytes pass at once before a rate is felt."""
    return max(_LEAST_BUCKET, round(rate / 8 * _BUCKET_SECONDS))


class Shaper:
    """The queues of one interface: which messages it takes to change them."""

    def __init__(self, index: int, side: Side) -> None:
        self._index, self._side = index, side
        #: None: nobody knows, because the kernel has not done what it was told to.
        self._treatments: Treatments | None = {}
        self._asked: Treatments = {}

    def change(self, treatments: Treatments) -> list[Message]:
        """What lets packets be treated so, in this order; nothing where that is so already.

        `treatments` is kept, and nobody changes it afterwards.
        Where the same queue has other numbers now, those who wait in it stay; else they are lost.
        """
        former = self._treatments
        if treatments == former:
            return []
        self._treatments, self._asked = None, treatments
        whole = _for_all(treatments)
        messages: list[Message] = []
        if former is None or (former and not _same_kind(whole, _for_all(former))):
            messages.append(remove(self._index))
        if whole is not None:
            messages.append(self._queue(whole, _ROOT, _ROOT_HANDLE))
        elif treatments:
            messages += self._sorted(treatments)
        return messages

    def changed(self) -> None:
        """The kernel has done all of the last change."""
        self._treatments = self._asked

    def _queue(self, effects: Effects, parent: int, handle: int) -> Message:
        return Message(_NEW_QUEUE, _HEADER.pack(0, self._index, handle, parent, 0) + _queue(effects), CREATE | REPLACE)

    def _sorted(self, treatments: Treatments) -> list[Message]:
        """A class for each peer; what has none passes as if there was no queue."""
        default = 1 if None in treatments else 0
        init = attribute(2, struct.pack("=5I", _HTB_VERSION, _RATE_TO_QUANTUM, default, 0, 0))
        messages = [_message(_NEW_QUEUE, (self._index, _ROOT_HANDLE, _ROOT, 0), "htb", init, CREATE | EXCLUSIVE)]
        rate = _RATE.pack(0, _ETHERNET, 0, 0, 0, _UNLIMITED)
        unlimited = attribute(1, rate + rate + struct.pack("=5I", _TICKS, _TICKS, _QUANTUM, 0, 0))
        ordered = sorted(treatments, key=lambda peer: (peer is not None, peer))
        for number, peer in enumerate(ordered, start=1 if None in treatments else 2):
            name = _ROOT_HANDLE + number
            place = (self._index, name, _ROOT_HANDLE, 0)
            messages.append(_message(_NEW_CLASS, place, "htb", unlimited, CREATE | EXCLUSIVE))
            messages.append(self._queue(treatments[peer], name, _ROOT_HANDLE * (number + 1)))
            if peer is not None:
                messages.append(self._to_class(peer, name))
        return messages

    def _to_class(self, peer: str, name: int) -> Message:
        """What is for a peer, or from it, goes to its class."""
        selector = struct.pack(">BBBxHHhhI", _TERMINAL, 0, 1, 0, 0, 0, 0, 0)
        one = struct.pack(">I4s", 0xFFFFFFFF, socket.inet_aton(peer)) + struct.pack("=ii", _OFFSETS[self._side], 0)
        options = attribute(1, struct.pack("=I", name)) + attribute(5, selector + one)
        place = (self._index, 0, _ROOT_HANDLE, _FILTER_INFO)
        return _message(_NEW_FILTER, place, "u32", options, CREATE | EXCLUSIVE)


def _for_all(treatments: Treatments) -> Effects | None:
    """What all packets of an interface suffer, where they are in the same queue."""
    return treatments.get(None) if len(treatments) == 1 else None


def _same_kind(one: Effects | None, other: Effects | None) -> bool:
    return one is not None and other is not None and kind_of(one) == kind_of(other)


@lru_cache(maxsize=64)
def _queue(effects: Effects) -> bytes:
    """What makes it, on whatever interface: its kind and its options."""
    kind = kind_of(effects)
    return text(_KIND, kind) + attribute(_OPTIONS, _tbf(effects.rate) if kind == "tbf" else netem.options(effects))


def _tbf(rate: int) -> bytes:
    """Its options; `rate` in bits per second."""
    limit = max(_LEAST_QUEUE, round(rate / 8 * _QUEUE_SECONDS))
    parameters = _RATE.pack(0, _ETHERNET, 0, 0, 0, rate // 8) + bytes(_RATE.size) + struct.pack("=3I", limit, 0, 0)
    return attribute(1, parameters) + attribute(6, struct.pack("=I", bucket(rate)))


def _message(kind: int, place: tuple[int, int, int, int], name: str, options: bytes, flags: int) -> Message:
    """A request that makes or changes; `place`: interface, handle, parent, and what else there is to say."""
    return Message(kind, _HEADER.pack(0, *place) + text(_KIND, name) + attribute(_OPTIONS, options), flags)


@lru_cache(maxsize=64)
def kind_of(effects: Effects) -> str:
    """Which queue makes these effects."""
    return "tbf" if effects == Effects(rate=effects.rate) and effects.rate else "netem"


def remove(index: int) -> Message:
    """Give an interface its own queue back. Idempotent."""
    return Message(_DELETE_QUEUE, _HEADER.pack(0, index, 0, _ROOT, 0), excused=_NOTHING_THERE)


def lacking(channel: Channel) -> dict[str, str]:
    """What this kernel refuses of all that is used here, tried on the loopback of an empty namespace."""
    everything = Effects(
        1.0, 1.0, Spread.NORMAL, 0.1, bursts=Chain(0.1, 0.5), duplicate=0.1, reorder=0.1, corrupt=0.1, rate=1_000_000
    )
    slow = Effects(rate=1_000_000)
    trials: dict[str, Treatments] = {
        "netem": {None: everything},
        "tbf": {None: slow},
        "htb": {"10.0.0.1": slow, None: slow},
    }
    refusals: dict[str, str] = {}
    for name, treatments in trials.items():
        if refused := channel.send(Shaper(_LOOPBACK_INDEX, Side.OUT).change(treatments)):
            refusals[name] = str(refused[0].strerror)
        channel.send([remove(_LOOPBACK_INDEX)])
    return refusals

"""Tables of nftables, written as the kernel reads them: each is replaced as a whole, in one transaction.

Packets that share a fate are a set of keys (from an address, to an address, and where asked to a port) and a rule that
looks them up, so a packet costs the same whether two hosts are parted or two hundred.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.testbed.netlink import (
    APPEND,
    CREATE,
    NETFILTER,
    Channel,
    Message,
    attribute,
    be32,
    nested,
    of_nftables,
    text,
    transaction,
)
from harness.testbed.wire import Manner

#: Families, and the hook of each that we use: what a bridge passes on, and what a host takes in.
BRIDGE, IPV4 = 7, 2
_HOOKS = {BRIDGE: 2, IPV4: 1}
_CHAIN = "zkchaos"
#: Messages (linux/netfilter/nf_tables.h).
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_ELEMENTS = 0, 2, 3, 6, 9, 12
#: The table goes when its socket does, however that ends.
_OWNED = 0x2
_DROP, _ACCEPT = 0, 1
#: Registers of four bytes each: the first of a key, and one for a random number.
_KEY, _DRAWN = 8, 12
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
#: Both addresses in a header of IPv4; the destination port and the flags in one of TCP; the type in one of ICMP.
_ADDRESSES, _PORT, _FLAGS, _TYPE = (12, 8), (2, 2), (13, 1), (0, 1)
_RESET, _UNREACHABLE = 4, 3
_META_PROTOCOL, _META_TRANSPORT = 1, 16
_EQUAL, _UNEQUAL, _LESS = 0, 1, 2
_REJECT_ICMP, _REJECT_RESET, _PORT_UNREACHABLE = 0, 1, 3
#: For those who list a set: addresses and a port.
_TYPE_ADDRESS, _TYPE_PORT = 7, 13
#: A share of packets is drawn among so many.
_PARTS = 1_000_000
#: Elements of one message: an attribute has 64 kB.
_ELEMENTS = 2000
#: Bytes of a key: both addresses, and a port where one is meant.
ADDRESSES_ONLY, WITH_PORT = 8, 12
_KEY_ATTRIBUTES = {
    size: struct.pack("=HH", 12 + size, 1 | 0x8000)  # an element of a list
    + struct.pack("=HH", 8 + size, 1 | 0x8000)  # its key
    + struct.pack("=HH", 4 + size, 1)  # the key's value
    for size in (ADDRESSES_ONLY, WITH_PORT)
}


@dataclass(frozen=True)
class Group:
    """Packets that share a fate. A key is made by `key`; those of one group are of one size."""

    manner: Manner
    keys: tuple[bytes, ...]
    #: Whether only TCP to the port in the key is meant.
    port: bool = False
    #: Of `Manner.LOSE`: which share of them, from 0 to 1.
    share: float = 1.0


def key(source: str, destination: str, port: int | None) -> bytes:
    """What packets from an address to another (and to a port of TCP) have in their headers."""
    return packed(source) + packed(destination) + (b"" if port is None else packed_port(port))


def packed(address: str) -> bytes:
    """An address as it stands in a header, and so in a key."""
    return socket.inet_aton(address)


def packed_port(port: int) -> bytes:
    """A port of TCP as it ends a key."""
    return struct.pack(">HH", port, 0)


class Table:
    """Our one table in a namespace; to be made while the thread stands there. Nothing is made before it is needed.

    Args:
        family: `BRIDGE` or `IPV4`.
    """

    def __init__(self, family: int) -> None:
        self._family = family
        self._channel = Channel(NETFILTER)
        # an engine's bridges may have those of several runs
        self._name = f"zkchaos-{self._channel.port}"
        self._groups: tuple[Group, ...] = ()

    def set(self, groups: Sequence[Group]) -> None:
        """Let these fates hold and no others, from one moment on. Nothing is sent where that is so already.

        Raises:
            OSError: the kernel refused; what held goes on holding.
        """
        wanted = tuple(groups)
        if wanted == self._groups:
            return
        messages = [self._message(_DELETE_TABLE, text(1, self._name))] if self._groups else []
        if wanted:
            messages += _table(self._family, self._name)
        if any(group.manner is Manner.REJECT for group in wanted):
            # where two refuse each other, each must hear that it was refused
            messages += [self._rule(_ANSWERS_OF_TCP), self._rule(_ANSWERS_BY_ICMP)]
        for number, group in enumerate(wanted):
            messages += self._set_and_rule(f"set{number}", group)
        self._channel.send_all(transaction(messages))
        self._groups = wanted

    def _set_and_rule(self, name: str, group: Group) -> list[Message]:
        size = WITH_PORT if group.port else ADDRESSES_ONLY
        kind = _TYPE_ADDRESS << 6 | _TYPE_ADDRESS
        body = text(1, self._name) + text(2, name) + be32(3, 0)
        body += be32(4, kind << 6 | _TYPE_PORT if group.port else kind) + be32(5, size)
        body += nested(9, be32(1, len(group.keys))) + be32(10, 1)
        messages = [self._message(_NEW_SET, body, CREATE)]
        header, keys = _KEY_ATTRIBUTES[size], group.keys
        for start in range(0, len(keys), _ELEMENTS):
            some = header + header.join(keys[start : start + _ELEMENTS])
            body = text(1, self._name) + text(2, name) + attribute(3 | 0x8000, some)
            messages.append(self._message(_NEW_ELEMENTS, body, CREATE))
        rules = _rules(group.manner, group.share, name, port=group.port)
        return [*messages, *map(self._rule, rules)]

    def _rule(self, expressions: bytes) -> Message:
        body = text(1, self._name) + text(2, _CHAIN) + attribute(4 | 0x8000, expressions)
        return self._message(_NEW_RULE, body, CREATE | APPEND)

    def _message(self, kind: int, body: bytes, flags: int = 0) -> Message:
        return of_nftables(kind, self._family, body, flags)

    def close(self) -> None:
        """Let go of the socket, and the table goes with it."""
        self._channel.close()


@lru_cache(maxsize=256)
def _table(family: int, name: str) -> tuple[Message, ...]:
    hook = nested(4, be32(1, _HOOKS[family]), be32(2, 0))
    chain = text(1, name) + text(3, _CHAIN) + hook + be32(5, _ACCEPT) + text(7, "filter")
    return (
        of_nftables(_NEW_TABLE, family, text(1, name) + be32(2, _OWNED), CREATE),
        of_nftables(_NEW_CHAIN, family, chain, CREATE),
    )


@lru_cache(maxsize=256)
def _rules(manner: Manner, share: float, name: str, *, port: bool) -> tuple[bytes, ...]:
    """The expressions of each rule that it takes to let those in a set have their fate."""
    match manner:
        case Manner.DROP:
            return (_looked_up(name, port=port) + _verdict(_DROP),)
        case Manner.LOSE:
            return (_looked_up(name, port=port) + _chance(share) + _verdict(_DROP),)
        case Manner.REJECT:
            # what speaks TCP is told by a reset, all else by ICMP, as a host does on whose port nobody listens
            reset = _looked_up(name, port=port, tcp=True) + _expression("reject", be32(1, _REJECT_RESET))
            icmp = _expression("reject", be32(1, _REJECT_ICMP), attribute(2, bytes([_PORT_UNREACHABLE])))
            return (reset,) if port else (reset, _looked_up(name) + icmp)


def _looked_up(name: str, *, port: bool = False, tcp: bool = False) -> bytes:
    """Go on only with IPv4 (and TCP) whose key is in a set."""
    body = _meta(_META_PROTOCOL) + _compared(struct.pack(">H", 0x0800))
    if port or tcp:
        body += _meta(_META_TRANSPORT) + _compared(bytes([socket.IPPROTO_TCP]))
    body += _payload(_KEY, _NETWORK_HEADER, *_ADDRESSES)
    if port:
        body += _payload(_KEY + 2, _TRANSPORT_HEADER, *_PORT)
    return body + _expression("lookup", text(1, name), be32(2, _KEY))


def _meta(what: int) -> bytes:
    return _expression("meta", be32(1, _DRAWN), be32(2, what))


def _compared(value: bytes, how: int = _EQUAL) -> bytes:
    return _expression("cmp", be32(1, _DRAWN), be32(2, how), nested(3, attribute(1, value)))


def _masked(bits: int) -> bytes:
    mask, flip = nested(4, attribute(1, bytes([bits]))), nested(5, attribute(1, bytes([0])))
    return _expression("bitwise", be32(1, _DRAWN), be32(2, _DRAWN), be32(3, 1), mask, flip)


def _payload(register: int, base: int, offset: int, length: int) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def _chance(share: float) -> bytes:
    drawn = _expression("numgen", be32(1, _DRAWN), be32(2, _PARTS), be32(3, 1), be32(4, 0))
    # numbers are compared from their first byte on, and the kernel draws them in the machine's own order
    ordered = _expression("byteorder", be32(1, _DRAWN), be32(2, _DRAWN), be32(3, 1), be32(4, 4), be32(5, 4))
    return drawn + ordered + _compared(struct.pack(">I", round(share * _PARTS)), _LESS)


def _verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, code))))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


#: A reset of TCP, and what says by ICMP that somebody cannot be reached.
_ANSWERS_OF_TCP = (
    _meta(_META_TRANSPORT)
    + _compared(bytes([socket.IPPROTO_TCP]))
    + _payload(_DRAWN, _TRANSPORT_HEADER, *_FLAGS)
    + _masked(_RESET)
    + _compared(bytes([0]), _UNEQUAL)
    + _verdict(_ACCEPT)
)
_ANSWERS_BY_ICMP = (
    _meta(_META_TRANSPORT)
    + _compared(bytes([socket.IPPROTO_ICMP]))
    + _payload(_DRAWN, _TRANSPORT_HEADER, *_TYPE)
    + _compared(bytes([_UNREACHABLE]))
    + _verdict(_ACCEPT)
)

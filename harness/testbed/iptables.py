"""Refusing packets by ip_tables, for kernels whose nftables know no IPv4, as Debian's user-mode one.

The table `filter` of a host is replaced as a whole, as `iptables-restore` does it (linux/netfilter_ipv4/ip_tables.h);
the host has no other rules in it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence

from harness.testbed.nft import Group

_NAME = b"filter".ljust(32, b"\0")
#: Options of the socket, to ask and to replace; what is said of a table, and what replaces it.
_OPTION = 64
_INFO = struct.Struct("=32s13I")
_REPLACE = struct.Struct("=32s14IQ")
#: The hooks of the table: into the host, through it, out of it; and their bits.
_IN, _THROUGH, _OUT = 1, 2, 3
_HOOKS = 1 << _IN | 1 << _THROUGH | 1 << _OUT
#: Addresses, masks, interfaces, protocol, two bytes of flags, cache, where the target is and the next rule, counters.
_RULE = struct.Struct("=4s4s4s4s64xH2xIHHI16x")
#: A match or a target: its size, its name, its revision.
_PART = struct.Struct("=H29sB")
#: What matches TCP: ports from and to, an option, flags that are looked at and those that are set, what is meant not.
_OF_TCP = struct.Struct("=4H4B")
_EVERY = b"\xff" * 4
_ACCEPT = -2
_REJECT_PORT, _REJECT_RESET = 3, 7
_libc = ctypes.CDLL(None, use_errno=True)


class RefusingTable:
    """The filter of one host; to be made while the thread stands there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
        self._groups: tuple[Group, ...] = ()

    def set(self, groups: Sequence[Group]) -> None:
        """Refuse packets with these keys and no others. Nothing is sent where that is so already.

        Raises:
            OSError: the kernel refused; what held goes on holding.
        """
        wanted = tuple(groups)
        if wanted == self._groups:
            return
        rules = [rule for group in wanted for one in group.keys for rule in _refusals(one, port=group.port)]
        # where two refuse each other, each must hear that it was refused
        heard = [_answers(socket.IPPROTO_TCP, _RESETS), _answers(socket.IPPROTO_ICMP, _UNREACHABLE)]
        self._replace([*heard, *rules] if rules else [])
        self._groups = wanted

    def _replace(self, rules: Sequence[bytes]) -> None:
        accept = _answers(0, b"")
        end = _rule(bytes(4), bytes(4), 0, b"", _target(b"ERROR", b"ERROR".ljust(30, b"\0")))
        blob = b"".join((*rules, accept, accept, accept, end))
        into = sum(map(len, rules))
        policies = [into + place * len(accept) for place in range(3)]
        # of the five hooks that there are, the table has the three in the middle
        entries = (0, 0, *policies[1:], 0)
        underflows = (0, *policies, 0)
        held = self._held()
        counters = ctypes.create_string_buffer(16 * held)
        head = _REPLACE.pack(
            *(_NAME, _HOOKS, len(rules) + 4, len(blob)), *entries, *underflows, held, ctypes.addressof(counters)
        )
        self._socket.setsockopt(socket.SOL_IP, _OPTION, head + blob)

    def _held(self) -> int:
        """How many rules there are now: the kernel replaces no others than those that we know of."""
        buffer = ctypes.create_string_buffer(_NAME, _INFO.size)
        length = ctypes.c_uint32(_INFO.size)
        words = (ctypes.c_int(self._socket.fileno()), socket.SOL_IP, _OPTION, buffer, ctypes.byref(length))
        if _libc.getsockopt(*words):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(_INFO.unpack(buffer.raw)[12])

    def close(self) -> None:
        """Let go of the socket; the rules stay."""
        self._socket.close()


def _refusals(key: bytes, *, port: bool) -> list[bytes]:
    """What speaks TCP is told by a reset, all else by ICMP."""
    source, destination = key[:4], key[4:8]
    match = _to_port(struct.unpack(">H", key[8:10])[0]) if port else b""
    reset = _rule(source, destination, socket.IPPROTO_TCP, match, _rejecting(_REJECT_RESET))
    return [reset] if port else [reset, _rule(source, destination, 0, b"", _rejecting(_REJECT_PORT))]


def _answers(protocol: int, match: bytes) -> bytes:
    """A rule that lets these pass, from wherever they are."""
    return _rule(bytes(4), bytes(4), protocol, match, _target(b"", struct.pack("=i", _ACCEPT)))


def _rejecting(how: int) -> bytes:
    return _target(b"REJECT", struct.pack("=I", how))


def _to_port(port: int) -> bytes:
    return _target(b"tcp", _OF_TCP.pack(0, 65535, port, port, 0, 0, 0, 0))


def _target(name: bytes, data: bytes) -> bytes:
    size = (_PART.size + len(data) + 7) & ~7
    return (_PART.pack(size, name, 0) + data).ljust(size, b"\0")


def _rule(source: bytes, destination: bytes, protocol: int, match: bytes, target: bytes) -> bytes:
    masks = (_EVERY if any(source) else source, _EVERY if any(destination) else destination)
    behind = _RULE.size + len(match)
    head = _RULE.pack(source, destination, *masks, protocol, 0, behind, behind + len(target), 0)
    return head + match + target


#: A reset of TCP, and what says by ICMP that somebody cannot be reached: type 3, codes from 0 to 255.
_RESETS = _target(b"tcp", _OF_TCP.pack(0, 65535, 0, 65535, 0, 4, 4, 0))
_UNREACHABLE = _target(b"icmp", struct.pack("=4B", 3, 0, 255, 0))

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
        self._replace(rules)
        self._groups = wanted

    def _replace(self, rules: Sequence[bytes]) -> None:
        accept = _rule(bytes(4), bytes(4), 0, b"", _target(b"", struct.pack("=i", _ACCEPT)))
        end = _rule(bytes(4), bytes(4), 0, b"", _target(b"ERROR", b"ERROR".ljust(30, b"\0")))
        blob = b"".join((*rules, accept, accept, accept, end))
        into = sum(map(len, rules))
        policies = [into + place * len(accept) for place in range(3)]
        unused = (0, 0)
        entries = (unused[0], 0, *policies[1:], unused[1])
        underflows = (unused[0], *policies, unused[1])
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


def _rejecting(how: int) -> bytes:
    return _target(b"REJECT", struct.pack("=I", how))


def _to_port(port: int) -> bytes:
    data = struct.pack("=6H", 0, 65535, port, port, 0, 0)
    return _target(b"tcp", data)


def _target(name: bytes, data: bytes) -> bytes:
    size = (_PART.size + len(data) + 7) & ~7
    return (_PART.pack(size, name, 0) + data).ljust(size, b"\0")


def _rule(source: bytes, destination: bytes, protocol: int, match: bytes, target: bytes) -> bytes:
    masks = (_EVERY if any(source) else source, _EVERY if any(destination) else destination)
    behind = _RULE.size + len(match)
    head = _RULE.pack(source, destination, *masks, protocol, 0, behind, behind + len(target), 0)
    return head + match + target

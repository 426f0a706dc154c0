"""Which host reaches which: one datagram from every NIC to every other NIC of the same switch, on the wire."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.testbed import wire

#: UDP port of the probe; far from ZooKeeper's ports and from ephemeral ones.
_PROBE_PORT, _BROADCAST_PORT = 7077, 7078
#: The number of the round, and the place of the sender.
_PROBE = struct.Struct(">IH")
#: Most datagrams that are taken from one socket at once.
_MAX_WAITING = 1000
#: What is said of a path whose end is no host now, because its container does not run.
HOST_DOWN = errno.errorcode[errno.EHOSTDOWN]


@dataclass(frozen=True)
class End:
    """One NIC as the probe sees it: where it is, and the socket bound to it; None while its host is down."""

    host: str
    switch: str
    address: str
    probe: socket.socket | None


def probe_socket(interface: str, address: str) -> socket.socket:
    """A socket for one NIC; to be made while the thread stands on its host."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # Bound to the device, so that a probe never takes a detour over another switch.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    probe.bind((address, _PROBE_PORT))
    return probe


def broadcast_address(address: str, prefix_length: int) -> str:
    """The address that all of a NIC's network hear."""
    return str(ipaddress.ip_interface(f"{address}/{prefix_length}").network.broadcast_address)


def broadcast_socket(interface: str, address: str) -> socket.socket:
    """A socket of one NIC that hears what is said to all, and says it; to be made while the thread stands on its host.

    Nobody asks for the receiver's hardware address first, so it shows what passes at this very moment.
    """
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            ear.bind((address, _BROADCAST_PORT))
        except OSError as problem:
            if problem.errno != errno.EADDRNOTAVAIL:
                raise  # else the NIC is down, and so hears nothing; what it sends tells why not
    except BaseException:
        ear.close()
        raise
    return ear


class Prober:
    """Measures; each round has a number, so that a late datagram of an earlier round is not taken for a new one.

    The first number is drawn, because what is said to all on an engine's network is heard by other agents, too.
    """

    def __init__(self) -> None:
        self._round = secrets.randbits(32)

    def measure(
        self, ends: Sequence[End], timeout_ms: int, count: int = 1, *, broadcast: bool = False
    ) -> tuple[wire.Path, ...]:
        """All paths between these NICs at once, with so many datagrams on each; the first that arrives counts.

        Args:
            ends: the NICs.
            timeout_ms: how long to wait for those that do not arrive.
            count: how many datagrams on each path.
            broadcast: whether each NIC says it to all at once; the sockets are of `broadcast_socket` then.
        """
        self._round = (self._round + 1) & 0xFFFFFFFF
        sent: dict[tuple[int, int], int] = {}
        errors: dict[tuple[int, int], str] = {}
        for i, source in enumerate(ends):
            others = [j for j, end in enumerate(ends) if j != i and end.switch == source.switch]
            said = ""
            for place, j in enumerate(others):
                sent[i, j] = sent[i, others[0]] if broadcast and place else time.monotonic_ns()
                if not broadcast:
                    error = self._send(source, ends[j], i, _PROBE_PORT, count)
                else:
                    said = said if place else self._send(source, source, i, _BROADCAST_PORT, count)
                    error = said or (HOST_DOWN if ends[j].probe is None else "")
                if error:
                    errors[i, j] = error
        arrived = self._collect(ends, set(sent) - set(errors), timeout_ms)
        return tuple(
            wire.Path(
                ends[i].host,
                ends[j].host,
                ends[i].switch,
                (arrived[i, j] - at) / 1000 if (i, j) in arrived else None,
                errors.get((i, j), ""),
            )
            for (i, j), at in sent.items()
        )

    def _send(self, source: End, destination: End, i: int, port: int, count: int) -> str:
        """Send, and tell why not. A first error may be the late answer to an earlier probe, so it is tried twice."""
        if source.probe is None or destination.probe is None:
            return HOST_DOWN
        error = ""
        for _ in range(count):
            for _attempt in range(2):
                try:
                    source.probe.sendto(_PROBE.pack(self._round, i), (destination.address, port))
                except OSError as problem:
                    error = errno.errorcode.get(problem.errno or 0, str(problem.errno))
                else:
                    error = ""
                    break
        return error

    def _collect(
        self, ends: Sequence[End], expected: set[tuple[int, int]], timeout_ms: int
    ) -> dict[tuple[int, int], int]:
        arrived: dict[tuple[int, int], int] = {}
        poller = select.poll()
        probes = {end.probe.fileno(): (j, end.probe) for j, end in enumerate(ends) if end.probe is not None}
        for descriptor in probes:
            poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic_ns() + timeout_ms * 1_000_000
        while expected - arrived.keys() and (left := deadline - time.monotonic_ns()) > 0:
            for descriptor, _events in poller.poll(left / 1e6):
                j, probe = probes[descriptor]
                for payload in _drain(probe):
                    round_number, i = _PROBE.unpack(payload)
                    if round_number == self._round:
                        arrived.setdefault((i, j), time.monotonic_ns())
        return arrived


def _drain(probe: socket.socket) -> list[bytes]:
    payloads: list[bytes] = []
    for _ in range(_MAX_WAITING):
        try:
            payload = probe.recv(64)
        except BlockingIOError:
            break
        except OSError:  # the answer to an earlier probe ("no route to host"); the next read goes on
            continue
        if len(payload) == _PROBE.size:
            payloads.append(payload)
    return payloads

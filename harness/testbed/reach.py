"""Which host reaches which: one datagram from every NIC to every other NIC of the same switch, on the wire."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.testbed import wire

#: UDP port of the probe; far from ZooKeeper's ports and from ephemeral ones.
_PROBE_PORT = 7077
_PROBE = struct.Struct(">IHH")
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


class Prober:
    """Measures; each round has a number, so that a late datagram of an earlier round is not taken for a new one."""

    def __init__(self) -> None:
        self._round = 0

    def measure(self, ends: Sequence[End], timeout_ms: int, count: int = 1) -> tuple[wire.Path, ...]:
        """All paths between these NICs at once, with so many datagrams on each; the first that arrives counts."""
        self._round = (self._round + 1) & 0xFFFFFFFF
        sent: dict[tuple[int, int], int] = {}
        errors: dict[tuple[int, int], str] = {}
        for i, source in enumerate(ends):
            for j, destination in enumerate(ends):
                if i != j and source.switch == destination.switch:
                    sent[i, j] = time.monotonic_ns()
                    for _ in range(count):
                        if error := self._send(source, destination, i, j):
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

    def _send(self, source: End, destination: End, i: int, j: int) -> str:
        """Send, and tell why not. A first error may be the late answer to an earlier probe, so it is tried twice."""
        if source.probe is None or destination.probe is None:
            return HOST_DOWN
        for _attempt in range(2):
            try:
                source.probe.sendto(_PROBE.pack(self._round, i, j), (destination.address, _PROBE_PORT))
            except OSError as problem:
                error = errno.errorcode.get(problem.errno or 0, str(problem.errno))
            else:
                return ""
        return error

    def _collect(
        self, ends: Sequence[End], expected: set[tuple[int, int]], timeout_ms: int
    ) -> dict[tuple[int, int], int]:
        arrived: dict[tuple[int, int], int] = {}
        poller = select.poll()
        probes = {end.probe.fileno(): end.probe for end in ends if end.probe is not None}
        for descriptor in probes:
            poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic_ns() + timeout_ms * 1_000_000
        while expected - arrived.keys() and (left := deadline - time.monotonic_ns()) > 0:
            for descriptor, _events in poller.poll(left / 1e6):
                for payload in _drain(probes[descriptor]):
                    round_number, i, j = _PROBE.unpack(payload)
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

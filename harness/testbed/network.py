"""The agent's network: switches are bridges in one network namespace, each host is a namespace of its own.

A NIC is one end of a veth pair in its host's namespace, named after its switch; the other end is a port of the
bridge. A switch that dies takes the carrier of all its ports with it, as a switch without power does; a cable
that is cut takes one. There is no default route and no address on a bridge: no packet leaves a namespace.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from harness.errors import TestbedError
from harness.testbed import kernel, wire

#: UDP port of the reachability probe; far from ZooKeeper's ports and from ephemeral ones.
_PROBE_PORT = 7077
_PROBE = struct.Struct(">IHH")
#: The ports' maximal number.
_MAX_PORTS = 1000
#: Interface indexes: the loopback's is the kernel's choice in every network namespace; the others are ours.
_LOOPBACK_INDEX, _FIRST_INDEX = 1, 2


@dataclass
class _Space:
    """A network namespace and a netlink socket that stays inside it."""

    descriptor: int
    netlink: IPRoute
    #: Interface indexes by name.
    indexes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Port:
    """One cable: a host's NIC, its port of the switch, and the socket that probes it."""

    host: str
    switch: str
    address: str
    index: int
    probe: socket.socket


class Network:
    """All switches, hosts and cables of one topology. Used by the agent's main thread only."""

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._switches: _Space | None = None
        self._hosts: dict[str, _Space] = {}
        self._ports: dict[tuple[str, str], _Port] = {}
        self._round = 0

    def build(self, request: wire.Build) -> None:
        """Make everything and bring it up. Where we may choose an interface's index, it need not be looked up."""
        self._switches = self._new_space()
        for number, name in enumerate(request.switches):
            index = _FIRST_INDEX + number
            self._switches.netlink.link(
                "add", ifname=name, index=index, kind="bridge", br_stp_state=0, br_mcast_snooping=0, state="up"
            )
            self._switches.indexes[name] = index
        for host in request.hosts:
            self._add_host(self._switches, host)

    def _add_host(self, switches: _Space, host: wire.HostSpec) -> None:
        space = self._new_space()
        self._hosts[host.name] = space
        self._set_link(space, _LOOPBACK_INDEX, up=True)
        for number, nic in enumerate(host.nics):
            if len(self._ports) >= _MAX_PORTS:
                raise TestbedError("too many NICs in one topology", where=f"{host.name}:{nic.switch}")
            own, port_name = _FIRST_INDEX + number, f"port{len(self._ports)}"
            peer = {"ifname": port_name, "net_ns_fd": switches.descriptor}
            space.netlink.link("add", ifname=nic.switch, index=own, kind="veth", peer=peer, state="up")
            port = self._index(switches, port_name)
            space.netlink.addr("add", index=own, address=nic.address, prefixlen=nic.prefix_length)
            switches.netlink.link(
                "set", index=port, master=switches.indexes[nic.switch], state="up", ifalias=f"{host.name}:{nic.switch}"
            )
            with self.inside(host.name):
                probe = _probe_socket(nic)
            self._ports[host.name, nic.switch] = _Port(host.name, nic.switch, nic.address, port, probe)

    def _new_space(self) -> _Space:
        kernel.unshare(kernel.CLONE_NEWNET)
        try:
            descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return _Space(descriptor, IPRoute())
        finally:
            kernel.setns(self._home, kernel.CLONE_NEWNET)

    @staticmethod
    def _index(space: _Space, name: str) -> int:
        found = space.netlink.link_lookup(ifname=name)
        if not found:
            raise TestbedError("the kernel did not make this interface", where=name)
        return int(found[0])

    @staticmethod
    def _set_link(space: _Space, index: int, *, up: bool) -> None:
        space.netlink.link("set", index=index, state="up" if up else "down")

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Let the calling thread stand on a host: sockets and processes made meanwhile belong to it."""
        space = self._hosts.get(host)
        if space is None:
            raise TestbedError("there is no such host", where=host, next_step=f"hosts: {', '.join(self._hosts)}")
        kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.setns(self._home, kernel.CLONE_NEWNET)

    def set_links(self, changes: tuple[wire.LinkChange, ...]) -> None:
        """Cut and restore, in one go. Idempotent."""
        for change in changes:
            space = self._built()
            ports = [p for p in self._ports.values() if p.switch == change.switch and change.host in (None, p.host)]
            if not ports or change.switch not in space.indexes:
                raise TestbedError("there is no such link", where=f"{change.host or '*'}:{change.switch}")
            if change.host is None:
                self._set_link(space, space.indexes[change.switch], up=change.up)
            for port in ports:
                if port.host not in change.but:
                    self._set_link(space, port.index, up=change.up)

    def links(self) -> tuple[wire.LinkState, ...]:
        """Every switch and port as the kernel has it now."""
        space = self._built()
        up = {link["index"]: bool(link["flags"] & 1) for link in space.netlink.get_links()}
        switches = [wire.LinkState(name, None, up[index]) for name, index in space.indexes.items()]
        ports = [wire.LinkState(p.switch, p.host, up[p.index]) for p in self._ports.values()]
        return (*switches, *ports)

    def reach(self, switches: tuple[str, ...], timeout_ms: int) -> tuple[wire.Path, ...]:
        """One datagram from every NIC to every other NIC of the same switch, on the wire; all at once."""
        self._round += 1
        ports = [p for p in self._ports.values() if p.switch in switches]
        sent: dict[tuple[int, int], int] = {}
        errors: dict[tuple[int, int], str] = {}
        for i, source in enumerate(ports):
            for j, destination in enumerate(ports):
                if i != j and source.switch == destination.switch:
                    sent[i, j] = time.monotonic_ns()
                    payload = _PROBE.pack(self._round & 0xFFFFFFFF, i, j)
                    error = _send_probe(source.probe, payload, destination.address)
                    if error:
                        errors[i, j] = error
        arrived = self._collect(ports, set(sent) - set(errors), timeout_ms)
        return tuple(
            wire.Path(
                ports[i].host,
                ports[j].host,
                ports[i].switch,
                (arrived[i, j] - at) / 1000 if (i, j) in arrived else None,
                errors.get((i, j), ""),
            )
            for (i, j), at in sent.items()
        )

    def _collect(
        self, ports: list[_Port], expected: set[tuple[int, int]], timeout_ms: int
    ) -> dict[tuple[int, int], int]:
        arrived: dict[tuple[int, int], int] = {}
        poller = select.poll()
        by_descriptor = {port.probe.fileno(): port.probe for port in ports}
        for descriptor in by_descriptor:
            poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic_ns() + timeout_ms * 1_000_000
        while expected - arrived.keys() and (left := deadline - time.monotonic_ns()) > 0:
            for descriptor, _events in poller.poll(left / 1e6):
                for payload in _drain(by_descriptor[descriptor]):
                    round_number, i, j = _PROBE.unpack(payload)
                    if round_number == self._round & 0xFFFFFFFF:
                        arrived[i, j] = time.monotonic_ns()
        return arrived

    def _built(self) -> _Space:
        if self._switches is None:
            raise TestbedError("the network was not built yet")
        return self._switches


def _probe_socket(nic: wire.NicSpec) -> socket.socket:
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # Bound to the device, so that a probe never takes a detour over another switch.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, nic.switch.encode())
    probe.bind((nic.address, _PROBE_PORT))
    return probe


def _send_probe(probe: socket.socket, payload: bytes, address: str) -> str:
    """Send, and tell why not. A first error may be the late answer to an earlier probe, so it is tried twice."""
    for _attempt in range(2):
        try:
            probe.sendto(payload, (address, _PROBE_PORT))
        except OSError as problem:
            error = errno.errorcode.get(problem.errno or 0, str(problem.errno))
        else:
            return ""
    return error


def _drain(probe: socket.socket) -> list[bytes]:
    payloads: list[bytes] = []
    for _ in range(_MAX_PORTS):
        try:
            payload = probe.recv(64)
        except BlockingIOError:
            break
        except OSError:  # the answer to an earlier probe ("no route to host"); the next read goes on
            continue
        if len(payload) == _PROBE.size:
            payloads.append(payload)
    return payloads

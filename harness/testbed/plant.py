"""The agent's plant: switches, hosts and the cables between them, made here or joined as containers come and go.

A NIC is one end of a veth pair in its host's namespace; the other end is a port of its switch's bridge. In the embedded
testbed the agent makes all of it, the bridges in one more namespace; there is no default route and no address on a
bridge, so no packet leaves. On a Docker engine the bridges are the engine's, and the hosts of servers are containers,
which join and leave as they start and end; client hosts are made here all the same.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed import kernel, wire
from harness.testbed.bridge import EngineBridge
from harness.testbed.reach import probe_socket
from harness.testbed.spaces import Cable, Home, Space, Surroundings

#: The cables' maximal number.
_MAX_CABLES = 1000
#: Interface indexes: the loopback's is the kernel's choice in every network namespace; the others are ours.
_LOOPBACK_INDEX, _FIRST_INDEX = 1, 2


@dataclass(frozen=True)
class Port:
    """The two ends of a plugged cable: the index of the switch's port; the NIC's index, name and probing socket."""

    index: int
    nic: int
    interface: str
    probe: socket.socket


@dataclass(frozen=True)
class _Plug:
    """A NIC of a container: its address, its name there, and the index of its cable's other end."""

    address: str
    interface: str
    port: int


class Plant:
    """All switches, hosts and cables of one topology, as they are plugged."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.home = Home()
        self.hosts: dict[str, Space] = {}
        self.containers: set[str] = set()
        #: A namespace without anything, where a host is while its container does not run; None without containers.
        self.nowhere: Space | None = None
        self.cables: dict[Cable, wire.NicSpec] = {}
        #: Of those cables that are plugged: a container's are while it runs.
        self.ports: dict[Cable, Port] = {}
        #: By index; none where the switches are our own.
        self.bridges: dict[int, EngineBridge] = {}
        #: Ports that were made here, and not by the engine for a container.
        self.made: list[int] = []
        self._switches: Space | None = None

    @property
    def switches(self) -> Space:
        """Where the switches are.

        Raises:
            TestbedError: nothing was built yet.
        """
        return _built(self._switches)

    @property
    def is_built(self) -> bool:
        """Whether there is anything."""
        return self._switches is not None

    # --- making it -----------------------------------------------------------------------------------------

    def build(self, request: wire.Build) -> None:
        """Make everything and bring it up. Where we may choose an interface's index, it need not be looked up."""
        for host in request.hosts:
            self.cables.update({(host.name, nic.switch): nic for nic in host.nics})
        if len(self.cables) > _MAX_CABLES:
            raise TestbedError("too many NICs in one topology", where=f"{len(self.cables)} NICs")
        if request.engine is None:
            self._switches, tag = self.home.make(), "port"
            self._make_switches(self._switches, request.switches)
        else:
            self._switches = self.home.enter(self.surroundings.network_of(request.engine.pid))
            bridges, tag = request.engine.bridges, request.engine.tag
            self._switches.indexes = {name: self._switches.index_of(bridges[name]) for name in request.switches}
            self.bridges = {i: EngineBridge(bridges[name], i) for name, i in self._switches.indexes.items()}
            self.nowhere = self.home.make()
        for host in request.hosts:
            if host.container:
                self.containers.add(host.name)
                self.hosts[host.name] = _built(self.nowhere)
            else:
                self._add_host(self._switches, host, tag)

    def _make_switches(self, space: Space, names: tuple[str, ...]) -> None:
        # A port has no address. Without IPv6 it goes up and down twice as fast, and says nothing of its own.
        with self.standing(None), contextlib.suppress(OSError):  # there may be no IPv6 at all
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1", encoding="ascii")
        for number, name in enumerate(names):
            index = _FIRST_INDEX + number
            space.netlink.link(
                "add", ifname=name, index=index, kind="bridge", br_stp_state=0, br_mcast_snooping=0, state="up"
            )
            space.indexes[name] = index

    def _add_host(self, switches: Space, host: wire.HostSpec, tag: str) -> None:
        space = self.home.make()
        self.hosts[host.name] = space
        space.set_link(_LOOPBACK_INDEX, up=True)
        for number, nic in enumerate(host.nics):
            own, port_name = _FIRST_INDEX + number, f"{tag}{len(self.ports)}"
            peer = {"ifname": port_name, "net_ns_fd": switches.descriptor}
            space.netlink.link("add", ifname=nic.switch, index=own, kind="veth", peer=peer, state="up")
            port = switches.index_of(port_name)
            self.made.append(port)
            space.netlink.addr("add", index=own, address=nic.address, prefixlen=nic.prefix_length)
            switches.netlink.link(
                "set", index=port, master=switches.indexes[nic.switch], state="up", ifalias=f"{host.name}:{nic.switch}"
            )
            with self.inside(host.name):
                self.ports[host.name, nic.switch] = Port(port, own, nic.switch, probe_socket(nic.switch, nic.address))

    # --- containers come and go -----------------------------------------------------------------------------

    def join(self, host: str, pid: int) -> None:
        """Take a running container's namespace for the host, and its cables as they are plugged; see `Network.join`."""
        space = self.home.enter(self.surroundings.network_of(pid))
        try:
            plugs = {nic.switch: self._plug(nic, host, space) for nic in self._nics_of(host)}
        except BaseException:
            space.close()
            raise
        self.hosts[host] = space
        for switch, plug in plugs.items():
            with self.inside(host):
                self.ports[host, switch] = Port(
                    plug.port, space.index_of(plug.interface), plug.interface, _probe_socket(host, plug)
                )
            nic = self.cables[host, switch]
            self.cables[host, switch] = wire.NicSpec(switch, plug.address, nic.prefix_length)

    def _plug(self, nic: wire.NicSpec, host: str, space: Space) -> _Plug:
        """Where a container is plugged into a switch; with several NICs there, by the one with the address it had."""
        switches = self.switches
        bridge = switches.indexes[nic.switch]
        masters = {link["index"]: link.get_attr("IFLA_MASTER") for link in switches.netlink.get_links()}
        plugs = _plugs(space)
        there = [plug for plug in plugs if masters.get(plug.port) == bridge]
        same = [plug for plug in there if plug.address == nic.address]
        if not same and len(there) != 1:
            raise TestbedError(
                f"the container has no NIC with address {nic.address} on {nic.switch}",
                where=host,
                cause=f"it has {', '.join(plug.address for plug in plugs) or 'none'}",
            )
        return (same or there)[0]

    def leave(self, host: str) -> list[Cable]:
        """Let go of a container that has ended; its cables, or none where it had let go already."""
        nowhere = _built(self.nowhere)
        space = self.hosts.get(host)
        if space is None:
            raise self.no_host(host)
        if space is nowhere:
            return []
        self.hosts[host] = nowhere
        cables = [(host, nic.switch) for nic in self._nics_of(host)]
        for cable in cables:
            if (port := self.ports.pop(cable, None)) is not None:
                port.probe.close()
        space.close()
        return cables

    def _nics_of(self, host: str) -> list[wire.NicSpec]:
        return [nic for (owner, _switch), nic in self.cables.items() if owner == host]

    # --- standing on a host ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Let the calling thread stand on a host: sockets and processes made meanwhile belong to it."""
        space = self.hosts.get(host)
        if space is None:
            raise self.no_host(host)
        kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            self.home.come_back()

    @contextlib.contextmanager
    def standing(self, host: str | None) -> Iterator[None]:
        """Let the calling thread stand on a host, or with the switches (None)."""
        space = self.hosts[host] if host is not None else self.switches
        kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            self.home.come_back()

    def no_host(self, host: str) -> TestbedError:
        """What is to be said of a host that there is not."""
        return TestbedError("there is no such host", where=host, next_step=f"hosts: {', '.join(self.hosts)}")

    # --- finding interfaces ---------------------------------------------------------------------------------

    def way_out(self, cable: Cable, side: wire.Side) -> tuple[Space, int] | None:
        """The interface that packets leave by, on their way out of the host or into it; None while it is not there."""
        port = self.ports.get(cable)
        if port is None:
            return None
        if side is wire.Side.OUT:
            return self.hosts[cable[0]], port.nic
        return self.switches, port.index

    def port_indexes(self) -> dict[Cable, int]:
        """Of the switches' ports that have a cable now."""
        return {cable: port.index for cable, port in self.ports.items()}

    def check_nic(self, host: str, switch: str) -> None:
        """Refuse what is no NIC of this topology.

        Raises:
            TestbedError: there is no such NIC.
        """
        if (host, switch) not in self.cables:
            raise TestbedError("there is no such NIC", where=f"{host}:{switch}")


def _built(space: Space | None) -> Space:
    if space is None:
        raise TestbedError("the network was not built yet, or has no containers")
    return space


def _plugs(space: Space) -> list[_Plug]:
    links = {
        link["index"]: (str(link.get_attr("IFLA_IFNAME")), int(link.get_attr("IFLA_LINK") or 0))
        for link in space.netlink.get_links()
    }
    return [
        _Plug(str(address.get_attr("IFA_ADDRESS")), *links[address["index"]])
        for address in space.netlink.get_addr(family=socket.AF_INET)
        if links[address["index"]][1]
    ]


def _probe_socket(host: str, plug: _Plug) -> socket.socket:
    try:
        return probe_socket(plug.interface, plug.address)
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise
        raise TestbedError(
            "another zkchaos works on this container",
            where=host,
            cause="the port of its probes is taken",
            next_step="wait until it has ended",
        ) from problem

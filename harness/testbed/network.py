"""The agent's network: switches are bridges, each host is a network namespace of its own.

A NIC is one end of a veth pair in its host's namespace; the other end is a port of its switch's bridge. A switch that
dies takes the carrier of all its ports with it, as a switch without power does; a cable that is cut takes one.

In the embedded testbed the agent makes all of it, the bridges in one more namespace; there is no default route and no
address on a bridge, so no packet leaves. On a Docker engine the bridges are the engine's, and the hosts of servers are
containers, which join and leave as they start and end; client hosts are made here all the same.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.errors import TestbedError
from harness.testbed import kernel, wire
from harness.testbed.bridge import EngineBridge
from harness.testbed.filters import Filters, refusals
from harness.testbed.islands import Splits, SwitchFilter
from harness.testbed.measuring import Measurer
from harness.testbed.netlink import Message, set_link
from harness.testbed.nics import HostNics, nic_state
from harness.testbed.queues import Queues
from harness.testbed.reach import HOST_DOWN, End, Prober, broadcast_address, broadcast_socket, probe_socket
from harness.testbed.shaping import lacking
from harness.testbed.spaces import Cable, Home, Space, Surroundings
from harness.testbed.trains import train_socket

#: The cables' maximal number, and from how many on nobody asks for everybody's address.
_MAX_CABLES, _MANY_CABLES = 1000, 40
#: Interface indexes: the loopback's is the kernel's choice in every network namespace; the others are ours.
_LOOPBACK_INDEX, _FIRST_INDEX = 1, 2

#: How long the paths of a container that joined may take until they answer, and those of a new network, seconds.
_PATHS_TIMEOUT = (2.0, 5.0)
#: How long one look at them takes at most, milliseconds.
_FIRST_LOOK_MS = 20


@dataclass(frozen=True)
class _Port:
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


class Network:
    """All switches, hosts and cables of one topology. Used by the agent's main thread only."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self._home = Home()
        self._switches: Space | None = None
        self._hosts: dict[str, Space] = {}
        self._containers: set[str] = set()
        #: A namespace without anything, where a host is while its container does not run.
        self._nowhere: Space | None = None
        self._cables: dict[Cable, wire.NicSpec] = {}
        self._ports: dict[Cable, _Port] = {}
        #: What is cut, so that a container that starts meanwhile is cut off, too.
        self._cut: set[Cable] = set()
        self._cut_switches: set[int] = set()
        #: By index; none where the switches are our own.
        self._bridges: dict[int, EngineBridge] = {}
        #: Ports that were made here, and not by the engine for a container.
        self._made: list[int] = []
        self._prober = Prober()
        self._filters = Filters(self._standing, lambda host: self._hosts[host] is not self._nowhere)
        self._nics = HostNics(lambda cable: self._way_out(cable, wire.Side.OUT), self._containers.__contains__)
        self._splits = Splits(self._switch_filter)
        self._queues = Queues(self._way_out)
        self._measurer = Measurer(self._train_socket)
        # The thread that ends the agent restores what the main thread may be cutting right now.
        self._breaking = threading.Lock()
        self._ending = False

    # --- making it -----------------------------------------------------------------------------------------

    def build(self, request: wire.Build) -> None:
        """Make everything and bring it up. Where we may choose an interface's index, it need not be looked up."""
        for host in request.hosts:
            self._cables.update({(host.name, nic.switch): nic for nic in host.nics})
        if len(self._cables) > _MAX_CABLES:
            raise TestbedError("too many NICs in one topology", where=f"{len(self._cables)} NICs")
        if request.engine is None:
            self._switches, tag = self._home.make(), "port"
            self._make_switches(self._switches, request.switches)
        else:
            self._switches = self._home.enter(self.surroundings.network_of(request.engine.pid))
            bridges, tag = request.engine.bridges, request.engine.tag
            self._switches.indexes = {name: self._switches.index_of(bridges[name]) for name in request.switches}
            self._bridges = {i: EngineBridge(bridges[name], i) for name, i in self._switches.indexes.items()}
            self._nowhere = self._home.make()
        for host in request.hosts:
            if host.container:
                self._containers.add(host.name)
                self._hosts[host.name] = self._built(self._nowhere)
            else:
                self._add_host(self._switches, host, tag)
        self._await_paths()

    def _await_paths(self, host: str | None = None) -> None:
        """Return when every NIC (or each of one host) reaches every other, which takes a millisecond, mostly.

        The kernel announces a new carrier to the bridge at once or, if it was busy announcing, a second later
        (`linkwatch_schedule_work` in net/core/link_watch.c); a port that is set down and up again is announced anew.
        That is done to ports of our own alone. Of a container that joins, nothing is demanded: what is broken there
        may be what somebody wants to look at.

        Raises:
            TestbedError: a network of our own making carries no packets.
        """
        deadline = time.monotonic() + _PATHS_TIMEOUT[host is None]
        while dead := self._dead_paths(host):
            if time.monotonic() > deadline:
                if host is not None:
                    return
                names = ", ".join(f"{p.source} to {p.destination} over {p.switch}" for p in dead[:3])
                raise TestbedError("the new network carries no packets", where=names)
            for cable in {(end, p.switch) for p in dead for end in (p.source, p.destination)}:
                if cable[0] not in self._containers:
                    for up in (False, True):
                        self._built(self._switches).set_link(self._ports[cable].index, up=up)

    def _dead_paths(self, host: str | None) -> list[wire.Path]:
        """The paths that do not answer, although every link of theirs is set up, and no host is down."""
        # the kernel has room for a thousand neighbours, of all namespaces together
        many = len(self._cables) > _MANY_CABLES
        look = _FIRST_LOOK_MS + len(self._cables)
        paths = self.reach(wire.Reach(tuple(self._built(self._switches).indexes), look, broadcast=many))
        dead = [
            p for p in paths if p.micros is None and p.error != HOST_DOWN and host in (None, p.source, p.destination)
        ]
        if not dead:
            return []
        # also what others have cut: whoever looks at an ensemble that is broken need not wait for it
        down: set[tuple[str | None, str]] = {(link.host, link.switch) for link in self.links() if not link.up}
        down |= self._nics.down
        return [
            p
            for p in dead
            if not {(end, p.switch) for end in (None, p.source, p.destination)} & down
            and not self._splits.part(p.switch, p.source, p.destination)
        ]

    def _make_switches(self, space: Space, names: tuple[str, ...]) -> None:
        # A port has no address. Without IPv6 it goes up and down twice as fast, and says nothing of its own.
        with self._standing(None), contextlib.suppress(OSError):  # there may be no IPv6 at all
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1", encoding="ascii")
        for number, name in enumerate(names):
            index = _FIRST_INDEX + number
            space.netlink.link(
                "add", ifname=name, index=index, kind="bridge", br_stp_state=0, br_mcast_snooping=0, state="up"
            )
            space.indexes[name] = index

    def _add_host(self, switches: Space, host: wire.HostSpec, tag: str) -> None:
        space = self._home.make()
        self._hosts[host.name] = space
        space.set_link(_LOOPBACK_INDEX, up=True)
        for number, nic in enumerate(host.nics):
            own, port_name = _FIRST_INDEX + number, f"{tag}{len(self._ports)}"
            peer = {"ifname": port_name, "net_ns_fd": switches.descriptor}
            space.netlink.link("add", ifname=nic.switch, index=own, kind="veth", peer=peer, state="up")
            port = switches.index_of(port_name)
            self._made.append(port)
            space.netlink.addr("add", index=own, address=nic.address, prefixlen=nic.prefix_length)
            switches.netlink.link(
                "set", index=port, master=switches.indexes[nic.switch], state="up", ifalias=f"{host.name}:{nic.switch}"
            )
            with self.inside(host.name):
                self._ports[host.name, nic.switch] = _Port(port, own, nic.switch, probe_socket(nic.switch, nic.address))

    # --- containers come and go -----------------------------------------------------------------------------

    def join(self, host: str, pid: int) -> None:
        """Take a running container's namespace for the host; links that are cut stay cut.

        Its NICs are told by the bridges that they are plugged into: an engine may give it other addresses than it had.

        Raises:
            TestbedError: the container has ended, lacks a NIC of the host, or another agent works on it.
        """
        self.leave(host)
        space = self._home.enter(self.surroundings.network_of(pid))
        try:
            plugs = {nic.switch: self._plug(nic, host, space) for nic in self._nics_of(host)}
        except BaseException:
            space.close()
            raise
        self._hosts[host] = space
        for switch, plug in plugs.items():
            with self.inside(host):
                self._ports[host, switch] = _Port(
                    plug.port, space.index_of(plug.interface), plug.interface, _probe_socket(host, plug)
                )
            nic = self._cables[host, switch]
            self._cables[host, switch] = wire.NicSpec(switch, plug.address, nic.prefix_length)
            if (host, switch) in self._cut:
                self._built(self._switches).set_link(plug.port, up=False)
        with self._breaking:
            if not self._ending:
                self._splits.apply(self._port_indexes())
                for switch in plugs:
                    if (host, switch) in self._nics.down:
                        self._nics.apply((host, switch))
        self._await_paths(host)
        with self._breaking:
            if not self._ending:
                self._filters.joined(self._cables)
                self._shape(host)

    def _plug(self, nic: wire.NicSpec, host: str, space: Space) -> _Plug:
        """Where a container is plugged into a switch; with several NICs there, by the one with the address it had."""
        switches = self._built(self._switches)
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

    def leave(self, host: str) -> None:
        """Let go of a container that has ended. Idempotent."""
        nowhere = self._built(self._nowhere)
        space = self._hosts.get(host)
        if space is None:
            raise self._no_host(host)
        if space is nowhere:
            return
        self._hosts[host] = nowhere
        for nic in self._nics_of(host):
            cable = (host, nic.switch)
            if (port := self._ports.pop(cable, None)) is not None:
                port.probe.close()
            self._nics.forget(cable)
            self._measurer.forget(cable)
            self._queues.forget(cable)
        self._filters.forget(host)
        space.close()

    def _nics_of(self, host: str) -> list[wire.NicSpec]:
        return [nic for (owner, _switch), nic in self._cables.items() if owner == host]

    # --- standing on a host ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Let the calling thread stand on a host: sockets and processes made meanwhile belong to it."""
        space = self._hosts.get(host)
        if space is None:
            raise self._no_host(host)
        kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            self._home.come_back()

    @contextlib.contextmanager
    def _standing(self, host: str | None) -> Iterator[None]:
        """Let the calling thread stand on a host, or with the switches (None)."""
        space = self._hosts[host] if host is not None else self._built(self._switches)
        kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            self._home.come_back()

    def connecting(self, host: str, address: str, port: int) -> socket.socket:
        """A non-blocking TCP socket on a host that has begun to connect. Where that fails at once, it has no peer."""
        with self.inside(host):
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        opened.connect_ex((address, port))
        return opened

    def _no_host(self, host: str) -> TestbedError:
        return TestbedError("there is no such host", where=host, next_step=f"hosts: {', '.join(self._hosts)}")

    # --- breaking it ----------------------------------------------------------------------------------------

    def set_links(self, changes: tuple[wire.LinkChange, ...]) -> None:
        """Cut and restore, in one go. Idempotent."""
        with self._breaking:
            if not self._ending:
                self._set_links(changes)

    def _set_links(self, changes: tuple[wire.LinkChange, ...]) -> None:
        space = self._built(self._switches)
        messages: list[Message] = []
        owners: list[Cable | None] = []
        for change in changes:
            cables = [c for c in self._cables if c[1] == change.switch and change.host in (None, c[0])]
            if not cables or change.switch not in space.indexes:
                raise TestbedError("there is no such link", where=f"{change.host or '*'}:{change.switch}")
            if change.host is None:
                index = space.indexes[change.switch]
                (self._cut_switches.discard if change.up else self._cut_switches.add)(index)
                if index in self._bridges:
                    self._set_engine_switch(space, index, up=change.up)
                else:
                    messages.append(set_link(index, up=change.up))
                    owners.append(None)
            for cable in cables:
                if cable[0] not in change.but:
                    (self._cut.discard if change.up else self._cut.add)(cable)
                    # a container that does not run will find the cable as it is now
                    if (port := self._ports.get(cable)) is not None:
                        messages.append(set_link(port.index, up=change.up))
                        owners.append(cable)
        for refused in space.route.send(messages):
            owner = owners[refused.index]
            if owner is None or refused.errno != errno.ENODEV or self._nowhere is None:
                raise refused
            self.leave(owner[0])  # the container has just ended, and its NICs with it

    def _set_engine_switch(self, space: Space, index: int, *, up: bool) -> None:
        with self._standing(None):
            self._bridges[index].set(space.netlink, up=up)

    def set_nics(self, changes: tuple[wire.NicChange, ...]) -> None:
        """Set NICs up or down as their hosts do it. Idempotent."""
        for change in changes:
            if (change.host, change.switch) not in self._cables:
                raise TestbedError("there is no such NIC", where=f"{change.host}:{change.switch}")
        with self._breaking:
            if not self._ending:
                for change in changes:
                    self._set_nic((change.host, change.switch), up=change.up)

    def _set_nic(self, cable: Cable, *, up: bool) -> None:
        try:
            self._nics.set(cable, up=up)
        except NetlinkError as problem:
            if problem.code != errno.ENODEV or self._nowhere is None:
                raise
            self.leave(cable[0])  # the container has just ended, and its NICs with it

    def set_splits(self, splits: tuple[wire.Split, ...]) -> None:
        """Let switches be in these islands and no others, all at one moment."""
        for split in splits:
            for host in (name for island in split.islands for name in island):
                if (host, split.switch) not in self._cables:
                    raise TestbedError("there is no such NIC", where=f"{host}:{split.switch}")
        with self._breaking:
            if not self._ending:
                self._splits.want(splits)
                self._splits.apply(self._port_indexes())

    def _port_indexes(self) -> dict[Cable, int]:
        """Of the switches' ports that have a cable now."""
        return {cable: port.index for cable, port in self._ports.items()}

    def _switch_filter(self) -> SwitchFilter:
        with self._standing(None):
            return SwitchFilter()

    def set_rules(self, rules: tuple[wire.Rule, ...]) -> None:
        """Let these filters hold and no others, in one batch."""
        for rule in rules:
            if rule.host not in self._hosts:
                raise self._no_host(rule.host)
        with self._breaking:
            if not self._ending:
                self._filters.set(rules, self._cables)

    def set_shapes(self, shapes: tuple[wire.Shape, ...]) -> None:
        """Let packets be treated so and in no other way; only queues that change are touched."""
        for shape in shapes:
            if (shape.host, shape.switch) not in self._cables:
                raise TestbedError("there is no such NIC", where=f"{shape.host}:{shape.switch}")
        with self._breaking:
            if not self._ending:
                self._queues.want(shapes)
                self._shape()

    def _shape(self, only: str | None = None) -> None:
        """Let NICs have their shapes, but for those of containers that do not run."""
        for host in self._queues.apply(only):
            if self._nowhere is None:
                raise TestbedError("a NIC has vanished", where=host)
            self.leave(host)  # the container has just ended, and its NICs with it

    def _way_out(self, cable: Cable, side: wire.Side) -> tuple[Space, int] | None:
        """The interface that packets leave by, on their way out of the host or into it."""
        port = self._ports.get(cable)
        if port is None:
            return None
        if side is wire.Side.OUT:
            return self._hosts[cable[0]], port.nic
        return self._built(self._switches), port.index

    def lacking(self) -> dict[str, str]:
        """What the kernel refuses of what shapes and rules are made of, by the names of `lacking` and `refusals`."""
        space = self._home.make()
        try:
            found = lacking(space.route)
            kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
            return found | refusals()
        finally:
            self._home.come_back()
            space.close()

    def restore(self) -> None:
        """Give every link of a Docker engine back as it was, for good: its containers outlive the agent. Idempotent.

        Links of the agent's own namespaces need it not. May be called by any thread, and raises nothing: there is
        nobody left to tell.
        """
        if self._nowhere is None or self._switches is None:
            return
        with self._breaking:
            self._ending = True
            kernel.setns(self._switches.descriptor, kernel.CLONE_NEWNET)
            with IPRoute() as netlink:
                cut = [port.index for cable, port in list(self._ports.items()) if cable in self._cut]
                for index in self._cut_switches & self._bridges.keys():
                    with contextlib.suppress(NetlinkError):
                        self._bridges[index].set(netlink, up=True)
                for index in cut:
                    with contextlib.suppress(NetlinkError):
                        netlink.link("set", index=index, state="up")
                # A client's connection that could not say goodbye keeps its host, and so the port, for minutes.
                for index in self._made:
                    with contextlib.suppress(NetlinkError):
                        netlink.link("del", index=index)
            self._nics.restore()
            self._filters.restore()
            self._queues.restore()

    # --- looking at it --------------------------------------------------------------------------------------

    def links(self) -> tuple[wire.LinkState, ...]:
        """Every switch and cable as the kernel has it now; a cable whose container does not run, as it will find it."""
        space = self._built(self._switches)
        up = {link["index"]: bool(link["flags"] & 1) for link in space.netlink.get_links()}
        switches = [wire.LinkState(name, None, up.get(index, False)) for name, index in space.indexes.items()]
        cables = [
            wire.LinkState(switch, host, up.get(port.index, False) if port else (host, switch) not in self._cut)
            for host, switch in self._cables
            for port in [self._ports.get((host, switch))]
        ]
        return (*switches, *cables)

    def nics(self, switches: tuple[str, ...]) -> tuple[wire.NicState, ...]:
        """Every NIC as its host's kernel has it now; one whose container does not run, as it will find it."""
        found: list[wire.NicState] = []
        for host, switch in [cable for cable in self._cables if cable[1] in switches]:
            port = self._ports.get((host, switch))
            try:
                if port is not None:
                    found.append(nic_state(self._hosts[host].netlink, host, switch, port.nic))
                    continue
            except NetlinkError as problem:
                if problem.code != errno.ENODEV or self._nowhere is None:
                    raise  # else the container has just ended
            found.append(wire.NicState(switch, host, 0, (host, switch) not in self._nics.down))
        return tuple(found)

    def reach(self, request: wire.Reach) -> tuple[wire.Path, ...]:
        """Datagrams from every NIC to every other NIC of the same switch, on the wire; all at once."""
        with contextlib.ExitStack() as ears:
            ends = [
                End(host, switch, nic.address, port.probe if port else None)
                if not request.broadcast
                else End(host, switch, *self._ear((host, switch), ears))
                for (host, switch), nic in self._cables.items()
                if switch in request.switches
                for port in [self._ports.get((host, switch))]
            ]
            return self._prober.measure(ends, request.timeout_ms, request.count, broadcast=request.broadcast)

    def _ear(self, cable: Cable, ears: contextlib.ExitStack) -> tuple[str, socket.socket | None]:
        """The address that all of a NIC's network hear, and a socket there; None where its container does not run."""
        nic, port = self._cables[cable], self._ports.get(cable)
        address = broadcast_address(nic.address, nic.prefix_length)
        if port is None:
            return address, None
        with self.inside(cable[0]):
            return address, ears.enter_context(broadcast_socket(port.interface, address))

    def send_trains(self, request: wire.StartTrains) -> None:
        """Begin to measure; an earlier measurement is waited for."""
        for train in request.trains:
            for end in ((train.source, train.switch), (train.destination, train.switch)):
                if end not in self._cables:
                    raise TestbedError("there is no such NIC", where=":".join(end))
        self._measurer.start(request, {cable: nic.address for cable, nic in self._cables.items()})

    def arrivals(self) -> tuple[wire.Arrivals, ...] | None:
        """What became of the trains; None while they are on their way."""
        return self._measurer.arrivals()

    def _train_socket(self, cable: Cable) -> socket.socket | None:
        port = self._ports.get(cable)
        if port is None:
            return None
        with self.inside(cable[0]):
            return train_socket(port.interface, self._cables[cable].address)

    @staticmethod
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

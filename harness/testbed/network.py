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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.errors import TestbedError
from harness.testbed import kernel, wire
from harness.testbed.bridge import EngineBridge
from harness.testbed.filters import HostFilter, by_host, remove_filter
from harness.testbed.measuring import Measurer
from harness.testbed.queues import Queues
from harness.testbed.reach import HOST_DOWN, End, Prober, probe_socket
from harness.testbed.shaping import lacking
from harness.testbed.spaces import Cable, Home, Space, Surroundings
from harness.testbed.trains import train_socket

#: The cables' maximal number.
_MAX_CABLES = 1000
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
        #: What shall not be heard, by host, and the filters of those hosts that have had any.
        self._rules: Mapping[str, tuple[wire.Rule, ...]] = {}
        self._filters: dict[str, HostFilter] = {}
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
        paths = self.reach(tuple(self._built(self._switches).indexes), _FIRST_LOOK_MS)
        dead = [
            p for p in paths if p.micros is None and p.error != HOST_DOWN and host in (None, p.source, p.destination)
        ]
        if not dead:
            return []
        # also what others have cut: whoever looks at an ensemble that is broken need not wait for it
        down = {(link.host, link.switch) for link in self.links() if not link.up}
        return [p for p in dead if not {(end, p.switch) for end in (None, p.source, p.destination)} & down]

    @staticmethod
    def _make_switches(space: Space, names: tuple[str, ...]) -> None:
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
        self._await_paths(host)
        with self._breaking:
            if not self._ending:
                self._filter(host)
                for nic in self._nics_of(host):
                    self._shape((host, nic.switch))

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
            self._measurer.forget(cable)
            self._queues.forget(cable)
        if (old := self._filters.pop(host, None)) is not None:
            old.close()
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
        for change in changes:
            space = self._built(self._switches)
            cables = [c for c in self._cables if c[1] == change.switch and change.host in (None, c[0])]
            if not cables or change.switch not in space.indexes:
                raise TestbedError("there is no such link", where=f"{change.host or '*'}:{change.switch}")
            if change.host is None:
                index = space.indexes[change.switch]
                (self._cut_switches.discard if change.up else self._cut_switches.add)(index)
                self._set_switch(space, index, up=change.up)
            for cable in cables:
                if cable[0] not in change.but:
                    self._set_cable(space, cable, up=change.up)

    def _set_switch(self, space: Space, index: int, *, up: bool) -> None:
        bridge = self._bridges.get(index)
        if bridge is None:
            space.set_link(index, up=up)
            return
        kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
        try:
            bridge.set(space.netlink, up=up)
        finally:
            self._home.come_back()

    def _set_cable(self, space: Space, cable: Cable, *, up: bool) -> None:
        if up:
            self._cut.discard(cable)
        else:
            self._cut.add(cable)
        port = self._ports.get(cable)
        if port is None:
            return  # its container does not run; it will find the cable as it is now
        try:
            space.set_link(port.index, up=up)
        except NetlinkError as problem:
            if problem.code != errno.ENODEV or self._nowhere is None:
                raise
            self.leave(cable[0])  # the container has just ended, and its NICs with it

    def set_rules(self, rules: tuple[wire.Rule, ...]) -> None:
        """Let these filters hold and no others: a transaction for each host whose rules change."""
        for rule in rules:
            if rule.host not in self._hosts:
                raise self._no_host(rule.host)
        with self._breaking:
            if not self._ending:
                self._rules = by_host(rules, self._hosts)
                for host in self._hosts:
                    self._filter(host)

    def _filter(self, host: str) -> None:
        """Let a host's rules hold there, unless it is a container that does not run."""
        rules = self._rules.get(host, ())
        if self._hosts[host] is self._nowhere or not (rules or host in self._filters):
            return
        if host not in self._filters:
            with self.inside(host):
                self._filters[host] = HostFilter()
        self._filters[host].set(rules)

    def set_shapes(self, shapes: tuple[wire.Shape, ...]) -> None:
        """Let packets be treated so and in no other way; only queues that change are touched."""
        for shape in shapes:
            if (shape.host, shape.switch) not in self._cables:
                raise TestbedError("there is no such NIC", where=f"{shape.host}:{shape.switch}")
        with self._breaking:
            if not self._ending:
                self._queues.want(shapes)
                for cable in self._cables:
                    self._shape(cable)

    def _shape(self, cable: Cable) -> None:
        """Let a NIC have its shapes, unless it is a container's that does not run."""
        try:
            self._queues.apply(cable)
        except NetlinkError as problem:
            if problem.code != errno.ENODEV or self._nowhere is None:
                raise
            self.leave(cable[0])  # the container has just ended, and its NICs with it

    def _way_out(self, cable: Cable, side: wire.Side) -> tuple[Space, int] | None:
        """The interface that packets leave by, on their way out of the host or into it."""
        port = self._ports.get(cable)
        if port is None:
            return None
        if side is wire.Side.OUT:
            return self._hosts[cable[0]], port.nic
        return self._built(self._switches), port.index

    def lacking(self) -> dict[str, str]:
        """What the kernel refuses of what shapes are made of: `netem`, `tbf`, `htb`, and `numgen` of nftables."""
        space = self._home.make()
        try:
            refusals = lacking(space.netlink)
            kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
            try:
                with contextlib.closing(HostFilter()) as trial:
                    trial.set([wire.Rule("", "10.0.0.1", wire.Manner.LOSE, share=0.1)])
            except (NetlinkError, OSError) as problem:
                refusals["numgen"] = str(problem)
        finally:
            self._home.come_back()
            space.close()
        return refusals

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
            for host in list(self._filters):
                kernel.setns(self._hosts[host].descriptor, kernel.CLONE_NEWNET)
                with contextlib.suppress(NetlinkError):
                    remove_filter()
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

    def reach(self, switches: tuple[str, ...], timeout_ms: int, count: int = 1) -> tuple[wire.Path, ...]:
        """Datagrams from every NIC to every other NIC of the same switch, on the wire; all at once."""
        ends = [
            End(host, switch, nic.address, port.probe if port else None)
            for (host, switch), nic in self._cables.items()
            if switch in switches
            for port in [self._ports.get((host, switch))]
        ]
        return self._prober.measure(ends, timeout_ms, count)

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

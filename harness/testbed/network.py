"""The agent's network: what it is made of, how it breaks, and how it is given back.

A switch that dies takes the carrier of all its ports with it, as a switch without power does; a cable that is cut takes
one. The dying bridge is set down first, which silences all of its ports in one call of the kernel's; the carriers go
one by one, as the kernel does it, right behind the answer (`settle`) and before anything else is asked. What shall be
broken is remembered, so that a container that starts meanwhile finds it so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.errors import TestbedError
from harness.testbed import kernel, wire
from harness.testbed.filters import Filters, refusals
from harness.testbed.islands import Splits, SwitchFilter
from harness.testbed.looks import Looks
from harness.testbed.netlink import Message, Refused, set_link
from harness.testbed.nics import HostNics
from harness.testbed.plant import Plant
from harness.testbed.queues import Queues
from harness.testbed.shaping import lacking
from harness.testbed.spaces import Cable, Space, Surroundings

#: A kernel without preemption gives the processor to nobody else, as the caller, before a call of `settle`'s is done.
_PORTS_AT_ONCE = 8
#: A port is named by its cable, and a switch not at all.
_LinkMessage = tuple[Message, Cable | None]
_Refusal = tuple[Refused, Cable | None]


class Network:
    """All switches, hosts and cables of one topology. Used by the agent's main thread only."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self._plant = plant = Plant(surroundings)
        #: What is cut, so that a container that starts meanwhile is cut off, too.
        self._cut: set[Cable] = set()
        self._cut_switches: set[int] = set()
        self._filters = Filters(plant.standing, lambda host: plant.hosts[host] is not plant.nowhere)
        self._nics = HostNics(lambda cable: plant.way_out(cable, wire.Side.OUT), plant.containers.__contains__)
        self._splits = Splits(self._switch_filter)
        self._queues = Queues(plant.way_out)
        #: What can be seen of it.
        self.looks = Looks(plant, self._cut, self._nics.down, self._splits)
        # The thread that ends the agent restores what the main thread may be cutting right now.
        self._breaking = threading.Lock()
        self._ending = False
        #: What `settle` has to do: ports that lose their carrier because their switch has died.
        self._behind: dict[Cable, Message] = {}

    # --- making it -----------------------------------------------------------------------------------------

    def build(self, request: wire.Build) -> None:
        """Make everything, bring it up, and wait until packets pass."""
        self._plant.build(request)
        self.looks.await_paths()

    def join(self, host: str, pid: int) -> None:
        """Take a running container's namespace for the host; links that are cut stay cut.

        Its NICs are told by the bridges that they are plugged into: an engine may give it other addresses than it had.

        Raises:
            TestbedError: the container has ended, lacks a NIC of the host, or another agent works on it.
        """
        self.leave(host)
        plant = self._plant
        plant.join(host, pid)
        cables = [cable for cable in plant.cables if cable[0] == host]
        for cable in cables:
            if cable in self._cut:
                plant.switches.set_link(plant.ports[cable].index, up=False)
        with self._breaking:
            if not self._ending:
                self._splits.apply(plant.port_indexes())
                for cable in cables:
                    if cable in self._nics.down:
                        self._nics.apply(cable)
        self.looks.await_paths(host)
        with self._breaking:
            if not self._ending:
                self._filters.joined(plant.cables)
                self._shape(host)

    def leave(self, host: str) -> None:
        """Let go of a container that has ended. Idempotent."""
        if not (cables := self._plant.leave(host)):
            return
        for cable in cables:
            self._nics.forget(cable)
            self.looks.forget(cable)
            self._queues.forget(cable)
        self._filters.forget(host)

    def inside(self, host: str) -> AbstractContextManager[None]:
        """Let the calling thread stand on a host: sockets and processes made meanwhile belong to it."""
        return self._plant.inside(host)

    def connecting(self, host: str, address: str, port: int) -> socket.socket:
        """A non-blocking TCP socket on a host that has begun to connect. Where that fails at once, it has no peer."""
        with self._plant.inside(host):
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        opened.connect_ex((address, port))
        return opened

    # --- breaking it ----------------------------------------------------------------------------------------

    def set_links(self, changes: tuple[wire.LinkChange, ...]) -> None:
        """Cut and restore, in one go; nothing passes a dead switch, whose ports are for `settle` to do. Idempotent."""
        with self._breaking:
            if not self._ending:
                self._set_links(changes)

    def _set_links(self, changes: tuple[wire.LinkChange, ...]) -> None:
        space = self._plant.switches
        switches: list[_LinkMessage] = []
        ports: list[_LinkMessage] = []
        behind: dict[Cable, Message] = {}
        for change in changes:
            cables = [c for c in self._plant.cables if c[1] == change.switch and change.host in (None, c[0])]
            if not cables or change.switch not in space.indexes:
                raise TestbedError("there is no such link", where=f"{change.host or '*'}:{change.switch}")
            dies = change.host is None and not change.up
            if change.host is None:
                index = space.indexes[change.switch]
                (self._cut_switches.discard if change.up else self._cut_switches.add)(index)
                if index in self._plant.bridges:
                    self._set_engine_switch(space, index, up=change.up)
                else:
                    switches.append((set_link(index, up=change.up), None))
            for cable in cables:
                if cable[0] not in change.but:
                    (self._cut.discard if change.up else self._cut.add)(cable)
                    behind.pop(cable, None)
                    # a container that does not run will find the cable as it is now
                    if (port := self._plant.ports.get(cable)) is None:
                        continue
                    message = set_link(port.index, up=change.up)
                    if dies:
                        behind[cable] = message
                    else:
                        ports.append((message, cable))
        # what dies is silent now, and its ports follow; what is up before its ports costs the kernel a quarter less
        self._behind = behind
        self._check_sent(self._send_links([*switches, *ports]))

    def settle(self) -> None:
        """Do what is left of the last change: take the carrier of a dead switch's ports.

        To be called between the answer to one request and the next request, so that nobody sees it half done.

        Raises:
            Refused: the kernel refused one of them, while it is done for the others.
        """
        if not self._behind:
            return
        os.sched_yield()  # the caller, who may be waiting for this very processor, has the answer first
        with self._breaking:
            ports = [(message, cable) for cable, message in self._behind.items()]
            self._behind = {}
            if self._ending:
                return  # all of it has been given back already
            refused: list[_Refusal] = []
            for start in range(0, len(ports), _PORTS_AT_ONCE):
                refused += self._send_links(ports[start : start + _PORTS_AT_ONCE])
            self._check_sent(refused)

    def _send_links(self, batch: Sequence[_LinkMessage]) -> list[_Refusal]:
        refused = self._plant.switches.route.send([message for message, _cable in batch])
        return [(one, batch[one.index][1]) for one in refused]

    def _check_sent(self, refused: Sequence[_Refusal]) -> None:
        for problem, cable in refused:
            if cable is None or problem.errno != errno.ENODEV or self._plant.nowhere is None:
                raise problem
            self.leave(cable[0])  # the container has just ended, and its NICs with it

    def _set_engine_switch(self, space: Space, index: int, *, up: bool) -> None:
        with self._plant.standing(None):
            self._plant.bridges[index].set(space.netlink, up=up)

    def set_nics(self, changes: tuple[wire.NicChange, ...]) -> None:
        """Set NICs up or down as their hosts do it. Idempotent."""
        for change in changes:
            self._plant.check_nic(change.host, change.switch)
        with self._breaking:
            if not self._ending:
                for change in changes:
                    self._set_nic((change.host, change.switch), up=change.up)

    def _set_nic(self, cable: Cable, *, up: bool) -> None:
        try:
            self._nics.set(cable, up=up)
        except NetlinkError as problem:
            if problem.code != errno.ENODEV or self._plant.nowhere is None:
                raise
            self.leave(cable[0])  # the container has just ended, and its NICs with it

    def set_splits(self, splits: tuple[wire.Split, ...]) -> None:
        """Let switches be in these islands and no others, all at one moment."""
        for split in splits:
            for host in (name for island in split.islands for name in island):
                self._plant.check_nic(host, split.switch)
        with self._breaking:
            if not self._ending:
                self._splits.want(splits)
                self._splits.apply(self._plant.port_indexes())

    def _switch_filter(self) -> SwitchFilter:
        with self._plant.standing(None):
            return SwitchFilter()

    def set_rules(self, rules: tuple[wire.Rule, ...]) -> None:
        """Let these filters hold and no others, in one batch."""
        for rule in rules:
            if rule.host not in self._plant.hosts:
                raise self._plant.no_host(rule.host)
        with self._breaking:
            if not self._ending:
                self._filters.set(rules, self._plant.cables)

    def set_shapes(self, shapes: tuple[wire.Shape, ...]) -> None:
        """Let packets be treated so and in no other way; only queues that change are touched."""
        for shape in shapes:
            self._plant.check_nic(shape.host, shape.switch)
        with self._breaking:
            if not self._ending:
                self._queues.want(shapes)
                self._shape()

    def _shape(self, only: str | None = None) -> None:
        """Let NICs have their shapes, but for those of containers that do not run."""
        for host in self._queues.apply(only):
            if self._plant.nowhere is None:
                raise TestbedError("a NIC has vanished", where=host)
            self.leave(host)  # the container has just ended, and its NICs with it

    def lacking(self) -> dict[str, str]:
        """What the kernel refuses of what shapes and rules are made of, by the names of `lacking` and `refusals`."""
        space = self._plant.home.make()
        try:
            found = lacking(space.route)
            kernel.setns(space.descriptor, kernel.CLONE_NEWNET)
            return found | refusals()
        finally:
            self._plant.home.come_back()
            space.close()

    def restore(self) -> None:
        """Give every link of a Docker engine back as it was, for good: its containers outlive the agent. Idempotent.

        Links of the agent's own namespaces need it not. May be called by any thread, and raises nothing: there is
        nobody left to tell.
        """
        if self._plant.nowhere is None or not self._plant.is_built:
            return
        with self._breaking:
            self._ending = True
            kernel.setns(self._plant.switches.descriptor, kernel.CLONE_NEWNET)
            with IPRoute() as netlink:
                cut = [port.index for cable, port in list(self._plant.ports.items()) if cable in self._cut]
                for index in self._cut_switches & self._plant.bridges.keys():
                    with contextlib.suppress(NetlinkError):
                        self._plant.bridges[index].set(netlink, up=True)
                for index in cut:
                    with contextlib.suppress(NetlinkError):
                        netlink.link("set", index=index, state="up")
                # A client's connection that could not say goodbye keeps its host, and so the port, for minutes.
                for index in self._plant.made:
                    with contextlib.suppress(NetlinkError):
                        netlink.link("del", index=index)
            self._nics.restore()
            self._filters.restore()
            self._queues.restore()

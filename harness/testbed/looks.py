"""Looks at the agent's network: what the kernel says of its links, and what becomes of datagrams on the wire."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Set as AbstractSet

from pyroute2.netlink.exceptions import NetlinkError

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.islands import Splits
from harness.testbed.measuring import Measurer
from harness.testbed.nics import nic_state
from harness.testbed.plant import Plant
from harness.testbed.reach import HOST_DOWN, End, Prober, broadcast_address, broadcast_socket
from harness.testbed.spaces import Cable
from harness.testbed.trains import train_socket

#: From how many cables on nobody asks for everybody's address.
_MANY_CABLES = 40
#: How long the paths of a container that joined may take until they answer, and those of a new network, seconds.
_PATHS_TIMEOUT = (2.0, 5.0)
#: How long one look at them takes at most, milliseconds.
_FIRST_LOOK_MS = 20


class Looks:
    """Changes nothing.

    Args:
        plant: what is looked at.
        cut: the cables that are cut.
        down: the NICs that their hosts have set down.
        splits: the switches that are in islands.
    """

    def __init__(self, plant: Plant, cut: AbstractSet[Cable], down: AbstractSet[Cable], splits: Splits) -> None:
        self._plant, self._cut, self._down, self._splits = plant, cut, down, splits
        self._prober = Prober()
        self._measurer = Measurer(self._train_socket)

    def forget(self, cable: Cable) -> None:
        """A NIC has gone."""
        self._measurer.forget(cable)

    def links(self) -> tuple[wire.LinkState, ...]:
        """Every switch and cable as the kernel has it now; a cable whose container does not run, as it will find it."""
        space = self._plant.switches
        up = {link["index"]: bool(link["flags"] & 1) for link in space.netlink.get_links()}
        switches = [wire.LinkState(name, None, up.get(index, False)) for name, index in space.indexes.items()]
        cables = [
            wire.LinkState(switch, host, up.get(port.index, False) if port else (host, switch) not in self._cut)
            for host, switch in self._plant.cables
            for port in [self._plant.ports.get((host, switch))]
        ]
        return (*switches, *cables)

    def nics(self, switches: tuple[str, ...]) -> tuple[wire.NicState, ...]:
        """Every NIC as its host's kernel has it now; one whose container does not run, as it will find it."""
        found: list[wire.NicState] = []
        for host, switch in [cable for cable in self._plant.cables if cable[1] in switches]:
            port = self._plant.ports.get((host, switch))
            try:
                if port is not None:
                    found.append(nic_state(self._plant.hosts[host].netlink, host, switch, port.nic))
                    continue
            except NetlinkError as problem:
                if problem.code != errno.ENODEV or self._plant.nowhere is None:
                    raise  # else the container has just ended
            found.append(wire.NicState(switch, host, 0, (host, switch) not in self._down))
        return tuple(found)

    def reach(self, request: wire.Reach) -> tuple[wire.Path, ...]:
        """Datagrams from every NIC to every other NIC of the same switch, on the wire; all at once."""
        with contextlib.ExitStack() as ears:
            ends = [
                End(host, switch, nic.address, port.probe if port else None)
                if not request.broadcast
                else End(host, switch, *self._ear((host, switch), ears))
                for (host, switch), nic in self._plant.cables.items()
                if switch in request.switches
                for port in [self._plant.ports.get((host, switch))]
            ]
            return self._prober.measure(ends, request.timeout_ms, request.count, broadcast=request.broadcast)

    def _ear(self, cable: Cable, ears: contextlib.ExitStack) -> tuple[str, socket.socket | None]:
        """The address that all of a NIC's network hear, and a socket there; None where its container does not run."""
        nic, port = self._plant.cables[cable], self._plant.ports.get(cable)
        address = broadcast_address(nic.address, nic.prefix_length)
        if port is None:
            return address, None
        with self._plant.inside(cable[0]):
            return address, ears.enter_context(broadcast_socket(port.interface, address))

    def send_trains(self, request: wire.StartTrains) -> None:
        """Begin to measure; an earlier measurement is waited for."""
        for train in request.trains:
            for end in ((train.source, train.switch), (train.destination, train.switch)):
                self._plant.check_nic(*end)
        self._measurer.start(request, {cable: nic.address for cable, nic in self._plant.cables.items()})

    def arrivals(self) -> tuple[wire.Arrivals, ...] | None:
        """What became of the trains; None while they are on their way."""
        return self._measurer.arrivals()

    def _train_socket(self, cable: Cable) -> socket.socket | None:
        port = self._plant.ports.get(cable)
        if port is None:
            return None
        with self._plant.inside(cable[0]):
            return train_socket(port.interface, self._plant.cables[cable].address)

    def await_paths(self, host: str | None = None) -> None:
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
                if cable[0] not in self._plant.containers:
                    for up in (False, True):
                        self._plant.switches.set_link(self._plant.ports[cable].index, up=up)

    def _dead_paths(self, host: str | None) -> list[wire.Path]:
        """The paths that do not answer, although every link of theirs is set up, and no host is down."""
        # the kernel has room for a thousand neighbours, of all namespaces together
        many = len(self._plant.cables) > _MANY_CABLES
        look = _FIRST_LOOK_MS + len(self._plant.cables)
        paths = self.reach(wire.Reach(tuple(self._plant.switches.indexes), look, broadcast=many))
        dead = [
            p for p in paths if p.micros is None and p.error != HOST_DOWN and host in (None, p.source, p.destination)
        ]
        if not dead:
            return []
        # also what others have cut: whoever looks at an ensemble that is broken need not wait for it
        down: set[tuple[str | None, str]] = {(link.host, link.switch) for link in self.links() if not link.up}
        down |= self._down
        return [
            p
            for p in dead
            if not {(end, p.switch) for end in (None, p.source, p.destination)} & down
            and not self._splits.part(p.switch, p.source, p.destination)
        ]

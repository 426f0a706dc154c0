"""The agent's work: a request is read, carried out and answered, and then the next one."""

from __future__ import annotations

import errno
import select
import signal
import socket
import time

from pyroute2.netlink.exceptions import NetlinkError

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.network import Network
from harness.testbed.processes import Processes

#: What a request may end with, and the agent goes on.
_PROBLEMS = (TestbedError, NetlinkError, OSError)


class Server:
    """Answers requests, one after the other."""

    def __init__(self, connection: socket.socket, network: Network) -> None:
        self._connection = connection
        self._network = network
        self._processes = Processes(self._network)
        #: What went wrong behind an answer. The next request is carried out all the same, and answered with this.
        self._late: wire.Failed | None = None

    def serve(self) -> None:
        """Until the socket ends; ended children are reaped in between."""
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        poller = select.poll()
        poller.register(self._connection.fileno(), select.POLLIN)
        poller.register(wake.fileno(), select.POLLIN)
        while True:
            for descriptor, _event in poller.poll():
                if descriptor == wake.fileno():
                    wake.recv(4096)
                    self._processes.reap()
                else:
                    self._answer_one()

    def _answer_one(self) -> None:
        body, _descriptor = wire.receive(self._connection)
        carried: socket.socket | None = None
        reply: wire.Reply
        try:
            reply, carried = self._carry_out(wire.REQUESTS.decode(body))
        except _PROBLEMS as problem:
            reply = _failed(problem)
        if self._late is not None and not isinstance(reply, wire.Failed):
            reply, self._late = self._late, None
            if carried:
                carried.close()
            carried = None
        try:
            wire.send(self._connection, reply, carried.fileno() if carried else None)
        finally:
            if carried:
                carried.close()
        self._settle()

    def _settle(self) -> None:
        """Do now what nobody had to wait for, before the next request is read."""
        try:
            self._network.settle()
        except _PROBLEMS as problem:
            self._late = self._late or _failed(problem)

    def _carry_out(self, request: wire.Request) -> tuple[wire.Reply, socket.socket | None]:
        match request:
            case wire.Spawn():
                return self._processes.spawn(request)
            case wire.OpenSocket():
                return wire.SocketOpened(), self._network.connecting(request.host, request.address, request.port)
            case wire.GetLinks() | wire.Reach() | wire.GetProcesses() | wire.GetStates():
                return self._look(request), None
            case wire.GetLacking() | wire.GetTrains() | wire.GetNics():
                return self._look(request), None
            case _:
                started = time.monotonic_ns()
                self._change(request)
                return wire.Done(started, time.monotonic_ns()), None

    def _look(self, request: wire.Look) -> wire.Reply:
        reply: wire.Reply
        match request:
            case wire.GetLinks():
                reply = wire.Links(self._network.looks.links())
            case wire.GetNics():
                reply = wire.Nics(self._network.looks.nics(request.switches))
            case wire.Reach():
                reply = wire.Paths(self._network.looks.reach(request))
            case wire.GetLacking():
                reply = wire.Lacking(self._network.lacking())
            case wire.GetTrains():
                reply = wire.Trains(self._network.looks.arrivals())
            case wire.GetProcesses():
                reply = wire.Processes(self._processes.states())
            case wire.GetStates():
                reply = wire.States(tuple(map(self._network.surroundings.state_of, request.pids)))
        return reply

    def _change(self, request: wire.Change) -> None:
        match request:
            case wire.Build():
                self._network.build(request)
            case wire.Join():
                self._network.join(request.host, request.pid)
            case wire.Leave():
                self._network.leave(request.host)
            case wire.SetLinks():
                self._network.set_links(request.changes)
            case wire.SetNics():
                self._network.set_nics(request.changes)
            case wire.SetSplits():
                self._network.set_splits(request.splits)
            case wire.SetRules():
                self._network.set_rules(request.rules)
            case wire.SetShapes():
                self._network.set_shapes(request.shapes)
            case wire.StartTrains():
                self._network.looks.send_trains(request)
            case wire.Signal():
                self._processes.signal(request)
            case wire.Enclose():
                self._processes.enclose(request)


def _failed(problem: TestbedError | NetlinkError | OSError) -> wire.Failed:
    """One of `_PROBLEMS`, as the caller is told of it."""
    if isinstance(problem, TestbedError):
        return wire.Failed("TestbedError", problem.what, problem.where, problem.cause, problem.next_step)
    if isinstance(problem, NetlinkError):
        return wire.Failed("TestbedError", f"the kernel refused: {problem}", errno=int(problem.code))
    cause = "the process has no descriptors left" if problem.errno == errno.EMFILE else ""
    return wire.Failed("TestbedError", f"the kernel refused: {problem.strerror}", cause=cause, errno=problem.errno or 0)

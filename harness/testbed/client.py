"""The caller's end of the agent: start it, ask it, and be rid of it."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Protocol, TypeVar

from harness import errors
from harness.errors import TestbedError, ZkChaosError
from harness.testbed import wire

R = TypeVar("R", bound=wire.Reply)

#: How long the agent may take to start, and to answer, seconds. Far beyond what either takes (0.3 s; 1 ms).
_START_TIMEOUT = 30.0
_ANSWER_TIMEOUT = 30.0


class AgentPlace(Protocol):
    """Where an agent runs; it was begun to start."""

    @property
    def connection(self) -> socket.socket:
        """A Unix socket that leads to it, as in `wire`."""
        ...

    @property
    def name(self) -> str:
        """For messages: `pid 4711`."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process there needs to find its programs."""
        ...

    def ended(self) -> str | None:
        """How it ended, as in `ended with code 1`; None while it lives."""
        ...

    def end(self) -> None:
        """Wait until it has ended, now that the connection is closed; see to it that it does."""
        ...


class LocalProcess:
    """An agent beside the caller."""

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        self.environment: Mapping[str, str] = os.environ
        caller = os.pidfd_open(os.getpid())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.testbed.agent", str(theirs.fileno()), str(caller)],
                pass_fds=(theirs.fileno(), caller),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the caller's to handle
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        finally:
            theirs.close()
            os.close(caller)
        self.name = f"pid {self._process.pid}"

    def ended(self) -> str | None:
        """Its exit code, in words."""
        code = self._process.poll()
        return None if code is None else f"ended with code {code}"

    def end(self) -> None:
        """It ends by itself within milliseconds; after seconds, it is killed."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class AgentClient:
    """An agent, and the socket to it. Safe to use from several threads.

    Args:
        place: where it runs; by default a process beside this one.

    Raises:
        NamespacesForbidden: the machine refuses the namespaces.
        TestbedError: the agent did not start.
    """

    def __init__(self, place: AgentPlace | None = None) -> None:
        self._lock = threading.Lock()
        self._place = place or LocalProcess()
        self._connection = self._place.connection
        self._ready: wire.Ready | None = None
        #: What to do when the agent was killed.
        self.advice = "run again; nothing of the testbed is left"

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._place.ended() is None

    def wait_ready(self) -> None:
        """Wait until the agent stands in its namespaces. Called by the first request, too."""
        self._when_ready()

    def _wait_ready(self) -> wire.Ready:
        if self._ready is None:
            self._connection.settimeout(_START_TIMEOUT)
            reply, _descriptor = self._receive()
            if not isinstance(reply, wire.Ready):
                self.close()
                raise _error_of(reply)
            self._connection.settimeout(_ANSWER_TIMEOUT)
            self._ready = reply
        return self._ready

    def _when_ready(self) -> wire.Ready:
        with self._lock:
            return self._wait_ready()

    @property
    def rootless(self) -> bool:
        """Whether a user namespace was needed."""
        return self._when_ready().rootless

    @property
    def python(self) -> str:
        """The Python of its hosts that has the harness."""
        return self._when_ready().python

    @property
    def python_environment(self) -> dict[str, str]:
        """The environment that this Python needs."""
        return {**self._place.environment, "PYTHONPATH": self._when_ready().pythonpath}

    def ask(self, request: wire.Request, kind: type[R]) -> R:
        """Send a request and return its reply.

        Raises:
            TestbedError: the agent is gone, or could not do it.
        """
        reply, descriptor = self.ask_for_socket(request, kind)
        if descriptor is not None:
            descriptor.close()
        return reply

    def ask_for_socket(self, request: wire.Request, kind: type[R]) -> tuple[R, socket.socket | None]:
        """As `ask`, for replies that may carry a socket."""
        with self._lock:
            self._wait_ready()
            try:
                wire.send(self._connection, request)
            except (wire.ConnectionEnded, OSError) as gone:
                raise self._gone() from gone
            reply, descriptor = self._receive()
        carried = socket.socket(fileno=descriptor) if descriptor is not None else None
        if not isinstance(reply, kind):
            raise _error_of(reply)
        return reply, carried

    def _receive(self) -> tuple[wire.Reply, int | None]:
        try:
            body, descriptor = wire.receive(self._connection)
        except (wire.ConnectionEnded, OSError) as gone:
            raise self._gone() from gone
        return wire.REPLIES.decode(body), descriptor

    def _gone(self) -> TestbedError:
        return TestbedError(
            f"the testbed's agent {self._place.ended() or 'does not answer'}",
            where=self._place.name,
            cause="it was killed, or the machine is out of memory",
            next_step=self.advice,
        )

    def close(self) -> None:
        """End the agent and with it every process and interface of the testbed. Idempotent."""
        self._connection.close()
        self._place.end()


_spare: list[AgentClient] = []


def warm_up() -> None:
    """Start an agent for whoever needs one next, so that its start (0.3 s) passes while the caller does other things.

    Idempotent. A spare agent has made nothing but its own empty namespaces; it ends with this process.
    """
    if not _spare:
        _spare.append(AgentClient())
        atexit.register(_cool_down)


def give_back(agent: AgentClient) -> None:
    """Make an agent that was taken, and not used, the spare one again."""
    _spare.append(agent)


def _cool_down() -> None:
    while _spare:
        _spare.pop().close()


def take_agent() -> AgentClient:
    """The spare agent if there is one that lives, else a new one; it is the caller's to close."""
    while _spare:
        agent = _spare.pop()
        if agent.alive:
            return agent
        agent.close()
    return AgentClient()


def _error_of(reply: wire.Reply) -> ZkChaosError:
    if not isinstance(reply, wire.Failed):
        return TestbedError(f"the agent answered out of turn with {type(reply).__name__}")
    kind = errors.NamespacesForbidden if reply.kind == "NamespacesForbidden" else TestbedError
    return kind(reply.what, where=reply.where, cause=reply.cause, next_step=reply.next_step)

"""Hosts that are containers of a Docker engine, whoever made them: signalled, watched, and joined by the agent."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus

from docker.errors import APIError
from docker.models.containers import Container

from harness.errors import TestbedError
from harness.testbed import wire
from harness.testbed.agent_testbed import AgentTestbed
from harness.testbed.client import AgentClient
from harness.testbed.container_limits import ContainerLimits
from harness.testbed.handles import Exit, Limits, Pressure, Process
from harness.testbed.refusals import refusals
from harness.topology.model import Topology

#: States of a process that has ended.
_GONE = "XZ"
#: How long a process that has lost its namespaces may take to end, and how often it is looked at, seconds.
_ENDING, _POLL = 1.0, 0.01
#: How the engine reports a process that SIGKILL ended, and how the kernel does.
_KILLED, _BY_SIGKILL = 128 + signal.SIGKILL, -int(signal.SIGKILL)
#: What the engine answers to a signal for a container that does not run, or is gone.
_ENDED = (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND)


def client_tag(run_id: str) -> str:
    """What the names of a run's own ports on the engine's bridges begin with (`wire.EngineSpec.tag`)."""
    return f"zkc{run_id[:5]}"


class ContainerHosts(AgentTestbed):
    """A testbed whose servers' hosts are containers.

    Args:
        topology: whose servers they are.
        agent: an agent that can reach the engine's network namespace; it is closed with the testbed.
        kind: `docker`, or `docker-helper` where the agent is in a helper container.
    """

    def __init__(self, topology: Topology, agent: AgentClient, *, kind: str) -> None:
        super().__init__(agent)
        self.kind = kind
        self.servers = {server.host: server for server in topology.servers}
        #: The container of each server's host, once there is one.
        self.containers: dict[str, Container] = {}
        self._running: dict[str, Process] = {}
        self._limits: dict[str, ContainerLimits] = {}
        self._lock = threading.Lock()

    @property
    def rootless(self) -> bool:
        """Whether it works without privileges of this process's own."""
        return self.kind == "docker-helper"

    def start_host(self, host: str) -> Process:
        """Start a container that is there, or take one that runs; its NICs are the host's from now on.

        Raises:
            TestbedError: the engine refused, or a NIC is missing.
        """
        container = self.containers[host]
        if host in self._limits:
            self._limits[host].renew()
        with refusals(host):
            container.start()  # nothing, if it runs
            container.reload()
        process = Process(int(container.attrs["State"]["Pid"]), host, time.monotonic_ns())
        with self._lock:
            self._running[host] = process
        if process.pid:  # else it has ended already, which `exited` will tell
            try:
                self._agent.ask(wire.Join(host, process.pid), wire.Done)
            except TestbedError:
                if not self._is_ending(process):
                    raise
        return process

    def _is_ending(self, process: Process) -> bool:
        """Whether a container has ended, or does so now: its namespaces go before its process does."""
        deadline = time.monotonic() + _ENDING
        while self.state(process) not in _GONE:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def signal(self, process: Process, number: signal.Signals) -> None:
        """Send a signal; no error if the process has ended."""
        if process.host not in self.servers:
            super().signal(process, number)
            return
        with refusals(process.host):
            try:
                self.containers[process.host].kill(signal=number.name)
            except APIError as problem:
                if problem.status_code not in _ENDED:
                    raise

    def state(self, process: Process) -> str:
        """`R`, `S`, `T` (stopped), ... as in /proc/pid/stat, or `X` (ended)."""
        if process.host not in self.servers:
            return super().state(process)
        (state,) = self._agent.ask(wire.GetStates((process.pid,)), wire.States).states
        return state

    def limit_refusals(self) -> Mapping[str, str]:
        """Which of `cpu` and `memory` the engine's kernel does not limit for us, and why."""
        return {}

    def limit(self, host: str, limits: Limits) -> None:
        """Let a server's container have so much of the machine, and no more; over its end and next start, too.

        Raises:
            TestbedError: the engine refused.
        """
        if host not in self._limits:
            self._limits[host] = ContainerLimits(self.containers[host])
        self._limits[host].set(limits)

    def pressure(self, host: str) -> Pressure:
        """What the kernel has counted of a server's processes. Nothing, before they were ever limited."""
        return self._limits[host].pressure() if host in self._limits else Pressure()

    def exited(self, process: Process) -> Exit | None:
        """How it ended, or None while it lives."""
        if process.host not in self.servers:
            return super().exited(process)
        if process.pid and self.state(process) not in _GONE:
            return None
        container = self.containers[process.host]
        with refusals(process.host):
            container.reload()
        state = container.attrs["State"]
        if state["Running"] and int(state["Pid"]) == process.pid:
            return None  # the engine has not yet noticed
        with self._lock:
            if self._running.get(process.host) is process:
                del self._running[process.host]
                self._agent.ask(wire.Leave(process.host), wire.Done)
        code = int(state["ExitCode"])
        return Exit(_BY_SIGKILL if code == _KILLED else code, time.monotonic_ns())

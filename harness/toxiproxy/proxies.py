"""The proxies of a testbed: one toxiproxy on each host that connects, with a proxy for each server's port.

Which toxics hold is said as a whole, as with packet filters: what is there is compared with what shall be, and the
difference is made. So a toxiproxy that was killed, and started anew, gets again what still holds.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed.handles import Process, Testbed
from harness.topology.model import Topology
from harness.topology.proxies import Proxy, proxies_of
from harness.toxiproxy.api import CONTROL_PORT, Api, State, Toxic

#: How long one may take to start, and to end, seconds; it takes some 20 ms.
_START_S, _END_S = 10.0, 5.0
_POLL = 0.005
#: It says what it cannot do, and not each connection.
_ENVIRONMENT = {"LOG_LEVEL": "error"}


@dataclass(frozen=True)
class Wanted:
    """What shall hold on one proxy."""

    toxics: tuple[Toxic, ...] = ()
    #: Whether it shall refuse connections.
    down: bool = False


class Proxies:
    """The proxies of a topology, on a testbed that stands. They end with it.

    Args:
        testbed: where the hosts are.
        topology: which proxies there are.
        program: toxiproxy's.
        folder: what they say is written here, a file for each host.
    """

    def __init__(self, testbed: Testbed, topology: Topology, program: Path, folder: Path) -> None:
        self._testbed, self._program, self._folder = testbed, program, folder
        self._of_host: dict[str, list[Proxy]] = {}
        for proxy in proxies_of(topology):
            self._of_host.setdefault(proxy.source, []).append(proxy)
        self._processes: dict[str, Process] = {}

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that have proxies."""
        return tuple(self._of_host)

    def start(self) -> None:
        """Start one on each host, and return when all of them listen.

        Raises:
            TestbedError: one does not.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for host in self._of_host:
            self._spawn(host)
        for host in self._of_host:
            self._create(host)

    def process(self, host: str) -> Process:
        """The toxiproxy of a host."""
        return self._processes[host]

    def states(self) -> dict[str, State]:
        """Every proxy as its toxiproxy has it, by its name; without those of a host where none answers."""
        found: dict[str, State] = {}
        for host in self._of_host:
            with contextlib.suppress(TestbedError), Api(self._testbed, host) as api:
                found |= api.states()
        return found

    def set(self, wanted: Mapping[str, Wanted]) -> None:
        """Let this hold on these proxies, and nothing on all others; hosts at the same time.

        A toxiproxy that was killed is started again. So is one that does not do as it is told.

        Raises:
            TestbedError: it does not do so then either.
        """
        with ThreadPoolExecutor(max(1, len(self._of_host))) as pool:
            done = [pool.submit(self._set, host, wanted) for host in self._of_host]
        for one in done:
            one.result()

    def _set(self, host: str, wanted: Mapping[str, Wanted]) -> None:
        if self._testbed.exited(self._processes[host]) is None:
            with contextlib.suppress(TestbedError):
                self._change(host, wanted)
                return
            self._end(host)
        self._spawn(host)
        self._create(host)
        self._change(host, wanted)

    def _change(self, host: str, wanted: Mapping[str, Wanted]) -> None:
        with Api(self._testbed, host) as api:
            states = api.states()
            for proxy in self._of_host[host]:
                _change(api, states[proxy.name], wanted.get(proxy.name, Wanted()))

    def _spawn(self, host: str) -> None:
        argv = [str(self._program), "-host", "127.0.0.1", "-port", str(CONTROL_PORT)]
        self._processes[host] = self._testbed.spawn(host, argv, _ENVIRONMENT, self._folder / f"{host}.log")

    def _create(self, host: str) -> None:
        proxies = self._of_host[host]
        with self._answering(host) as api:
            api.create((p.name, _joined(p.listen), _joined(p.upstream)) for p in proxies)

    def _answering(self, host: str) -> Api:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return Api(self._testbed, host)
            except TestbedError:
                if time.monotonic() > deadline or self._testbed.exited(self._processes[host]) is not None:
                    raise
                time.sleep(_POLL)

    def _end(self, host: str) -> None:
        process = self._processes[host]
        self._testbed.signal(process, signal.SIGKILL)
        deadline = time.monotonic() + _END_S
        while self._testbed.exited(process) is None:
            if time.monotonic() > deadline:
                raise TestbedError("toxiproxy does not end, not even by SIGKILL", where=host)
            time.sleep(_POLL)


def _change(api: Api, state: State, wanted: Wanted) -> None:
    there = {toxic.name for toxic in state.toxics}
    names = {toxic.name for toxic in wanted.toxics}
    for name in sorted(there - names):
        api.remove(state.name, name)
    for toxic in wanted.toxics:
        if toxic.name not in there:
            api.add(state.name, toxic)
    if state.enabled == wanted.down:
        api.enable(state.name, enabled=not wanted.down)


def _joined(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"

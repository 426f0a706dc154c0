"""The register workload, seen from the process that performs the run: start, stop, and whether it is alive."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import msgspec

from harness.errors import LoadError, TestbedError
from harness.history.folder import RunFolder
from harness.history.scenario import LoadSpec
from harness.load.client import ClientConfig
from harness.testbed.handles import Process, Testbed
from harness.topology.model import ClientHost, Topology

#: The znode below which the harness keeps what is no register.
ROOT = "/zkchaos"
#: How long a client process may take for each step, seconds.
_STEP_TIMEOUT = 40.0


def register_paths(spec: LoadSpec) -> tuple[str, ...]:
    """The znodes of the workload."""
    return tuple(f"{spec.root}/r{number:02d}" for number in range(spec.paths))


class RegisterLoad:
    """Client processes on the client hosts, one each, which share the sessions and the rate.

    Args:
        testbed: where they run.
        topology: which hosts there are, and the servers' addresses.
        folder: where they write their history.
        spec: how many, how fast.
        seed: the run's seed.
        round_number: 1 for the first load of a run; a later one has processes and files of other names.
    """

    def __init__(
        self,
        testbed: Testbed,
        topology: Topology,
        folder: RunFolder,
        spec: LoadSpec,
        *,
        seed: int,
        round_number: int = 1,
    ) -> None:
        self._testbed, self._topology, self._folder = testbed, topology, folder
        self.spec, self._seed = spec, seed
        self._suffix = "" if round_number == 1 else f"-{round_number}"
        self._processes: list[Process] = []

    def launch(self) -> None:
        """Start the processes; they load their libraries while the servers come up."""
        hosts = self._topology.client_hosts
        shares = [self.spec.clients // len(hosts) + (n < self.spec.clients % len(hosts)) for n in range(len(hosts))]
        for host, sessions in zip(hosts, shares, strict=True):
            if sessions:
                self._processes.append(self._launch_on(host, sessions))

    def _launch_on(self, host: ClientHost, sessions: int) -> Process:
        folder = self._folder.clients_folder
        config = ClientConfig(
            processes=tuple(f"{host.name}{self._suffix}.{number}" for number in range(sessions)),
            hosts=self._topology.connection_string(host=host),
            session_timeout_s=self.spec.session_timeout_ms / 1000,
            rate=self.spec.rate / self.spec.clients,
            window=self.spec.window,
            paths=register_paths(self.spec),
            seed=self._seed,
            output=str(folder / f"{host.name}{self._suffix}.jsonl"),
            root=self.spec.root,
        )
        file = folder / f"{host.name}{self._suffix}.config.json"
        file.write_bytes(msgspec.json.encode(config))
        python, environment = self._testbed.python
        return self._testbed.spawn(
            host.name,
            [python, "-m", "harness.load.client", str(file)],
            environment,
            folder / f"{host.name}{self._suffix}.log",
            channel=True,
        )

    def start(self) -> None:
        """Let the sessions connect and the operations begin.

        Raises:
            LoadError: a process failed, or its sessions did not connect.
        """
        self._all("ready")
        self._say("start")
        self._all("started")

    def settle(self) -> bool:
        """Wait until every session has had a write answered since now; False if some had none in 20 s."""
        self._say("settle")
        deadline = time.monotonic() + _STEP_TIMEOUT
        answers = [_hear(process, deadline) for process in self._processes]
        return all(answer == "settled" for answer in answers)

    def stop(self) -> None:
        """End the operations in flight, close the sessions, end the processes.

        Raises:
            LoadError: a process did not end in time, or had died before.
        """
        try:
            self._say("stop")
            self._all("stopped")
        finally:
            self.kill()

    def kill(self) -> None:
        """End the processes at once. Idempotent; their history is kept."""
        for process in self._processes:
            if process.channel is not None:
                process.channel.close()
            try:
                self._testbed.signal(process, signal.SIGKILL)
            except TestbedError:
                break  # the agent is gone, and every process with it
        self._processes.clear()

    def _say(self, word: str) -> None:
        for process in self._processes:
            try:
                _channel(process).sendall(f"{word}\n".encode())
            except OSError as gone:
                raise self._died(process, f"it ended before it was told to {word}") from gone

    def _all(self, word: str) -> None:
        deadline = time.monotonic() + _STEP_TIMEOUT
        for process in self._processes:
            heard = _hear(process, deadline)
            if heard != word:
                raise self._died(process, f"it said {heard!r} instead of {word!r}")

    def _died(self, process: Process, what: str) -> LoadError:
        log = self._folder.clients_folder / f"{process.host}{self._suffix}.log"
        return LoadError(
            f"the client process failed: {what}",
            where=process.host,
            cause=_last_line(log),
            next_step=f"see {log}",
        )


def _channel(process: Process) -> socket.socket:
    if process.channel is None:
        raise LoadError("the client process has no channel", where=process.host)
    return process.channel


def _hear(process: Process, deadline: float) -> str:
    """One line from a process; what it said so far if it said no more in time, or ended."""
    channel = _channel(process)
    heard = bytearray()
    while not heard.endswith(b"\n") and len(heard) < 4096:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        channel.settimeout(left)
        try:
            piece = channel.recv(1)
        except OSError:
            break
        if not piece:
            break
        heard += piece
    return heard.decode(errors="replace").strip()


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""

"""An ensemble: the servers of a topology as processes on its hosts, and what is known of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import EnsembleError, FaultError
from harness.history.folder import RunFolder, ServerFolder
from harness.history.records import Event, Phase, ProcessEvent
from harness.testbed.handles import Exit, Process, Testbed
from harness.topology.model import Server, Topology
from harness.zookeeper import admin
from harness.zookeeper.admin import ServerStatus
from harness.zookeeper.launch import Preparation, Starter
from harness.zookeeper.server_log import JVM_LOG, LOG_NAME

#: How often a condition is looked at, seconds. An admin word takes a millisecond.
_POLL = 0.03
#: The longest head start that the first servers get, seconds.
_HEAD_START = 2.0
#: How long an election waits for more votes once a majority agrees, seconds (FastLeaderElection.finalizeWait).
_FINALIZE_WAIT = 0.2
#: How long a server may take to end after SIGTERM, seconds.
_STOP_TIMEOUT = 10.0
#: What is shown of a server's log in an error, and how much of its end is read for that, bytes.
_LOG_LINES = 3
_LOG_TAIL = 16 * 1024
#: What a release's own script always says before the JVM has its say.
_CHATTER = ("ZooKeeper JMX ", "Using config: ")

#: Takes each event as it happens; a `LineWriter.write` in a run.
Record = Callable[[Event], None]


@dataclass
class _Running:
    process: Process
    paused: bool = False
    #: Whether its end was recorded.
    ended: bool = False


class Ensemble:
    """Start, stop, kill, pause and ask the servers of a topology. Safe to use from several threads for asking.

    Args:
        testbed: where the hosts are.
        topology: which servers.
        folder: each server's files go below `servers/<id>/`.
        starter: starts the servers.
        record: takes the events.
    """

    def __init__(
        self,
        testbed: Testbed,
        topology: Topology,
        folder: RunFolder,
        starter: Starter,
        record: Record,
    ) -> None:
        self.testbed, self.topology = testbed, topology
        self._folder, self._starter, self._record = folder, starter, record
        self._running: dict[int, _Running] = {}
        #: When the first quorum was seen, monotonic seconds; 0.0 before.
        self.quorum_at = 0.0

    def start(self, *, within: float = 60.0) -> None:
        """Start every server and wait until all of them serve.

        A bare majority starts first, and the others when all of it has answered and had the time of an election to
        itself: an election needs no more, and on a machine with few cores all at once would only hold each other up.
        Measured on two cores, the quorum is there 0.15 s sooner so, and the last server no later.

        Args:
            within: seconds.

        Raises:
            EnsembleError: a server ended, or no quorum formed in time.
        """
        for server in self.topology.servers:
            self._starter.prepare(server, self.server_folder(server.id))
        # the one with the highest id wins a first election, so it is among the first
        voters = sorted((s.id for s in self.topology.participants), reverse=True)
        first = voters[: self.topology.quorum_size]
        for server_id in first:
            self.start_server(server_id)
        if len(first) < len(self.topology.servers):
            self._wait_for_answers(first)
            time.sleep(_FINALIZE_WAIT)  # waits for nothing: the others' start is put off
        for server in self.topology.servers:
            self.start_server(server.id)
        self.wait_until_serving(within=within)

    def _wait_for_answers(self, servers: Iterable[int]) -> None:
        """Wait until all of these servers answer; whatever it is that keeps them from it is told elsewhere."""
        hosts = [self.topology.server(server_id).host for server_id in servers]
        deadline = time.monotonic() + _HEAD_START
        while time.monotonic() < deadline:
            if all(status.role != "down" for status in admin.statuses(self.testbed, hosts).values()):
                return
            time.sleep(_POLL)

    def preparation(self, name: str) -> Preparation:
        """What its servers were started with so that a fault can reach them later.

        Raises:
            FaultError: they were started without it.
        """
        if name not in self._starter.preparations:
            raise FaultError(
                f"the servers were started without what faults of {name} need",
                where=self.topology.name,
                next_step=f'a plan with such a fault sees to it; for a test by hand: @pytest.mark.prepared("{name}")',
            )
        return self._starter.preparations[name]

    def server_folder(self, server_id: int) -> ServerFolder:
        """Where a server's evidence lies."""
        return self._folder.server(server_id)

    def start_server(self, server_id: int) -> None:
        """Start one server's process; nothing if it runs already."""
        if self.is_running(server_id):
            return
        self._record_end(server_id)
        process = self._starter.start(self.topology.server(server_id), self.server_folder(server_id))
        self._running[server_id] = _Running(process)
        self._record(ProcessEvent(process.started, server_id, "started", process.pid))

    def is_running(self, server_id: int) -> bool:
        """Whether its process lives (it may be paused, or serve nobody)."""
        running = self._running.get(server_id)
        return running is not None and self.testbed.exited(running.process) is None

    def process_state(self, server_id: int) -> str:
        """`R`, `S`, `T` (paused), ... as in /proc, or `X` if there is none."""
        running = self._running.get(server_id)
        return "X" if running is None else self.testbed.state(running.process)

    def pid(self, server_id: int) -> int:
        """Its process id in the testbed, 0 if it was never started."""
        running = self._running.get(server_id)
        return 0 if running is None else running.process.pid

    def kill(self, server_id: int) -> None:
        """SIGKILL; returns when the process is gone."""
        self._end(server_id, signal.SIGKILL)

    def stop_server(self, server_id: int) -> None:
        """SIGTERM, and SIGKILL if it does not end in 10 s; returns when the process is gone."""
        self._end(server_id, signal.SIGTERM)

    def _end(self, server_id: int, number: signal.Signals) -> None:
        if self._send_end(server_id, number):
            self._await_end(server_id)

    def _send_end(self, server_id: int, number: signal.Signals) -> bool:
        """Send an ending signal; False if there is no process to end."""
        running = self._running.get(server_id)
        if running is None or self.testbed.exited(running.process) is not None:
            return False
        self.testbed.signal(running.process, number)
        if running.paused:
            # a stopped process takes no signal but SIGCONT and SIGKILL
            self.testbed.signal(running.process, signal.SIGCONT)
        return True

    def _await_end(self, server_id: int) -> None:
        process = self._running[server_id].process
        end = self._wait_for_end(process, _STOP_TIMEOUT)
        if end is None:
            self.testbed.signal(process, signal.SIGKILL)
            end = self._wait_for_end(process, _STOP_TIMEOUT)
        if end is None:
            raise EnsembleError("the server's process does not end, not even by SIGKILL", where=f"server {server_id}")
        self._record_end(server_id)

    def _record_end(self, server_id: int) -> None:
        """Record how its process ended, whoever ended it; nothing if it lives, or that was told."""
        running = self._running.get(server_id)
        if running is not None and not running.ended and (end := self.testbed.exited(running.process)) is not None:
            running.ended = True
            self._record(ProcessEvent(end.at, server_id, "ended", running.process.pid, end.code))

    def _wait_for_end(self, process: Process, seconds: float) -> Exit | None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (end := self.testbed.exited(process)) is not None:
                return end
            time.sleep(_POLL / 4)
        return None

    def pause(self, server_id: int) -> None:
        """SIGSTOP."""
        running = self._running[server_id]
        self.testbed.signal(running.process, signal.SIGSTOP)
        running.paused = True

    def resume(self, server_id: int) -> None:
        """SIGCONT."""
        running = self._running[server_id]
        self.testbed.signal(running.process, signal.SIGCONT)
        running.paused = False

    def restart(self, server_id: int) -> None:
        """Stop, then start."""
        self.stop_server(server_id)
        self.start_server(server_id)

    def status(self, *, timeout: float = 1.0) -> dict[int, ServerStatus]:
        """What every server says of itself, all asked at the same time; one without a process is `down`."""
        hosts = {server.host: server.id for server in self.topology.servers}
        answers = admin.statuses(self.testbed, list(hosts), timeout=timeout)
        return {hosts[host]: status for host, status in answers.items()}

    def word(self, server_id: int, word: str, *, timeout: float = 1.0) -> str:
        """One server's answer to an admin word (`srvr mntr conf cons ...`).

        Raises:
            EnsembleError: no answer.
        """
        return admin.ask_one(self.testbed, self.topology.server(server_id).host, word, timeout=timeout)

    def leader(self) -> int | None:
        """The id of the server that says it leads, or None."""
        leaders = [server_id for server_id, status in self.status().items() if status.leads]
        return leaders[0] if leaders else None

    def wait_for_quorum(self, *, within: float = 30.0) -> int:
        """Wait until one server leads and enough participants serve; returns the leader's id.

        Raises:
            EnsembleError: not within so many seconds.
        """
        deadline = time.monotonic() + within
        while True:
            status = self.status()
            if self._is_quorum(status):
                return next(i for i, s in status.items() if s.leads)
            if time.monotonic() > deadline:
                raise self._not_formed(f"no quorum within {within:g} s", status)
            time.sleep(_POLL)

    def wait_until_serving(self, servers: Iterable[int] | None = None, *, within: float = 30.0) -> None:
        """Wait until each of these servers (None: all) serves.

        Raises:
            EnsembleError: not within so many seconds, or a process ended.
        """
        wanted = set(servers) if servers is not None else {s.id for s in self.topology.servers}
        deadline = time.monotonic() + within
        while True:
            status = self.status()
            self._note_quorum(status)
            missing = {i for i in wanted if not status[i].serving}
            if not missing:
                return
            ended = [i for i in missing if not self.is_running(i)]
            if ended or time.monotonic() > deadline:
                names = ", ".join(str(i) for i in sorted(ended or missing))
                what = "ended by itself" if ended else f"does not serve within {within:g} s"
                raise self._not_formed(f"server {names} {what}", status, ended or sorted(missing))
            time.sleep(_POLL)

    def _note_quorum(self, status: Mapping[int, ServerStatus]) -> None:
        if not self.quorum_at and self._is_quorum(status):
            self.quorum_at = time.monotonic()
            self._record(Phase(time.monotonic_ns(), "quorum"))

    def _is_quorum(self, status: Mapping[int, ServerStatus]) -> bool:
        """One server leads, and a majority of the participants serves."""
        serving = sum(status[s.id].serving for s in self.topology.participants)
        return serving >= self.topology.quorum_size and any(s.leads for s in status.values())

    def _not_formed(
        self, what: str, status: Mapping[int, ServerStatus], suspects: Iterable[int] | None = None
    ) -> EnsembleError:
        roles = ", ".join(f"{i} {s.role}" for i, s in sorted(status.items()))
        suspect = next(iter(suspects), None) if suspects else None
        logs = self.server_folder(suspect or self.topology.servers[0].id).logs
        return EnsembleError(
            f"{what} (servers: {roles})",
            where=str(logs),
            cause=_last_lines(logs),
            next_step="the servers' logs say more",
        )

    def stop(self) -> None:
        """Stop all servers at the same time. Idempotent."""
        ending = [s.id for s in self.topology.servers if self._send_end(s.id, signal.SIGTERM)]
        for server_id in ending:
            self._await_end(server_id)

    def server_of(self, host: str) -> Server:
        """The server on a host of that name; KeyError where there is none."""
        for server in self.topology.servers:
            if server.host == host:
                return server
        raise KeyError(host)


def _last_lines(logs: Path) -> str:
    """The last lines of what the JVM said, then of the server's log."""
    for name in (JVM_LOG, LOG_NAME):
        lines = _tail(logs / name).splitlines() if (logs / name).is_file() else []
        if telling := [line.strip()[:200] for line in lines if line.strip() and not line.startswith(_CHATTER)]:
            return " / ".join(telling[-_LOG_LINES:])
    return ""


def _tail(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _LOG_TAIL))
        return stream.read(_LOG_TAIL).decode("utf-8", errors="replace")

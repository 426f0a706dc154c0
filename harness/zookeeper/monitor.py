"""Samples every server's role and connections all through a run, so that the page can show who led when."""

from __future__ import annotations

import threading
import time

from harness.errors import RunFolderError, StorageFull, TestbedError
from harness.history.records import Sample
from harness.zookeeper.ensemble import Ensemble, Record

#: Seconds between two samples, and how long one may take: a paused server never answers.
_PERIOD = 0.1
_TIMEOUT = 0.25
#: An unchanged server is recorded again after so many seconds, so that silence is not mistaken for death.
_REPEAT = 1.0
#: A living server that has not answered for so many seconds counts as down.
_LATE = 1.0


class Monitor:
    """A thread that samples; changes are recorded at once, what stays the same once a second."""

    def __init__(self, ensemble: Ensemble, record: Record) -> None:
        self._ensemble, self._record = ensemble, record
        self._stopping = threading.Event()
        self._last: dict[int, Sample] = {}
        #: When each server last answered.
        self._answered: dict[int, int] = {}
        self._thread = threading.Thread(target=self._run, name="zkchaos-monitor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the last sample is written. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                self._take()
            except (TestbedError, StorageFull, RunFolderError):
                return  # testbed or disk are gone; whoever uses them is told by the same error
            due = max(due + _PERIOD, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def _role(self, server: int, answered: str, now: int) -> str | None:
        """The role to record; None while a living process is merely late, as on a busy machine."""
        if answered != "down":
            self._answered[server] = now
            return answered
        state = self._ensemble.process_state(server)
        if state == "T":
            return "paused"
        late = now - self._answered.get(server, now) < _LATE * 1e9
        return None if late and state != "X" else "down"

    def _take(self) -> None:
        status = self._ensemble.status(timeout=_TIMEOUT)
        now = time.monotonic_ns()
        for server, found in status.items():
            role = self._role(server, found.role, now)
            if role is None:
                continue
            # the connection that asks is counted by the server, too
            clients = max(0, found.connections - 1)
            sample = Sample(now, server, role, found.zxid, clients, found.outstanding)
            last = self._last.get(server)
            changed = last is None or (last.role, last.connections) != (sample.role, sample.connections)
            if changed or (last is not None and now - last.at > _REPEAT * 1e9):
                self._last[server] = sample
                self._record(sample)

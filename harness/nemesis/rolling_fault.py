"""A rolling restart, as administrators do it: one server after the other, and each when the one before serves again.

Followers come first and the leader last, whoever leads then, so that the ensemble elects once. It takes its time, and
other faults of a plan go on meanwhile: it bites when the first process has ended, and is gone when all of them are new
and answer. Nothing heals it but its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.nemesis.background import Background
from harness.nemesis.holds import Hold
from harness.nemesis.lives import Lives
from harness.nemesis.targets import server_ids
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World
from harness.zookeeper import admin
from harness.zookeeper.admin import ServerStatus

#: How long one server is waited for, seconds. If it does not serve by then, something else keeps it from it, and the
#: next one is restarted all the same.
_PATIENCE = 10.0
#: Between two looks at whether it serves, seconds.
_POLL = 0.05


class RollingRestartFault(Fault):
    """The servers of the target restart one by one."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._world = world
        self._servers = server_ids(target)
        self._background = Background(self.name, world.lock)
        self._lives = Lives(world, fault_id, self._servers)
        #: Those whose turn is still to come, or now; None before it began.
        self._left: list[int] | None = None
        self._healing = self._cut_short = False
        #: At the longest: the end of each by SIGTERM, and its patience.
        self.slow_to_heal = 2 * _PATIENCE * len(self._servers)

    def inject(self) -> None:
        """Begin with the first; the others follow in a thread of its own."""
        self._left = list(self._servers)
        self._lives.count_anew()
        for server in self._servers:
            self._world.servers.hold(self.id, server, Hold.RESTLESS)
        self._background.start(self._turns())

    def heal(self) -> None:
        """It heals by itself: what has been begun is brought to its end, as half of it would be no restart at all."""
        self._healing = True

    def cut_short(self) -> None:
        """Leave those as they are whose turn has not come."""
        self._cut_short = True
        try:
            self._background.stop()
        finally:
            with self._world.lock:
                for server in self._servers:
                    self._world.servers.release(self.id, server)
                self._left = []

    def probe(self) -> Probe:
        """Look at each process, and ask it `ruok`."""
        self._background.check()
        sights = self._lives.look()
        mine = [sight for sight in sights if not sight.foreign]
        if self._left is None:
            bites = False if all(sight.well for sight in mine) else None
        elif not self._healing:
            bites = any(sight.deaths for sight in sights)
        else:
            new = all(sight.deaths or self._cut_short for sight in mine)
            bites = bool(self._left) or not (new and all(sight.alive and sight.answers for sight in mine))
        measurements = tuple(m for sight in sights for m in sight.measurements(healthy=bites is False))
        return Probe(bites, "; ".join(f"{m.what} {m.found}" for m in measurements), measurements)

    def _turns(self) -> Iterator[float]:
        """One server after the other; the lock is free while one is waited for."""
        left, servers = list(self._servers), self._world.servers
        try:
            while left:
                server = self._next(left)
                if Hold.DOWN not in servers.kinds(server, but=self.id):  # else it has a new process when that heals
                    servers.hold(self.id, server, Hold.DOWN, gently=True)
                servers.release(self.id, server)
                deadline = time.monotonic() + _PATIENCE
                while not servers.held(server) and not self._status(server).serving and time.monotonic() < deadline:
                    yield _POLL
                left.remove(server)
                self._left = list(left)
        finally:
            for server in left:
                servers.release(self.id, server)

    def _next(self, left: list[int]) -> int:
        """One that does not lead, as long as there is one."""
        return min(left, key=lambda server: (self._status(server).leads, self._servers.index(server)))

    def _status(self, server: int) -> ServerStatus:
        host = self._world.topology.server(server).host
        return admin.statuses(self._world.testbed, [host], timeout=ANSWER_MS / 1000)[host]

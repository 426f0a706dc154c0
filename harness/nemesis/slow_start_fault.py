"""A server dies, and its next start takes long: the process is there, and does not come to open its port.

Whoever connects is refused, as of a dead server, where a server that is paused keeps its connections and says nothing.
The new process is stopped by SIGSTOP at once, and goes on for a moment now and then, as one that hardly gets the
processor; it gets far less than a start takes, until the fault heals.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.nemesis.background import Background
from harness.nemesis.holds import Hold
from harness.nemesis.lives import Lives, Sight
from harness.nemesis.targets import server_ids
from harness.nemesis.world import Fault, Probe, World

#: A start that nothing holds up answers in half a second, in a container in a second or two.
_USUAL_START = 2.5
#: Between two moments in which it goes on, and how long it runs in all of them together, seconds: a start takes several
#: times as much.
_PAUSE, _IN_ALL = 0.25, 0.05


class SlowStartFault(Fault):
    """The servers of the target start for as long as it lasts."""

    #: It is not slow before it has had the time of a usual start.
    slow_to_bite = _USUAL_START

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._world = world
        self._servers = server_ids(target)
        self._background = Background(self.name, world.lock)
        self._lives = Lives(world, fault_id, self._servers)
        self._on = False
        #: Since when each server has been seen to be starting. A process that another fault kills meanwhile is followed
        #: by one that is as slow.
        self._starts: dict[int, float] = {}

    def inject(self) -> None:
        """Kill them, and start them again; unless another fault keeps a server down, whose start is slow later."""
        self._lives.count_anew()
        self._on = True
        servers = self._world.servers
        for server in self._servers:
            servers.hold(self.id, server, Hold.DOWN)
            servers.hold(self.id, server, Hold.PAUSED)
            servers.restore(server)
        self._background.start(self._turns())

    def heal(self) -> None:
        """Let them go on. What is held by another fault stays as that one wants it.

        Raises:
            ZkChaosError: a signal was refused.
        """
        self._on = False
        try:
            self._background.stop()
        finally:
            for server in self._servers:
                self._world.servers.release(self.id, server)
            self._lives.count_anew()
        self._background.check()

    def probe(self) -> Probe:
        """Look at each process, and ask it `ruok`."""
        self._background.check()
        sights = self._lives.look()
        mine = [sight for sight in sights if not sight.foreign]
        if self._on:
            found = {self._bites(sight) for sight in mine} or {True}
            bites = found.pop() if len(found) == 1 else None
        else:
            bites = False if all(sight.well for sight in mine) else None
        measurements = tuple(m for s in sights for m in s.measurements(healthy=s.foreign or s.well))
        return Probe(bites, "; ".join([f"{m.what} {m.found}" for m in measurements] + self._ages(mine)), measurements)

    def _bites(self, sight: Sight) -> bool | None:
        if not sight.deaths or sight.answers:
            self._starts.pop(sight.server, None)
            return False
        since = self._starts.setdefault(sight.server, time.monotonic())
        return True if time.monotonic() - since > _USUAL_START else None

    def _ages(self, sights: list[Sight]) -> list[str]:
        """How long each has been starting, as far as it was seen."""
        now = time.monotonic()
        seen = [(s.host, self._starts[s.server]) for s in sights if self._on and s.server in self._starts]
        return [f"{host} has been starting for {now - since:.1f} s" for host, since in seen]

    def _turns(self) -> Iterator[float]:
        """Let each go on for a moment; it takes a fraction of a millisecond until it is stopped again."""
        ensemble, ran = self._world.ensemble, dict[int, float]()
        while True:
            yield _PAUSE
            for server in self._servers:
                pid = ensemble.pid(server)
                others = self._world.servers.kinds(server, but=self.id)
                if {Hold.DOWN, Hold.PAUSED} & others or ran.get(pid, 0.0) > _IN_ALL or not ensemble.is_running(server):
                    continue
                began = time.monotonic()
                ensemble.resume(server)
                ensemble.pause(server)
                ran[pid] = ran.get(pid, 0.0) + time.monotonic() - began

"""A storm of restarts: each server dies at moments of its own, and is started again a while later.

Often several are down at the same time, a quorum of them among it. How long each lives and is dead is drawn from
the fault's place in the schedule and its target, so a run that is repeated has the same storm.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from random import Random

from harness.nemesis.lives import Sight
from harness.nemesis.restless_fault import RestlessFault

#: Until a server's first death, how long it lives then, and how long it is dead: at least and at most, seconds.
_FIRST = (0.0, 0.5)
_ALIVE = (0.5, 3.0)
_DEAD = (0.2, 1.5)
#: So many deaths, of all servers together, are a storm.
_STORM = 2


class RestartStormFault(RestlessFault):
    """The servers of the target die independently of each other."""

    def _turns(self) -> Iterator[float]:
        servers = self._world.servers
        storms = {server: spells(self.id, self.target, server) for server in self._servers}
        due = {server: time.monotonic() + next(storm) for server, storm in storms.items()}
        dead: set[int] = set()
        while True:
            server = min(due, key=lambda one: due[one])
            yield max(0.0, due[server] - time.monotonic())
            if server in dead:
                servers.restore(server)
                dead.remove(server)
            else:
                servers.strike(server)
                dead.add(server)
            due[server] = time.monotonic() + next(storms[server])

    def _bites(self, sights: Sequence[Sight]) -> bool | None:
        deaths = sum(sight.deaths for sight in sights)
        if deaths >= _STORM and all(sight.deaths for sight in sights):
            return True
        return None if deaths else False


def spells(fault: int, target: str, server: int) -> Iterator[float]:
    """How long a server lives until its first death, is dead, lives, and so on: seconds, without end."""
    rng = Random(f"{fault}/{target}/{server}")

    def drawn(span: tuple[float, float]) -> float:
        return span[0] + rng.random() * (span[1] - span[0])

    yield drawn(_FIRST)
    while True:
        yield drawn(_DEAD)
        yield drawn(_ALIVE)

"""A crash loop: a server dies as soon as it serves, is started again as by a supervisor, and dies again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from harness.nemesis.holds import Hold
from harness.nemesis.lives import Sight
from harness.nemesis.restless_fault import RestlessFault
from harness.zookeeper import admin

#: Between a death and the next start, and between two looks at whether a server serves, seconds.
_PAUSE = 0.1
#: A server that does not come to serve, for want of a quorum for instance, dies all the same, so long after its start.
_LONGEST_LIFE = 2.0
#: How long a server may take to say what it does, seconds; one that lives says so within a millisecond.
_ANSWER = 0.05
#: So many deaths are a loop.
_LOOP = 2


class CrashLoopFault(RestlessFault):
    """Each server of the target dies again and again."""

    def _turns(self) -> Iterator[float]:
        servers, ensemble = self._world.servers, self._world.ensemble
        #: When each was seen to run first; all that run now are ripe.
        since = dict.fromkeys(self._servers, 0.0)
        while True:
            serving = self._serving()
            for server in self._servers:
                if not ensemble.is_running(server):
                    servers.restore(server)
                    since[server] = time.monotonic()
                elif server in serving or time.monotonic() - since[server] > _LONGEST_LIFE:
                    servers.strike(server)
            yield _PAUSE

    def _serving(self) -> set[int]:
        """Those that serve; of one that another fault holds it is not asked, as it may keep the question waiting."""
        free = [s for s in self._servers if Hold.PAUSED not in self._world.servers.kinds(s)]
        hosts = {self._world.topology.server(server).host: server for server in free}
        statuses = admin.statuses(self._world.testbed, list(hosts), timeout=_ANSWER)
        return {hosts[host] for host, status in statuses.items() if status.serving}

    def _bites(self, sights: Sequence[Sight]) -> bool | None:
        if all(sight.deaths >= _LOOP for sight in sights):
            return True
        return None if any(sight.deaths for sight in sights) else False

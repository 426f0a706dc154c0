"""Servers whose processes die and are started again, again and again: what crash loops and storms have in common.

Each has a thread that kills and starts by a rhythm of its own, and is proved by the processes that are seen: how many
of them died, and at the end, that one and the same is there and answers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from harness.nemesis.background import Background
from harness.nemesis.holds import Hold
from harness.nemesis.lives import Lives, Sight
from harness.nemesis.targets import server_ids
from harness.nemesis.world import Fault, Probe, World


class RestlessFault(Fault):
    """Servers that do not come to rest."""

    #: A second death takes a start in between, which takes long on a machine that has much to do.
    slow_to_bite = 12.0

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._world = world
        self._servers = server_ids(target)
        self._background = Background(self.name, world.lock)
        self._lives = Lives(world, fault_id, self._servers)
        self._on = False

    @abstractmethod
    def _turns(self) -> Iterator[float]:
        """Kill and start; each turn says when the next one is due, in seconds."""

    @abstractmethod
    def _bites(self, sights: Sequence[Sight]) -> bool | None:
        """Whether enough have died of those that no other fault holds; None where it is too early to say."""

    def inject(self) -> None:
        """Begin. What the rhythm does is done soon after, in a thread of its own."""
        self._lives.count_anew()
        self._on = True
        for server in self._servers:
            self._world.servers.hold(self.id, server, Hold.RESTLESS)
        self._background.start(self._turns())

    def heal(self) -> None:
        """End the rhythm, and have every server run.

        Raises:
            ZkChaosError: the rhythm had broken off.
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
            bites = self._bites(mine) if mine else True  # what is dead already is as dead as this one wants it
        else:
            bites = False if all(sight.well for sight in mine) else None
        measurements = tuple(m for s in sights for m in s.measurements(healthy=s.foreign or s.well))
        return Probe(bites, "; ".join(f"{m.what} {m.found}" for m in measurements), measurements)

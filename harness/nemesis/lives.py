"""What becomes of servers' processes while one looks again and again: how often each died, and whether it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.history.records import Measurement
from harness.nemesis.holds import Hold
from harness.nemesis.world import ANSWER_MS, World
from harness.zookeeper import admin

#: States of a process that has ended, as in /proc/pid/stat.
GONE = "XZ"
_STOPPED = "T"


@dataclass(frozen=True)
class Sight:
    """One look at one server."""

    server: int
    host: str
    pid: int
    state: str
    #: How many of its processes were seen to be dead, since the count began.
    deaths: int
    #: Whether it answers `ruok`.
    answers: bool
    #: Whether it is the process of the look before.
    same: bool
    #: Whether another fault keeps it from being what this one wants it to be.
    foreign: bool

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.state not in GONE

    @property
    def well(self) -> bool:
        """Whether it is there, answers, and was there at the look before."""
        return self.answers and self.same and not self.deaths

    def measurements(self, *, healthy: bool) -> tuple[Measurement, ...]:
        """The look, as evidence."""
        if self.foreign:
            return (Measurement(f"process of {self.host}", "held by another fault", healthy=healthy),)
        how = "gone" if not self.alive else "stopped" if self.state == _STOPPED else "alive"
        died = f", {self.deaths} died" if self.deaths else ""
        said = "answers" if self.answers else f"no answer in {ANSWER_MS} ms"
        return (
            Measurement(f"process of {self.host}", f"{how} (pid {self.pid}{died})", healthy=healthy),
            Measurement(f"{self.host} asked ruok", said, healthy=self.answers),
        )


class Lives:
    """Looks at servers for one fault.

    Args:
        world: where they are.
        fault: the fault's id.
        servers: their ids.
    """

    def __init__(self, world: World, fault: int, servers: Sequence[int]) -> None:
        self._world, self._fault = world, fault
        self._servers = tuple(servers)
        self.count_anew()

    def count_anew(self) -> None:
        """Begin to count deaths, from the processes that are there now."""
        #: The processes that were seen of each server, the last one at the end.
        self._pids = {server: [self._world.ensemble.pid(server)] for server in self._servers}

    def look(self) -> tuple[Sight, ...]:
        """Look at every process, and ask it `ruok`; all of them at the same time."""
        hosts = {server: self._world.topology.server(server).host for server in self._servers}
        answers = admin.ask(self._world.testbed, list(hosts.values()), "ruok", timeout=ANSWER_MS / 1000)
        return tuple(self._sight(server, host, bool(answers[host])) for server, host in hosts.items())

    def _sight(self, server: int, host: str, answers: bool) -> Sight:
        pid, state = self._world.ensemble.pid(server), self._world.ensemble.process_state(server)
        pids = self._pids[server]
        same = pid == pids[-1]
        if not same:
            pids.append(pid)
        return Sight(server, host, pid, state, len(pids) - (state not in GONE), answers, same, self._is_foreign(server))

    def _is_foreign(self, server: int) -> bool:
        """Another fault has it down; or it has it at all, and this one has let go."""
        others = self._world.servers.kinds(server, but=self._fault)
        return Hold.DOWN in others or (bool(others) and not self._world.servers.held_by(self._fault, server))

"""Servers whose disk is full, read-only, slow, fails or hangs, seen by a scratch file that is written beside their own.

A server may die of it, or be of no use until it is started again. So it is held as restless meanwhile: it comes back
when the fault is healed, and what it does until then is no other fault's doing. One whose disk refused something is
restarted, unless it is to be left alone; see `disks`.
"""

from __future__ import annotations

import errno
import os

from harness.history.records import Measurement
from harness.nemesis.disks import parse
from harness.nemesis.holds import Hold
from harness.nemesis.kinds import Aim
from harness.nemesis.targets import server_ids, target_parts
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World
from harness.testbed.disk_words import Ailment, DiskState, Tried
from harness.zookeeper import admin
from harness.zookeeper.disk import DISKS, disks_of

#: How long a scratch file may take beyond what the fault makes it take, seconds; one takes a few milliseconds.
_PATIENCE_S = 0.5
#: A machine's own disk may be slow for a moment: so often it is tried whether it is quicker than asked for.
_TRIES = 3
_ERRNO = {Ailment.FULL: errno.ENOSPC, Ailment.READ_ONLY: errno.EROFS, Ailment.FAILING: errno.EIO}


class DiskFault(Fault):
    """Servers whose disk ails."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        part, manner = target_parts(Aim.DISK, target)
        trouble = parse(manner)
        self._servers, self._state, self._restart = server_ids(part), trouble.state, trouble.restart
        self._world = world
        self._disks = disks_of(world.ensemble.preparation(DISKS))

    def inject(self) -> None:
        """Let every server's disk ail."""
        for server in self._servers:
            self._world.servers.hold(self.id, server, Hold.RESTLESS)
            self._disks.hold(self.id, server, self._state)

    def heal(self) -> None:
        """Let them be well, and start the servers that have died of it, or are to be restarted."""
        servers = self._world.servers
        for server in self._servers:
            if self._restart and servers.held_by(self.id, server):
                servers.strike(server)  # before its disk takes again what it could not write
            self._disks.release(self.id, server)
        for server in self._servers:
            servers.release(self.id, server)

    def probe(self) -> Probe:
        """Write a scratch file on each disk, and ask each server `ruok`."""
        disks = [self._look_at_disk(server) for server in self._servers]
        servers = [self._look_at_server(server) for server in self._servers]
        measurements = (*disks, *servers)
        ails = [not measurement.healthy for measurement in disks]
        if all(ails):
            bites: bool | None = True
        else:
            # a server that has died of it is gone until it is started again, and the fault with it
            bites = None if any(ails) or not all(m.healthy for m in servers) else False
        return Probe(bites, "; ".join(f"{m.what} {m.found}" for m in measurements), measurements)

    def _look_at_disk(self, server: int) -> Measurement:
        what = f"disk of {self._world.topology.server(server).host}"
        timeout = self._state.slow_ms / 1000 + _PATIENCE_S
        tried = self._disks.attempt(server, timeout)
        for _ in range(_TRIES - 1):
            if self._state.ailment is not Ailment.SLOW or not ails(self._state, tried):
                break
            tried = self._disks.attempt(server, timeout)
        other = self._disks.others(self.id, server)
        mine, anothers = ails(self._state, tried), other is not None and ails(other, tried)
        found = text_of(tried, timeout)
        if anothers and not (mine and self._world.servers.held_by(self.id, server)):
            return Measurement(what, f"{found}, as another fault has it", healthy=True)
        return Measurement(what, found, healthy=not mine and tried is not None and not tried.failed)

    def _look_at_server(self, server: int) -> Measurement:
        host, world = self._world.topology.server(server).host, self._world
        if world.servers.held(server, but=self.id) and not world.servers.held_by(self.id, server):
            return Measurement(f"process of {host}", "held by another fault", healthy=True)
        if world.ensemble.process_state(server) in ("X", "Z"):
            return Measurement(f"process of {host}", "gone", healthy=False)
        answer = admin.ask(world.testbed, [host], "ruok", timeout=ANSWER_MS / 1000)[host].strip()
        found = f"answers {answer[:20]!r}" if answer else f"no answer in {ANSWER_MS} ms"
        return Measurement(f"{host} asked ruok", found, healthy=bool(answer))


def ails(state: DiskState, tried: Tried | None) -> bool:
    """Whether a disk that is like this does what was seen."""
    if tried is None:
        return state.ailment is Ailment.STUCK
    if state.ailment is Ailment.SLOW:
        return not tried.failed and tried.took_ms >= state.slow_ms
    return state.ailment in _ERRNO and tried.failed != "" and tried.errno == _ERRNO[state.ailment]


def text_of(tried: Tried | None, timeout: float) -> str:
    """`wrote and forced 4 kB in 0.4 ms`, `fsync: EIO (Input/output error)`."""
    if tried is None:
        return f"did not take 4 kB within {timeout * 1000:.0f} ms"
    if not tried.failed:
        return f"wrote 4 kB, and forced it in {tried.took_ms:.1f} ms"
    return f"{tried.failed}: {errno.errorcode.get(tried.errno, tried.errno)} ({os.strerror(tried.errno)})"

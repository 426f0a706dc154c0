"""Servers that die, find their data damaged when they are started again, and have to come back from what others have.

What a server had is put aside first, where the judges find it: a file that we have spoiled says nothing of the servers.

A server may refuse to start with what it finds. Then heal does what its operator would: it takes the data away, starts
the server without any, and says so in the fault's next probe.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.errors import FaultError, HistoryError
from harness.history.damaged import put_aside, write_record
from harness.history.folder import ServerFolder
from harness.history.records import Measurement
from harness.nemesis.damage import Damage, parse
from harness.nemesis.holds import Hold
from harness.nemesis.kinds import Aim
from harness.nemesis.targets import server_ids, target_parts
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World
from harness.zookeeper import admin
from harness.zookeeper.data_files import (
    LastRecord,
    data_files,
    last_record,
    last_snapshot,
    logs_and_snapshots,
    tear,
    trouble_with,
    turn_over,
)
from harness.zookeeper.server_log import LOG_NAME

#: How long a server may take to load its data and answer, or to end by itself, seconds; it takes about half a second.
_LOAD_S = 15.0
_POLL = 0.03
#: How much of the end of a server's log is searched for why it ended, bytes, and for which words.
_LOG_TAIL = 32 * 1024
_TELLING = ("Exception: ", "Error: ")
_NOTHING_YET = "give the ensemble some writes first: let the step begin later"


class DamageFault(Fault):
    """Servers with damaged data."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        part, manner = target_parts(Aim.DAMAGE, target)
        self._servers, self._damage, self._world = server_ids(part), parse(manner), world
        #: The files that were left damaged, by server; nothing for a server whose data is all gone.
        self._damaged: dict[int, tuple[Path, ...]] = {}
        #: The last zxid that each server had logged.
        self._had: dict[int, int] = {}
        #: What heal had to do about a server.
        self._remarks: dict[int, str] = {}

    # --- the fault ---------------------------------------------------------------------------------------

    def inject(self) -> None:
        """Kill the servers, put aside what they have, and damage it."""
        for server in self._servers:
            self._world.servers.hold(self.id, server, Hold.DOWN)
        for server in self._servers:
            folder = self._world.ensemble.server_folder(server)
            try:
                record = last_record(folder)
            except HistoryError as problem:
                what = f"a log of it is damaged already: {problem.what}"
                raise FaultError(what, where=problem.where, cause=problem.cause) from problem
            self._had[server] = record.zxid if record is not None else 0
            self._damaged[server] = self._spoil(folder, record)

    def _spoil(self, folder: ServerFolder, record: LastRecord | None) -> tuple[Path, ...]:
        """Do the damage; returns the files that were left damaged."""
        if self._damage is Damage.WIPE:
            if not logs_and_snapshots(folder):
                raise FaultError("there is no data to wipe", where=str(folder.root), next_step=_NOTHING_YET)
            self._take_away(folder, str(self._damage))
            return ()
        file, spoil = self._aim(folder, record)
        aside = put_aside(folder, [file], keep=True)
        spoil()
        write_record(folder, aside, self.id, str(self._damage), [file])
        return (file,)

    def _aim(self, folder: ServerFolder, record: LastRecord | None) -> tuple[Path, Callable[[], None]]:
        if self._damage is Damage.CORRUPT_SNAPSHOT:
            snapshot = last_snapshot(folder)
            if snapshot is None:
                raise FaultError("there is no snapshot to damage", where=str(folder.root), next_step=_NOTHING_YET)
            return snapshot, lambda: turn_over(snapshot, snapshot.stat().st_size // 2)
        if record is None:
            raise FaultError("there is no record to damage", where=str(folder.root), next_step=_NOTHING_YET)
        if self._damage is Damage.TRUNCATE_LOG:
            return record.file, lambda: tear(record)
        return record.file, lambda: turn_over(record.file, record.middle)

    def _take_away(self, folder: ServerFolder, what: str) -> None:
        aside = put_aside(folder, data_files(folder), keep=False)
        write_record(folder, aside, self.id, what, ())

    def heal(self) -> None:
        """Start the servers with what they have; take it away from one that refuses to start with it."""
        for server in self._servers:
            servers = self._world.servers
            if servers.held_by(self.id, server) and servers.held(server, but=self.id) and self._damaged.get(server):
                # whoever starts it later expects one that starts
                self._give_up(server, "another fault holds it")
            servers.release(self.id, server)
        for server in self._servers:
            if not self._world.servers.held(server) and not self._comes_up(server):
                self._give_up(server, f"it ended when it found them ({self._why(server)})")
                self._world.servers.restore(server)

    def _give_up(self, server: int, why: str) -> None:
        folder = self._world.ensemble.server_folder(server)
        self._take_away(folder, f"taken away: {why}")
        self._damaged[server] = ()
        self._remarks[server] = f"all its files were taken away: {why}"

    def _comes_up(self, server: int) -> bool:
        """Whether it answers; not: it ended. One that does neither in time is the probe's to tell."""
        deadline = time.monotonic() + _LOAD_S
        while time.monotonic() < deadline:
            if self._answer(server):
                return True
            if not self._world.ensemble.is_running(server):
                return False
            time.sleep(_POLL)
        return True

    def _why(self, server: int) -> str:
        """What its log says of it."""
        log = self._world.ensemble.server_folder(server).logs / LOG_NAME
        if not log.is_file():
            return "its log does not say why"
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL))
            lines = stream.read(_LOG_TAIL).decode(errors="replace").splitlines()
        telling = [line.strip() for line in lines if any(word in line for word in _TELLING)]
        return telling[-1][:160] if telling else "its log does not say why"

    # --- the proof ---------------------------------------------------------------------------------------

    def probe(self) -> Probe:
        """Read what is on disk, while the server is down; ask it how far it is, when it is to be up."""
        found = [self._look_at(server) for server in self._servers]
        measurements = tuple(m for each in found for m in each)
        broken = [all(not m.healthy for m in each) for each in found]
        whole = [all(m.healthy for m in each) for each in found]
        bites = True if all(broken) else False if all(whole) else None
        return Probe(bites, "; ".join(f"{m.what} {m.found}" for m in measurements), measurements)

    def _look_at(self, server: int) -> tuple[Measurement, ...]:
        servers = self._world.servers
        if servers.held_by(self.id, server):
            return self._process(server), *self._files(server)
        if servers.held(server):
            host = self._world.topology.server(server).host
            return (Measurement(f"process of {host}", "held by another fault", healthy=True),)
        if server not in self._had:
            return self._process(server), *self._files(server)
        return self._process(server), self._progress(server), *self._remark(server)

    def _process(self, server: int) -> Measurement:
        host = self._world.topology.server(server).host
        if self._world.ensemble.process_state(server) in ("X", "Z"):
            return Measurement(f"process of {host}", "gone", healthy=False)
        answer = self._answer(server)
        found = f"answers {answer[:20]!r}" if answer else f"no answer in {ANSWER_MS} ms"
        return Measurement(f"{host} asked ruok", found, healthy=bool(answer))

    def _answer(self, server: int) -> str:
        host = self._world.topology.server(server).host
        return admin.ask(self._world.testbed, [host], "ruok", timeout=ANSWER_MS / 1000)[host].strip()

    def _files(self, server: int) -> tuple[Measurement, ...]:
        """What is there, and whether it is whole, as our own reader finds it; not while the server writes to it."""
        host, folder = self._world.topology.server(server).host, self._world.ensemble.server_folder(server)
        if self._damage is Damage.WIPE:
            left = len(logs_and_snapshots(folder))
            return (Measurement(f"data of {host}", f"{left} logs and snapshots", healthy=left > 0),)
        troubles = [(file, trouble_with(file)) for file in self._damaged.get(server, ())]
        return tuple(
            Measurement(f"{file.name} of {host}", trouble or "is whole", healthy=not trouble)
            for file, trouble in troubles
        )

    def _progress(self, server: int) -> Measurement:
        """Whether it has again what it had, or more."""
        world, host = self._world, self._world.topology.server(server).host
        everyone = world.ensemble.status(timeout=ANSWER_MS / 1000)
        status, had = everyone[server], self._had[server]
        if status.serving:
            found = f"is {status.role}, at 0x{status.zxid:x}; it had 0x{had:x}"
            return Measurement(host, found, healthy=status.zxid >= had)
        excused = not any(s.leads for s in everyone.values()) or not self._hears_others(host)
        found = f"is {status.role}" + (", and has nobody to learn from" if excused else "")
        return Measurement(host, found, healthy=excused)

    def _hears_others(self, host: str) -> bool:
        """Whether every other server hears it and is heard, on some switch."""
        topology = self._world.topology
        paths = [p for p in self._world.reach(topology.switch_names) if p.micros is not None]
        heard = {frozenset((p.source, p.destination)) for p in paths if host in (p.source, p.destination)}
        return all(frozenset((host, s.host)) in heard for s in topology.participants if s.host != host)

    def _remark(self, server: int) -> tuple[Measurement, ...]:
        host = self._world.topology.server(server).host
        return (Measurement(f"data of {host}", self._remarks[server], healthy=True),) if server in self._remarks else ()

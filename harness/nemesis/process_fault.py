"""Servers whose process is gone or stopped, seen by the state that the kernel gives and by an admin word."""

from __future__ import annotations

from harness.history.records import Measurement
from harness.nemesis.holds import Hold
from harness.nemesis.targets import server_ids
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World
from harness.zookeeper import admin

#: In the answer to a word that a server does not let pass.
_NOT_IN_WHITELIST = "is not executed because it is not in the whitelist"


class ProcessFault(Fault):
    """Servers whose process is gone or stopped."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World, *, how: Hold, gently: bool = False) -> None:
        super().__init__(fault_id, kind, target)
        self._servers = server_ids(target)
        self._how, self._gently, self._world = how, gently, world
        self._old_pids = {server: world.ensemble.pid(server) for server in self._servers}

    def inject(self) -> None:
        """Kill, stop or pause every server of the target."""
        for server in self._servers:
            self._world.servers.hold(self.id, server, self._how, gently=self._gently)

    def heal(self) -> None:
        """Start or continue them."""
        for server in self._servers:
            self._world.servers.release(self.id, server)

    def probe(self) -> Probe:
        """Look at each process, and ask it `ruok`."""
        measurements: list[Measurement] = []
        for server in self._servers:
            measurements += self._look_at(server)
        # A healthy server may still be looking for a quorum; being there and answering is what this fault takes away.
        broken = [m for m in measurements if not m.healthy]
        bites = {0: False, len(measurements): True}.get(len(broken))
        summary = "; ".join(f"{m.what} {m.found}" for m in measurements)
        return Probe(bites, summary, tuple(measurements))

    def _look_at(self, server: int) -> tuple[Measurement, ...]:
        host = self._world.topology.server(server).host
        servers = self._world.servers
        if servers.held(server, but=self.id) and not servers.held_by(self.id, server):
            return (Measurement(f"process of {host}", "held by another fault", healthy=True),)
        state = self._world.ensemble.process_state(server)
        pid = self._world.ensemble.pid(server)
        words = {"X": "gone", "Z": "gone", "T": "stopped"}
        alive = state not in words
        replaced = ", a new one" if alive and pid != self._old_pids[server] else ""
        process = Measurement(f"process of {host}", f"{words.get(state, 'alive')} (pid {pid}{replaced})", healthy=alive)
        answer = admin.ask(self._world.testbed, [host], "ruok", timeout=ANSWER_MS / 1000)[host].strip()
        # a word that its whitelist lacks is answered, too; who looks at a server that is not ours cannot choose it
        said = "answers" if _NOT_IN_WHITELIST in answer else f"answers {answer[:20]!r}"
        found = said if answer else f"no answer in {ANSWER_MS} ms"
        return process, Measurement(f"{host} asked ruok", found, healthy=bool(answer))

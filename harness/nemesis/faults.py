"""The faults: each can be injected and healed, and each has a probe that proves that it bites and that it is gone.

A probe measures the thing itself, on the wire or in the process, and never asks the code that broke it. Network
faults are seen by datagrams that each NIC sends to each other NIC of its switch; process faults by the state that
the kernel gives and by an admin word.
"""

from __future__ import annotations

from harness.errors import FaultError
from harness.history.records import Measurement
from harness.nemesis.holds import Hold
from harness.nemesis.kinds import KINDS
from harness.nemesis.packets_fault import PacketsFault
from harness.nemesis.partition_fault import PartitionFault
from harness.nemesis.targets import link_parts, server_ids
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World, path_measurement
from harness.testbed.handles import Link
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import Path
from harness.zookeeper import admin

#: In the answer to a word that a server does not let pass.
_NOT_IN_WHITELIST = "is not executed because it is not in the whitelist"


class LinkFault(Fault):
    """A dead switch, or a cut cable."""

    def __init__(self, fault_id: int, kind: str, target: str, link: Link, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._link, self._world = link, world

    def inject(self) -> None:
        """Take the carrier away, in one batch."""
        self._world.links.cut(self.id, [self._link])

    def heal(self) -> None:
        """Give the carrier back."""
        self._world.links.release(self.id, [self._link])

    def probe(self) -> Probe:
        """Send datagrams over every path of the link, and over all others for comparison.

        Where a server is a container, a killed one has no NICs; its paths say nothing of this fault.
        """
        reached = self._world.reach(self._world.topology.switch_names)
        paths = [p for p in reached if p.error != HOST_DOWN]
        mine = [p for p in paths if self._uses(p)]
        others = [p for p in paths if not self._uses(p) and not self._held_by_others(p)]
        measured = [p for p in mine if not self._held_by_others(p)]
        measurements = tuple(path_measurement(p) for p in measured)
        if not measured:
            return self._by_kernel_state()
        answered = sum(p.micros is not None for p in measured)
        rest = f"; elsewhere {sum(p.micros is not None for p in others)} of {len(others)}" if others else ""
        summary = f"{answered} of {len(measured)} paths over {self._link.name} answer{rest}"
        bites = {0: True, len(measured): False}.get(answered)
        return Probe(bites, summary, measurements)

    def _uses(self, path: Path) -> bool:
        same_switch = path.switch == self._link.switch
        return same_switch and self._link.host in (None, path.source, path.destination)

    def _held_by_others(self, path: Path) -> bool:
        return self._world.holds_path(path, but=self.id)

    def _by_kernel_state(self) -> Probe:
        """Where other faults hold every path, only the kernel's own word is left: the link is down or it is not.

        A link that others keep down is as dead as this fault wants it; once this one has let go, it is not to blame.
        """
        links = self._world.links
        if links.is_cut(self._link, but=self.id) and not links.held_by(self.id, self._link):
            found = Measurement(self._link.name, "held by another fault", healthy=True)
            return Probe(False, f"{self._link.name} is held by another fault; this one has let go", (found,))
        for state in self._world.testbed.link_states():
            if (state.switch, state.host) == (self._link.switch, self._link.host):
                found = Measurement(self._link.name, "up" if state.up else "down", healthy=state.up)
                return Probe(not state.up, f"the kernel says that {self._link.name} is {found.found}", (found,))
        return Probe(None, f"there is no path over {self._link.name} to measure")


class ProcessFault(Fault):
    """Servers whose process is gone or stopped."""

    def __init__(self, fault_id: int, kind: str, target: str, how: Hold, world: World, *, gently: bool) -> None:
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


def make_fault(fault_id: int, kind: str, target: str, world: World) -> Fault:
    """The fault of a kind and a resolved target (`net1`, `zk2:net1`, `zk1,zk3`).

    Raises:
        FaultError: there is no such kind.
    """
    match kind:
        case "switch-down" | "link-down":
            host, switch = link_parts(target) if kind == "link-down" else (None, target)
            return LinkFault(fault_id, kind, target, Link(switch, host), world)
        case "partition":
            return PartitionFault(fault_id, kind, target, world)
        case "packets":
            return PacketsFault(fault_id, kind, target, world)
        case "kill":
            return ProcessFault(fault_id, kind, target, Hold.DOWN, world, gently=False)
        case "restart":
            return ProcessFault(fault_id, kind, target, Hold.DOWN, world, gently=True)
        case "pause":
            return ProcessFault(fault_id, kind, target, Hold.PAUSED, world, gently=False)
    raise FaultError("there is no such kind of fault", where=kind, next_step=f"kinds: {', '.join(KINDS)}")

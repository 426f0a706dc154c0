"""Switches and cables that die and come back again and again, and the proof by the kernel's own count.

The hosts on a link lose their carrier each time that it dies, and their kernel counts that. What passes is looked at
by broadcasts: who wants to send to one host asks for its hardware address first, and after a question in vain asks
again only a second later. So where hosts talk to each other all the time, a link that is never alive for a second may
carry nothing of theirs at all. That is the fault's doing, and true of real ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import FaultError
from harness.history.records import Measurement
from harness.nemesis import rhythm
from harness.nemesis.background import Background
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.targets import link_parts, target_parts
from harness.nemesis.world import Fault, Probe, World, path_measurement
from harness.testbed.handles import Link
from harness.testbed.reach import HOST_DOWN
from harness.testbed.wire import NicState, Path

#: A fault ends with an error after so many deaths; at the fastest rhythm that is an hour.
_MOST = 18_000
#: How often a carrier must be lost for its link to be one that dies again and again.
_AGAIN = 2
#: How long one look at what passes waits, milliseconds: less than the shortest stretch. And how long looks go on in one
#: probe until they have seen both, seconds.
_LOOK_MS, _LOOKING_S = 50, 0.5


@dataclass
class _Count:
    """A NIC's losses of its carrier, as they were when they began to count and when they were looked at last."""

    first: int
    last: int

    @property
    def lost(self) -> int:
        return self.last - self.first


class FlapFault(Fault):
    """A switch or a cable that is dead and alive in a rhythm."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        part, manner = target_parts(KINDS[kind].aim, target)
        host, switch = link_parts(part) if KINDS[kind].aim is Aim.LINK_RHYTHM else (None, part)
        self._link, self._rhythm, self._world = Link(switch, host), rhythm.parse(manner), world
        self.slow_to_bite = self.slow_to_heal = self._rhythm.period_s
        self._background = Background(f"{kind} {target}", world.lock)
        self._flapping = False
        #: By host and interface: a container that starts again has a new one, which has counted from its own start.
        self._counts: dict[tuple[str, int], _Count] = {}
        #: The least and the most that one look has seen answering, and of how many; nothing before the first look.
        self._least: tuple[int, int] | None = None
        self._most = (0, 0)
        #: Since when, monotonic seconds, no carrier was lost, as far as anybody has looked.
        self._quiet_since = 0.0

    def inject(self) -> None:
        """Let it die, and let a thread go on with it."""
        self._counts = {}
        self._count(self._nics())
        self._flapping = True
        self._world.links.stir(self.id, [self._link])
        self._world.links.cut(self.id, [self._link])
        self._background.start(self._turns())

    def heal(self) -> None:
        """Let it be alive, and stay so.

        Raises:
            ZkChaosError: a turn has failed since.
        """
        if self._flapping:
            self._quiet_since = time.monotonic()
        self._flapping = False
        try:
            self._background.stop()
        finally:
            self._world.links.calm(self.id)
        self._background.check()

    def _turns(self) -> Iterator[float]:
        for _ in range(_MOST):
            yield self._rhythm.dead_s
            self._world.links.release(self.id, [self._link])
            yield self._rhythm.alive_s
            self._world.links.cut(self.id, [self._link])
        raise FaultError(
            f"it has died {_MOST} times, and no fault may do so more often",
            where=self.name,
            next_step="let it last for a shorter time, or in a slower rhythm",
        )

    # --- looking at it ---------------------------------------------------------------------------------------

    def probe(self) -> Probe:
        """While it lasts: count lost carriers, and look at what passes until it was seen alive and dead.

        Else: datagrams over its paths answer, and for a whole period no carrier is lost.

        Raises:
            ZkChaosError: a turn has failed since.
        """
        self._background.check()
        return self._while_it_lasts() if self._flapping else self._while_it_rests()

    def _while_it_lasts(self) -> Probe:
        deadline = time.monotonic() + _LOOKING_S
        while self._look() and not self._seen_both() and time.monotonic() < deadline:
            pass
        counts = self._count(self._nics())
        if not counts:
            # as dead as it wants it, if not by itself
            return Probe(True, f"other faults hold {self._link.name}, or its containers do not run")
        lost = min(count.lost for count in counts.values())
        summary = f"{self._link.name}: {_lost_text(lost, len(counts))}; {self._looks_text()}"
        bites = None
        if lost >= _AGAIN and (self._seen_both() or self._least is None):
            bites = True
        elif not lost:
            bites = False
        return Probe(bites, summary, _measurements(counts))

    def _while_it_rests(self) -> Probe:
        before = {key: count.last for key, count in self._counts.items()}
        counts = self._count(self._nics())
        if any(count.last != before.get(key, count.last) for key, count in counts.items()):
            self._quiet_since = time.monotonic()
        quiet = time.monotonic() - self._quiet_since
        paths = self._paths(self._world.reach([self._link.switch]))
        answered = sum(p.micros is not None for p in paths)
        summary = f"{answered} of {len(paths)} paths over {self._link.name} answer"
        if self._counts:
            summary += f", and no carrier was lost for {min(quiet, self._rhythm.period_s):.1f} s"
        gone = answered == len(paths) and quiet >= self._rhythm.period_s and self._is_up()
        return Probe(False if gone else None, summary, tuple(path_measurement(p) for p in paths))

    def _look(self) -> bool:
        """Once, by broadcasts; False where there is nothing to look at."""
        reached = self._world.reach([self._link.switch], answer_ms=_LOOK_MS, broadcast=True)
        paths = self._paths(reached)
        if not paths:
            return False
        seen = (sum(p.micros is not None for p in paths), len(paths))
        self._least = seen if self._least is None else min(self._least, seen)
        self._most = max(self._most, seen)
        return True

    def _seen_both(self) -> bool:
        return self._least is not None and self._least[0] == 0 and self._most[0] > 0

    def _looks_text(self) -> str:
        if self._least is None:
            return "other faults hold every path over it"
        return f"of its paths at times {self._least[0]} of {self._least[1]} answer, at times {self._most[0]}"

    def _paths(self, reached: tuple[Path, ...]) -> list[Path]:
        """Those over this link that no other fault holds."""
        return [
            p
            for p in reached
            if self._link.host in (None, p.source, p.destination)
            and p.error != HOST_DOWN
            and not self._world.holds_path(p, but=self.id)
        ]

    def _nics(self) -> list[NicState]:
        """The hosts' ends of this link that are there, and whose carrier no other fault holds."""
        return [
            nic
            for nic in self._world.testbed.nic_states([self._link.switch])
            if self._link.host in (None, nic.host)
            and nic.index
            and not self._world.links.is_dead(Link(nic.switch, nic.host), but=self.id)
            and not self._world.nics.is_down(Link(nic.switch, nic.host), but=self.id)
        ]

    def _count(self, nics: list[NicState]) -> dict[tuple[str, int], _Count]:
        """Those of these NICs; what was not there to be counted the last time begins anew."""
        self._counts = {
            (nic.host, nic.index): _Count(
                self._counts[nic.host, nic.index].first if (nic.host, nic.index) in self._counts else nic.losses,
                nic.losses,
            )
            for nic in nics
        }
        return self._counts

    def _is_up(self) -> bool:
        """Whether the kernel has it up, or another fault is why not."""
        if self._world.links.is_cut(self._link, but=self.id):
            return True
        states = self._world.testbed.link_states()
        return all(s.up for s in states if (s.switch, s.host) == (self._link.switch, self._link.host))


def _lost_text(lost: int, count: int) -> str:
    who = "its host has" if count == 1 else f"each of {count} hosts has"
    return f"{who} lost the carrier {lost} times"


def _measurements(counts: dict[tuple[str, int], _Count]) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(f"carrier of {host}", f"lost {count.lost} times", healthy=not count.lost)
        for (host, _index), count in counts.items()
    )

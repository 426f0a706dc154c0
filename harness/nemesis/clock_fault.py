"""Servers whose wall clock is wrong, and the proof: the time that each of them writes into its own log.

A word makes a server write a line; it does so between the question and the answer, so its clock is known within the
time that this takes, which is a few milliseconds.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.history.records import Measurement
from harness.nemesis.background import Background
from harness.nemesis.clocks import DRIFT_STEP_S, Clock, Drift, Jumps, Skew, parse
from harness.nemesis.kinds import Aim
from harness.nemesis.targets import server_ids, target_parts
from harness.nemesis.world import Fault, Probe, World
from harness.zookeeper import admin
from harness.zookeeper.clock import CLOCKS, clocks_of
from harness.zookeeper.server_log import LOG_NAME

#: The word, which nobody else asks; and the line that every version writes before it answers, in each of our layouts.
_WORD = "isro"
_LINE = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}) .*Processing isro command from ", re.MULTILINE)
#: How long an answer may take; how long a first probe goes on where a look says nothing, and how long until the next.
_ANSWER_S, _PATIENCE_S, _PAUSE_S = 1.0, 3.0, 0.02
#: A log tells milliseconds, and cuts off the rest.
_GRAIN_S = 0.001
#: What may be between what is asked for and what is seen, seconds, besides what a look itself cannot tell.
_SLACK_S = 0.005
#: Where no process can be asked, its file is read; it has microseconds.
_TINY_S = 1e-5
#: How long a clock is watched to tell its rate, seconds, and how far that may be from what was asked for.
_WATCH_S, _SHARE = 0.5, 0.2
#: How often one that has jumped must be seen to be right, to have stopped.
_OFTEN = 10


@dataclass(frozen=True)
class Look:
    """What a server's clock was ahead of ours, give or take `error`; all in seconds, `at` by the monotonic clock."""

    at: float
    offset: float
    error: float

    def shows(self, offset: float) -> bool:
        """Whether that may have been its offset."""
        return abs(self.offset - offset) <= self.error + _SLACK_S

    @property
    def text(self) -> str:
        """`+5.002 s ± 3 ms`."""
        return f"{self.offset:+.3f} s ± {self.error * 1000:.0f} ms"


def is_so(clock: Clock, looks: Sequence[Look]) -> bool:
    """Whether looks at a clock show that it is wrong in the way that was asked for."""
    if not looks:
        return False
    match clock:
        case Skew(seconds):
            return looks[-1].shows(seconds) and any(look.shows(seconds) and not look.shows(0.0) for look in looks)
        case Jumps(seconds):
            right = [look.shows(0.0) for look in looks if look.shows(0.0) != look.shows(seconds)]
            return any(right) and not all(right)
        case Drift(rate):
            first, last = looks[0], looks[-1]
            passed, gained = last.at - first.at, last.offset - first.offset
            # it is changed in steps, each of which may be late
            doubt = first.error + last.error + 2 * abs(rate - 1) * DRIFT_STEP_S
            wanted = (rate - 1) * passed
            return passed >= _WATCH_S and abs(gained - wanted) <= _SHARE * abs(wanted) + doubt < abs(wanted)


def is_right(clock: Clock, looks: Sequence[Look], *, watched: bool) -> bool:
    """Whether looks show that it is right; where it was wrong before, `watched` for as long as that takes to tell."""
    lately: list[float] = []
    never = None if isinstance(clock, Drift) else clock.seconds
    for look in looks:
        if not look.shows(0.0):
            lately.clear()
        elif never is None or not look.shows(never):
            lately.append(look.at)
    # one that jumps is right half of the time: that may be met by chance, but not again and again
    least, often = (0.0, 1) if isinstance(clock, Skew) else (_WATCH_S, 2)
    if isinstance(clock, Jumps):
        least, often = 2 * clock.every_s, _OFTEN
    if not watched:
        least, often = 0.0, 1
    return len(lately) >= often and lately[-1] - lately[0] >= least


class ClockFault(Fault):
    """Servers whose wall clock is wrong."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        servers, clock = target_parts(Aim.CLOCK, target)
        self._servers, self._clock, self._world = server_ids(servers), parse(clock), world
        self._clocks = clocks_of(world.ensemble.preparation(CLOCKS))
        self._begun: float | None = None
        self._healed = False
        # it changes nothing that other faults hold, and must not wait for them: a clock that drifts would stand still
        self._background = Background(f"clock-{fault_id}", threading.RLock())
        #: Since it was injected or, later, since it was healed.
        self._looks: dict[int, list[Look]] = {server: [] for server in self._servers}

    def inject(self) -> None:
        """Set the clocks wrong, and let them jump or drift."""
        self._forget()
        self._begun = time.monotonic()
        self._turn(self._begun)
        if self._clock.pause(0.0) is not None:
            self._background.start(self._turns(self._begun))

    def heal(self) -> None:
        """Set them right, as far as this fault has set them wrong."""
        try:
            self._background.stop()
        finally:
            for server in self._servers:
                self._clocks.release(self.id, server)
            if self._begun is not None and not self._healed:
                self._healed = True
                self._forget()
        self._background.check()

    def probe(self) -> Probe:
        """Let each server say what its clock says; of a fault that is yet to come, until all is seen to be well."""
        self._background.check()
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            # each by a thread of its own, so that none of them waits for another that is slow
            with ThreadPoolExecutor(len(self._servers)) as pool:
                found = list(pool.map(self._examine, self._servers))
            verdicts = {bites for bites, _measurement in found}
            measurements = tuple(measurement for _bites, measurement in found)
            summary = "; ".join(f"{m.what} {m.found}" for m in measurements)
            bites = verdicts.pop() if len(verdicts) == 1 else None
            if bites is not None or self._begun is not None or time.monotonic() > deadline:
                return Probe(bites, summary, measurements)
            time.sleep(_PAUSE_S)

    def _turns(self, begun: float) -> Iterator[float]:
        while True:
            now = time.monotonic()
            self._turn(now)
            yield self._clock.pause(now - begun) or 0.0

    def _turn(self, now: float) -> None:
        for server in self._servers:
            self._clocks.hold(self.id, server, self._clock.offset(now - (self._begun or now)))

    def _forget(self) -> None:
        for looks in self._looks.values():
            looks.clear()

    # --- what is seen ------------------------------------------------------------------------------------

    def _examine(self, server: int) -> tuple[bool | None, Measurement]:
        host = self._world.topology.server(server).host
        what = f"clock of {host}"
        others = self._clocks.others(self.id, server)
        look = self._look(host, self._world.ensemble.server_folder(server).logs / LOG_NAME)
        if isinstance(look, str):
            if self._world.servers.held(server):
                return self._by_file(server, what)
            return None, Measurement(what, look, healthy=False)
        looks = self._looks[server]
        if self._clocks.others(self.id, server) != others:
            return None, Measurement(what, f"{look.text}, while another fault changed it", healthy=True)
        looks.append(Look(look.at, look.offset - others, look.error))
        apart = f", of which other faults make {others:+.3f} s" if others else ""
        found = Measurement(what, f"{look.text}{apart}{self._so_far(looks)}", healthy=looks[-1].shows(0.0))
        if self._begun is not None and not self._healed and is_so(self._clock, looks):
            # a clock that jumps is right at times, and what was seen of it together speaks for the fault
            return True, Measurement(what, found.found, healthy=False)
        if is_right(self._clock, looks, watched=self._begun is not None):
            return False, found
        # before it begins, or after it was healed, whatever is wrong is wrong, but is not what this fault does
        return None, found

    def _so_far(self, looks: Sequence[Look]) -> str:
        """What several looks tell together."""
        passed = looks[-1].at - looks[0].at
        if isinstance(self._clock, Drift) and passed >= _WATCH_S:
            return f", {1 + (looks[-1].offset - looks[0].offset) / passed:.2f}x in {passed:.1f} s"
        if isinstance(self._clock, Jumps) and len(looks) > 1:
            offsets = [look.offset for look in looks]
            return f", in {passed:.1f} s from {min(offsets):+.3f} to {max(offsets):+.3f} s"
        return ""

    def _by_file(self, server: int, what: str) -> tuple[bool | None, Measurement]:
        """Of a process that another fault holds only what it will find when it goes on."""
        mine = self._clocks.written(server) - self._clocks.others(self.id, server)
        wrong = abs(mine) > _TINY_S
        return wrong, Measurement(what, f"will be {mine:+.3f} s; another fault holds the process", healthy=not wrong)

    def _look(self, host: str, log: Path) -> Look | str:
        """How far the server's clock is ahead of ours; or why that cannot be told."""
        length = log.stat().st_size if log.is_file() else 0
        began, at = time.time(), time.monotonic()
        answer = admin.ask(self._world.testbed, [host], _WORD, timeout=_ANSWER_S)[host]
        ended = time.time()
        if not answer:
            return f"no answer in {_ANSWER_S:g} s"
        lines = _LINE.findall(_from(log, length))
        if not lines:
            return f"it writes no time into {log.name}"
        said = datetime.fromisoformat(lines[-1].decode("ascii")).replace(tzinfo=UTC).timestamp()
        least, most = said - ended, said + _GRAIN_S - began
        return Look(at + (ended - began) / 2, (least + most) / 2, (most - least) / 2)


def _from(log: Path, length: int) -> bytes:
    if not log.is_file():
        return b""
    with log.open("rb") as stream:
        stream.seek(length)
        return stream.read()

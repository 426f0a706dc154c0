"""What becomes of a server's wall clock: the grammar.

::

    ahead 5s               it is so much ahead
    behind 1h              it is so much behind
    jumps 2s every 500ms   it jumps ahead, half a second later back, and so on
    drifts 1.5x            it runs half as fast again as real time, from the present on; `drifts 0.5x` half as fast

Only the wall clock: what a process measures and waits for with its monotonic clock stays right. A drift is made of
small steps, see `DRIFT_STEP_S`; a slow clock goes back a little at each of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.topology.duration import format_duration, parse_duration
from harness.topology.toml_document import value_text

#: How often a drifting clock is put right, or rather wrong, seconds.
DRIFT_STEP_S = 0.01

#: What a clock may be off by, seconds: a difference that a probe on a busy machine can tell, up to a day.
LEAST_S, MOST_S = 0.1, 24 * 3600.0
#: How long a clock that jumps stays where it is, seconds: so that it is seen to go and to come back.
SHORTEST_S, LONGEST_S = 0.2, 1.0
#: How much slower and faster a drifting clock may be; between the last slow one and the first fast one it is too right.
SLOWEST, LAST_SLOW, FIRST_FAST, FASTEST = 0.2, 0.8, 1.2, 5.0

_SKEW = re.compile(r"(ahead|behind) (\S+)", re.ASCII)
_JUMPS = re.compile(r"jumps (\S+) every (\S+)", re.ASCII)
_DRIFT = re.compile(r"drifts (\d{1,2}(?:\.\d{1,3})?)x", re.ASCII)


@dataclass(frozen=True)
class Skew:
    """Off by the same all the time, seconds; below 0 it is behind."""

    seconds: float

    def __str__(self) -> str:
        return f"{'behind' if self.seconds < 0 else 'ahead'} {format_duration(abs(self.seconds))}"

    def offset(self, since: float) -> float:
        """What is added to real time so many seconds after the fault began, seconds."""
        del since
        return self.seconds

    def pause(self, since: float) -> None:
        """Seconds until that is another one: it never is."""
        del since


@dataclass(frozen=True)
class Jumps:
    """In turn ahead by `seconds`, and right, each for `every_s` seconds."""

    seconds: float
    every_s: float

    def __str__(self) -> str:
        return f"jumps {format_duration(self.seconds)} every {format_duration(self.every_s)}"

    def offset(self, since: float) -> float:
        """As `Skew.offset`."""
        return 0.0 if self._turn(since) % 2 else self.seconds

    def pause(self, since: float) -> float | None:
        """As `Skew.pause`."""
        return (self._turn(since) + 1) * self.every_s - since

    def _turn(self, since: float) -> int:
        return int(since / self.every_s)


@dataclass(frozen=True)
class Drift:
    """So many seconds pass on it while one passes."""

    rate: float

    def __str__(self) -> str:
        return f"drifts {self.rate:g}x"

    def offset(self, since: float) -> float:
        """As `Skew.offset`."""
        return (self.rate - 1) * since

    def pause(self, since: float) -> float | None:
        """As `Skew.pause`."""
        del since
        return DRIFT_STEP_S


Clock = Skew | Jumps | Drift


def parse(text: str) -> Clock:
    """What `ahead 5s` and so on say.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    if match := _SKEW.fullmatch(text):
        seconds = _seconds(match[2], LEAST_S, MOST_S)
        return Skew(-seconds if match[1] == "behind" else seconds)
    if match := _JUMPS.fullmatch(text):
        return Jumps(_seconds(match[1], LEAST_S, MOST_S), _seconds(match[2], SHORTEST_S, LONGEST_S))
    if match := _DRIFT.fullmatch(text):
        rate = float(match[1])
        if not (SLOWEST <= rate <= LAST_SLOW or FIRST_FAST <= rate <= FASTEST):
            allowed = f"{SLOWEST:g}x to {LAST_SLOW:g}x, {FIRST_FAST:g}x to {FASTEST:g}x"
            raise ValueError(f"a clock cannot be told to run at {match[1]}x; allowed: {allowed}")
        return Drift(rate)
    forms = '"ahead 5s", "behind 1h", "jumps 2s every 500ms", "drifts 1.5x"'
    raise ValueError(f"{value_text(text)} is not what becomes of a clock; allowed: such as {forms}")


def _seconds(text: str, least: float, most: float) -> float:
    seconds = parse_duration(text)
    if not least <= seconds <= most:
        raise ValueError(
            f"{value_text(text)} is not allowed here; allowed: {format_duration(least)} to {format_duration(most)}"
        )
    return seconds

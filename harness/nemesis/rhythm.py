"""How often something dies and comes back: `500ms`, or `200ms/1s` for so long dead and so long alive."""

from __future__ import annotations

from dataclasses import dataclass

from harness.topology.duration import format_duration, parse_duration
from harness.topology.toml_document import value_text

#: The shortest stretch, and the longest time from one death to the next, seconds. It takes two deaths to see that
#: something dies again and again, and a plan waits for that.
SHORTEST, LONGEST = 0.1, 4.0


@dataclass(frozen=True)
class Rhythm:
    """Seconds."""

    dead_s: float
    alive_s: float

    @property
    def period_s(self) -> float:
        """From one death to the next."""
        return self.dead_s + self.alive_s

    @property
    def text(self) -> str:
        """The shortest that `parse` reads as the same."""
        dead, alive = format_duration(self.dead_s), format_duration(self.alive_s)
        return dead if dead == alive else f"{dead}/{alive}"


def parse(text: str) -> Rhythm:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form, or too fast, or too slow to be seen.
    """
    dead, slash, alive = text.partition("/")
    try:
        rhythm = Rhythm(parse_duration(dead), parse_duration(alive if slash else dead))
    except ValueError:
        raise ValueError(
            f'{value_text(text)} is not a rhythm; allowed: "500ms", or "200ms/1s" for so long dead and so long alive'
        ) from None
    if min(rhythm.dead_s, rhythm.alive_s) < SHORTEST or rhythm.period_s > LONGEST:
        raise ValueError(
            f"{value_text(text)} is dead for {format_duration(rhythm.dead_s)} and alive for "
            f"{format_duration(rhythm.alive_s)}; allowed: each at least {format_duration(SHORTEST)}, and both together "
            f"at most {format_duration(LONGEST)}"
        )
    return rhythm

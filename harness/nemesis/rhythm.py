"""How often something dies and comes back: `500ms`, or `200ms/1s` for so long dead and so long alive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rhythm:
    """Seconds."""

    dead_s: float
    alive_s: float


def parse(text: str) -> Rhythm:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form.
    """
    raise NotImplementedError(text)

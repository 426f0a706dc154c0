"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CapabilityFinding:
    """One thing that was tried. `needed` says whether no run at all is possible without it."""

    what: str
    ok: bool
    needed: bool
    found: str
    next_step: str = ""

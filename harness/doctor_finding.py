"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.stage.make import ON_ENGINE, TESTBEDS

#: Who may need what is examined: every testbed, the one that is made of namespaces, those on a Docker engine, none.
EVERYBODY, NAMESPACES, ENGINES, NOBODY = TESTBEDS, TESTBEDS[:1], ON_ENGINE, ()


@dataclass(frozen=True)
class CapabilityFinding:
    """One thing that was tried."""

    what: str
    ok: bool
    #: The testbeds that no run is possible on without it.
    needed_by: tuple[str, ...]
    found: str
    next_step: str = ""


def missing(findings: Sequence[CapabilityFinding], testbed: str) -> list[CapabilityFinding]:
    """What a testbed needs and does not have; nothing where runs are possible."""
    return [finding for finding in findings if not finding.ok and testbed in finding.needed_by]


def possible(findings: Sequence[CapabilityFinding]) -> list[str]:
    """The testbeds that runs are possible on."""
    return [testbed for testbed in TESTBEDS if not missing(findings, testbed)]

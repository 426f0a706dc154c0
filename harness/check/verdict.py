"""Verdicts: what a judge may say, and how several of them become one."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from harness.history.folder import RunFolder, read_json


class Finding(StrEnum):
    """Three-valued: what could not be judged is `unknown`, and `unknown` never counts as `valid`."""

    VALID = "valid"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class Witness(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of evidence: an operation, a transaction or a measurement, in one line a person understands."""

    text: str
    #: When it began and ended, monotonic nanoseconds; None where it has no place in time.
    start: int | None = None
    end: int | None = None
    #: `process#index` of the operation, if it is one.
    operation: str | None = None


class Figure(msgspec.Struct, frozen=True):
    """A measured number that belongs to a verdict."""

    name: str
    value: float
    unit: str


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one judge says of one guarantee in one run."""

    #: Stable id: `linearizable-writes`, `session-order`, `durability`, `agreement`, `recovery`,
    #: `expectation` (where a plan says what it expects), `faults-proved`.
    guarantee: str
    #: The promise in words.
    promise: str
    finding: Finding
    #: One sentence: why this finding.
    summary: str
    #: The smallest set of facts that contradict each other. Empty unless violated.
    witnesses: tuple[Witness, ...] = ()
    figures: tuple[Figure, ...] = ()
    #: Ids of the promises it speaks of, as `NR-01`.
    claims: tuple[str, ...] = ()
    #: Anything else the reader should know, such as what a topology predicts.
    notes: tuple[str, ...] = ()


class Overall(StrEnum):
    """What a whole run comes to."""

    VALID = "valid"
    VIOLATED = "violated"
    UNKNOWN = "unknown"
    #: The harness could not do what it said.
    BROKEN = "broken"

    @property
    def exit_code(self) -> int:
        """0 valid, 1 violated, 2 unknown, 3 broken."""
        return _EXIT_CODES[self]


_EXIT_CODES = {Overall.VALID: 0, Overall.VIOLATED: 1, Overall.UNKNOWN: 2, Overall.BROKEN: 3}


class Judgement(msgspec.Struct, frozen=True):
    """All verdicts on one run; written as `verdicts.json`."""

    overall: Overall
    verdicts: tuple[Verdict, ...]
    #: Why the run is broken, a sentence each; empty if it is not.
    broken: tuple[str, ...] = ()
    harness_version: str = ""

    def violated(self) -> tuple[Verdict, ...]:
        """The verdicts that found a promise broken."""
        return tuple(v for v in self.verdicts if v.finding is Finding.VIOLATED)


def combine(verdicts: tuple[Verdict, ...], broken: tuple[str, ...]) -> Overall:
    """The worst of all. A proven violation is told first; nothing hides it, not even a broken harness."""
    findings = {v.finding for v in verdicts}
    if Finding.VIOLATED in findings:
        return Overall.VIOLATED
    if broken:
        return Overall.BROKEN
    if Finding.UNKNOWN in findings or not verdicts:
        return Overall.UNKNOWN
    return Overall.VALID


def load_judgement(folder: RunFolder) -> Judgement:
    """The verdicts on a run, as last written.

    Raises:
        RunFolderError: it has not been judged yet.
    """
    return read_json(folder.verdicts_file, Judgement)

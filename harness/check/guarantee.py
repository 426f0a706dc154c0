"""A guarantee that a judge speaks of, and the three things that it can say."""

from __future__ import annotations

from dataclasses import dataclass

from harness.check.verdict import Figure, Finding, Verdict, Witness

#: Most witnesses that a verdict shows.
MAX_WITNESSES = 5


@dataclass(frozen=True)
class Problem:
    """One way in which a promise was broken: a sentence, and the facts that contradict each other."""

    summary: str
    witnesses: tuple[Witness, ...]


@dataclass(frozen=True)
class Guarantee:
    """A named promise.

    Args:
        id: stable, as `durability`.
        promise: in words.
        claims: ids of the documented promises that it stands for.
    """

    id: str
    promise: str
    claims: tuple[str, ...] = ()

    def judged(
        self,
        problems: list[Problem],
        doubts: list[str],
        kept: str,
        figures: tuple[Figure, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Verdict:
        """The verdict: violated if there is a problem, else unknown if there is a doubt, else valid.

        Args:
            problems: what was found; the first one is shown, the others are counted.
            doubts: reasons why the evidence does not suffice, a sentence each.
            kept: the sentence for a promise that was kept.
            figures: what was measured.
            notes: what else the reader should know.
        """
        if problems:
            first = problems[0]
            more = len(problems) - 1
            if more:
                notes = (f"{more} more {'contradiction was' if more == 1 else 'contradictions were'} found.", *notes)
            return self._say(Finding.VIOLATED, first.summary, first.witnesses[:MAX_WITNESSES], figures, notes)
        if doubts:
            return self._say(Finding.UNKNOWN, doubts[0], (), figures, (*doubts[1:], *notes))
        return self._say(Finding.VALID, kept, (), figures, notes)

    def _say(
        self,
        finding: Finding,
        summary: str,
        witnesses: tuple[Witness, ...],
        figures: tuple[Figure, ...],
        notes: tuple[str, ...],
    ) -> Verdict:
        return Verdict(
            guarantee=self.id,
            promise=self.promise,
            finding=finding,
            summary=summary,
            witnesses=witnesses,
            figures=figures,
            claims=self.claims,
            notes=notes,
        )


def count(number: int, thing: str, things: str = "") -> str:
    """`1 write`, `2 writes`."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"

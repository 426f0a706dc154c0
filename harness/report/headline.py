"""The first thing on the page: the verdict in one word, and what happened in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.check.verdict import Finding, Judgement, Overall
from harness.history.records import Outcome
from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory, how_long, what_happened
from harness.report.impact import comeback, longest_write_pause
from harness.report.material import Material
from harness.report.words import count, duration, instant, listing, plural


@dataclass(frozen=True)
class Headline:
    """What is read first, and by many alone."""

    #: `VALID`, `VIOLATED`, `UNKNOWN` or `BROKEN`.
    word: str
    #: What is violated, unknown or broken; empty if valid.
    what: str
    #: What happened.
    sentence: str


def headline(material: Material, judgement: Judgement, faults: Sequence[FaultStory], axis: TimeAxis) -> Headline:
    """Say it plainly."""
    parts = [_faults(faults, axis), *_effects(material, faults), _losses(judgement)]
    sentence = "; ".join(part for part in parts if part)
    aborted = material.phase("aborted")
    if aborted:
        sentence = f"the run was aborted at {instant(axis.seconds(aborted.at))}; {sentence}"
    return Headline(judgement.overall.value.upper(), _what(judgement), f"{sentence[:1].upper()}{sentence[1:]}.")


def _what(judgement: Judgement) -> str:
    if judgement.overall is Overall.VIOLATED:
        promises = [v.promise for v in judgement.violated()]
    elif judgement.overall is Overall.BROKEN:
        promises = list(judgement.broken)
    elif judgement.overall is Overall.UNKNOWN:
        promises = [v.promise for v in judgement.verdicts if v.finding is Finding.UNKNOWN] or ["nothing was judged"]
    else:
        return ""
    more = f" (and {len(promises) - 1} more)" if len(promises) > 1 else ""
    return promises[0] + more if promises else ""


def _faults(faults: Sequence[FaultStory], axis: TimeAxis) -> str:
    if not faults:
        return "no fault was injected"
    if len(faults) <= 2:
        return "; ".join(
            f"{what_happened(f)} at {instant(axis.seconds(f.injected or f.began))} {how_long(f)}".rstrip() for f in faults
        )
    kinds = [f"{sum(f.kind == kind for f in faults)} {kind}" for kind in dict.fromkeys(f.kind for f in faults)]
    last = max(f.healed or f.began for f in faults)
    begin = instant(axis.seconds(min(f.began for f in faults)))
    return f"{len(faults)} faults between {begin} and {instant(axis.seconds(last))} ({listing(kinds, most=4)})"


def _effects(material: Material, faults: Sequence[FaultStory]) -> list[str]:
    if not material.operations:
        return ["no operation was recorded"]
    answered = sum(o.outcome is Outcome.OK for o in material.operations)
    if not faults:
        return [f"{plural(len(material.operations), 'operation')}, {count(answered)} of them acknowledged"]
    since = min(f.began for f in faults)
    return [_writes(material, since), _clients(material, since)]


def _writes(material: Material, since: int) -> str:
    quiesce = material.phase("quiesce")
    pause = longest_write_pause(material.operations, since, quiesce.at if quiesce else None)
    if pause is None:
        return ""
    if not pause.ended and pause.seconds >= 1:
        return "writes stopped and did not come back before the load ended"
    if pause.seconds < 1:
        return f"writes never paused for more than {duration(pause.seconds)}"
    return f"writes stopped for {duration(pause.seconds)}"


def _clients(material: Material, since: int) -> str:
    seen = comeback(material.sessions, since)
    if not seen.clients:
        return ""
    if not seen.disturbed:
        return f"none of the {plural(seen.clients, 'client')} lost its connection"
    if seen.missing:
        return f"{count(seen.missing)} of {plural(seen.clients, 'client')} did not come back"
    after = "" if seen.back is None else f" after {duration((seen.back - since) / 1e9)}"
    return f"all {plural(seen.clients, 'client')} were back{after}"


def _losses(judgement: Judgement) -> str:
    said = {
        Finding.VALID: "nothing acknowledged was lost",
        Finding.VIOLATED: "an acknowledged write was lost",
        Finding.UNKNOWN: "whether an acknowledged write was lost is not known",
    }
    findings = [v.finding for v in judgement.verdicts if v.guarantee == "durability"]
    return said[findings[0]] if findings else ""

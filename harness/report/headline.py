"""The first thing on the page: the verdict in one word, and what happened in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.check.outage import SHORTEST_STALL
from harness.check.recovery import FaultRecovery
from harness.check.verdict import Finding, Judgement, Overall
from harness.history.records import Outcome
from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory, how_long, what_happened
from harness.report.material import Material
from harness.report.words import NANOSECONDS, count, duration, instant, listing, plural


@dataclass(frozen=True)
class Headline:
    """What is read first, and by many alone."""

    #: `VALID`, `VIOLATED`, `UNKNOWN` or `BROKEN`.
    word: str
    #: What is violated, unknown or broken; empty if valid.
    what: str
    #: What happened.
    sentence: str
    #: Why it is violated or unknown, in the judge's words; empty otherwise.
    why: str


def headline(material: Material, judgement: Judgement, faults: Sequence[FaultStory], axis: TimeAxis) -> Headline:
    """Say it plainly."""
    parts = [_faults(faults, axis), *_effects(material, faults), _losses(judgement)]
    aborted = material.phase("aborted")
    if aborted:
        parts.insert(0, f"the run was aborted at {instant(axis.seconds(aborted.at))}")
    sentence = "; ".join(part for part in parts if part)
    what, why = _what(judgement)
    return Headline(judgement.overall.value.upper(), what, f"{sentence[:1].upper()}{sentence[1:]}.", why)


def _what(judgement: Judgement) -> tuple[str, str]:
    """What the verdict is about, and why."""
    if judgement.overall is Overall.VALID:
        return "", ""
    if judgement.overall is Overall.BROKEN:
        return _first_of(judgement.broken), ""
    finding = Finding.VIOLATED if judgement.overall is Overall.VIOLATED else Finding.UNKNOWN
    verdicts = [v for v in judgement.verdicts if v.finding is finding]
    if not verdicts:
        return "nothing was judged", ""
    return _first_of([v.promise for v in verdicts]), verdicts[0].summary


def _first_of(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
    first = texts[0].rstrip(".")
    # It goes on after a colon; a name in capitals stays what it is.
    return first[:1].lower() + first[1:] + more if first[1:2].islower() or first[1:2] == " " else first + more


def _faults(faults: Sequence[FaultStory], axis: TimeAxis) -> str:
    if not faults:
        return "no fault was injected"
    if len(faults) <= 2:
        return "; ".join(
            f"{what_happened(f)} at {instant(axis.seconds(f.injected or f.began))} {how_long(f)}".rstrip()
            for f in faults
        )
    kinds = [f"{kind} {_times(number)}" for kind, number in Counter(f.kind for f in faults).items()]
    last = max(f.healed or f.began for f in faults)
    begin = instant(axis.seconds(min(f.began for f in faults)))
    return f"{len(faults)} faults between {begin} and {instant(axis.seconds(last))} ({listing(kinds, most=6)})"


def _times(number: int) -> str:
    return "once" if number == 1 else "twice" if number == 2 else f"{count(number)} times"


def _effects(material: Material, faults: Sequence[FaultStory]) -> list[str]:
    if not material.operations:
        return ["no operation was recorded"]
    if not faults or not material.recoveries:
        answered = sum(o.outcome is Outcome.OK for o in material.operations)
        return [f"{plural(len(material.operations), 'operation')}, {count(answered)} of them acknowledged"]
    return [_writes(material.recoveries), _clients(material)]


def _writes(recoveries: Sequence[FaultRecovery]) -> str:
    if any(r.outage is not None and r.outage.end is None for r in recoveries):
        return "writes stopped and were not answered again before the load ended"
    longest = max(r.write_outage_s for r in recoveries)
    if longest < SHORTEST_STALL / NANOSECONDS:
        return f"writes never stopped for more than {duration(longest)}"
    most = "at most " if len(recoveries) > 1 else ""
    return f"writes stopped for {most}{duration(longest)}"


def _clients(material: Material) -> str:
    clients = len({o.process for o in material.operations})
    missing = {d.process for r in material.recoveries for d in r.unrecovered}
    if missing:
        return f"{count(len(missing))} of {plural(clients, 'client')} were not served again before the load ended"
    disturbed = len({d.process for r in material.recoveries for d in (*r.during, *r.after)})
    if not disturbed:
        return f"none of the {plural(clients, 'client')} was disturbed"
    longest = max(max(r.recovery_s, r.heal_s) for r in material.recoveries)
    when = f"after {duration(longest)}"
    if len(material.recoveries) > 1:
        when = f"within {duration(longest)} of each fault"
    if disturbed < clients:
        return f"{disturbed} of {plural(clients, 'client')} were disturbed, and back {when}"
    return f"all {plural(clients, 'client')} were back {when}"


def _losses(judgement: Judgement) -> str:
    said = {
        Finding.VALID: "nothing acknowledged was lost",
        Finding.VIOLATED: "an acknowledged write was lost",
        Finding.UNKNOWN: "whether an acknowledged write was lost is not known",
    }
    findings = [v.finding for v in judgement.verdicts if v.guarantee == "durability"]
    return said[findings[0]] if findings else ""

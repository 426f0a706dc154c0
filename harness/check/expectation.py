"""The service survives the faults that it should survive, and stops under those that should stop it.

What a plan expects of the service while a fault is on is held against the writes that were answered meanwhile, to
whichever client:

* **stops**: from two seconds after the injection until the healing begins no write is answered, and clients want some;
* **survives**: writes are answered, and between two answers no client waits in vain for longer than the budget for
  recovery. Where another fault is expected to stop the service, that one's time, and the budget after it, do not count.

A refused write is an answer: the whole quorum took part in refusing it. What is not expected is not judged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

import msgspec

from harness.check.evidence import Evidence
from harness.check.faults_proved import first_steps
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.outage import SHORTEST_STALL, Attempt, Wait, attempts_by_client, waits
from harness.check.prediction import NETWORK_FAULTS, predicted, sentence
from harness.check.verdict import Figure, Finding, Verdict, Witness
from harness.check.words import Words
from harness.history.records import FaultAction, FaultEvent, Operation
from harness.history.scenario import STOPS_WITHIN_S, Service

GUARANTEE = Guarantee(
    "expectation", "The service survives the faults that it should survive, and stops under those that should stop it."
)

#: A stop is seen where clients wait in vain for at least this share of its time.
WANTED = 0.5
_STOPS_WITHIN = round(STOPS_WITHIN_S * 1e9)

#: From when until when, monotonic nanoseconds.
Span = tuple[int, int]


@dataclass(frozen=True)
class Stop:
    """A fault that is expected to stop the service: when it was in place, and when its healing began."""

    fault: int
    start: int
    healed: int


def stops(evidence: Evidence) -> tuple[Stop, ...]:
    """Every fault of the run that was expected to stop the service; one that never healed lasts to the load's end."""
    return tuple(
        Stop(step.id, start, healed)
        for step in first_steps(evidence)
        if evidence.scenario.expected.get(step.id) is Service.STOPS
        for start, healed in (_time_of(step, evidence),)
    )


def check(evidence: Evidence) -> Verdict | None:
    """Judge; None where nothing is expected."""
    expected = evidence.scenario.expected
    if not expected:
        return None
    faults = [step for step in first_steps(evidence) if step.id in expected]
    words = Words(evidence.start)
    answers = _Answers(attempts_by_client(evidence.writes, evidence.sessions, evidence.load_end).values())
    doubts = [
        f"Not all of it can be read: {damage.text}."
        for part in ("clients", "events")
        for damage in evidence.damaged(part)
    ]
    if missing := len(expected) - len(faults):
        doubts.append(f"{count(missing, 'fault')} of which something is expected never came.")
    if not answers.times:
        doubts.append("No write was answered at any time, so it cannot be told what a fault changed.")
        faults = []
    problems: list[Problem] = []
    for fault in faults:
        judge = _stopped if expected[fault.id] is Service.STOPS else _survived
        found = judge(fault, evidence, answers, words)
        if isinstance(found, Problem):
            problems.append(found)
        elif found:
            doubts.append(found)
    verdict = GUARANTEE.judged(
        problems, doubts, _kept(faults, expected), _figures(faults, evidence, answers), _notes(faults, evidence)
    )
    control = verdict.finding is Finding.VALID and any(_is_control(fault, evidence) for fault in faults)
    return msgspec.structs.replace(verdict, claims=("NR-11",) if control else ())


class _Answers:
    """When writes were answered, and when somebody waited for one: all clients together."""

    def __init__(self, attempts: Iterable[list[Attempt]]) -> None:
        together = sorted(chain.from_iterable(attempts), key=itemgetter(0))
        answered = [(until, answer) for until, _call, answer in together if answer is not None]
        self.times = [until for until, _answer in answered]
        self._operations = [answer for _until, answer in answered]
        self._waits = waits(together, SHORTEST_STALL)

    def within(self, span: Span) -> Sequence[Operation]:
        """What was answered in that time, in order."""
        return self._operations[bisect_left(self.times, span[0]) : bisect_left(self.times, span[1])]

    def waits_within(self, span: Span) -> list[tuple[int, Wait]]:
        """The waits that touch that time, each with how much of it they take, nanoseconds."""
        cut = ((min(wait.until, span[1]) - max(wait.start, span[0]), wait) for wait in self._waits)
        return [(length, wait) for length, wait in cut if length > 0]


def _time_of(fault: FaultEvent, evidence: Evidence) -> Span:
    """From when a fault was in place until its healing began; to the end of the load at the latest."""
    at = {event.action: event.at for event in evidence.faults if event.id == fault.id}
    start = at.get(FaultAction.INJECTED, fault.at)
    return start, max(start, min(at.get(FaultAction.HEAL, evidence.load_end), evidence.load_end))


def _name(fault: FaultEvent) -> str:
    return f"{fault.fault} {fault.target}"


def _stopped(fault: FaultEvent, evidence: Evidence, answers: _Answers, words: Words) -> Problem | str:
    """What is wrong with a stop, or why it cannot be told; nothing where the service stopped."""
    injected, healed = _time_of(fault, evidence)
    span = (injected + _STOPS_WITHIN, healed)
    if span[0] >= span[1]:
        lasted = (healed - injected) / 1e9
        return f"{_name(fault)} lasted {lasted:.2f} s, and a stop is seen after {STOPS_WITHIN_S:g} s at the earliest."
    if found := answers.within(span):
        summary = (
            f"{_name(fault)} was expected to stop the service, and {count(len(found), 'write was', 'writes were')} "
            f"answered while it was on, the last {(_returned(found[-1]) - injected) / 1e9:.2f} s after its injection."
        )
        shown = found[:1] if len(found) == 1 else (found[0], found[-1])
        return Problem(summary, (_witness(fault, injected, healed, words), *map(words.operation, shown)))
    waited = sum(length for length, _wait in answers.waits_within(span))
    if waited < WANTED * (span[1] - span[0]):
        return (
            f"No write was answered under {_name(fault)}, but clients wanted one for {waited / 1e9:.2f} s only: "
            "too little load to tell."
        )
    return ""


def _survived(fault: FaultEvent, evidence: Evidence, answers: _Answers, words: Words) -> Problem | str:
    """What is wrong with a survival, or why it cannot be told; nothing where the service survived."""
    budget = evidence.scenario.recovery_within_s
    if budget is None:
        return f"Whether {_name(fault)} was survived cannot be told without a budget for recovery."
    limit = round(budget * 1e9)
    injected, healed = _time_of(fault, evidence)
    spans = without([(fault.at, healed)], [(stop.start, stop.healed + limit) for stop in stops(evidence)])
    waited = [found for span in spans for found in answers.waits_within(span)]
    length, worst = max(waited, key=itemgetter(0), default=(0, None))
    if worst is not None and length > limit:
        summary = (
            f"{_name(fault)} was expected to be survived, and while it was on no write was answered for "
            f"{length / 1e9:.2f} s; the budget is {budget:g} s."
        )
        around = tuple(words.operation(op) for op in (worst.before, worst.after) if op is not None)
        return Problem(summary, (_witness(fault, injected, healed, words), *around))
    if not any(answers.within(span) for span in spans):
        seconds = sum(end - start for start, end in spans) / 1e9
        return f"In the {seconds:.2f} s of {_name(fault)} no write was answered: too short to tell if it was survived."
    return ""


def without(spans: list[Span], taken: Iterable[Span]) -> list[Span]:
    """What is left of some spans of time."""
    for start, end in taken:
        spans = [
            piece
            for one, other in spans
            for piece in ((one, min(other, start)), (max(one, end), other))
            if piece[0] < piece[1]
        ]
    return spans


def _returned(operation: Operation) -> int:
    return operation.returned if operation.returned is not None else operation.call


def _witness(fault: FaultEvent, injected: int, healed: int, words: Words) -> Witness:
    text = f"{_name(fault)} was in place at {words.at(injected)}, and its healing began at {words.at(healed)}"
    return Witness(text, injected, healed)


def _kept(faults: Sequence[FaultEvent], expected: dict[int, Service]) -> str:
    stopped = [_name(fault) for fault in faults if expected[fault.id] is Service.STOPS]
    survived = len(faults) - len(stopped)
    parts = [f"the service stopped under {stopped[0]}"] if len(stopped) == 1 else []
    parts += [f"the service stopped under {len(stopped)} faults"] if len(stopped) > 1 else []
    parts += [f"{count(survived, 'fault was', 'faults were')} survived"] if survived else []
    text = ", and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}, as expected."


def _figures(faults: Sequence[FaultEvent], evidence: Evidence, answers: _Answers) -> tuple[Figure, ...]:
    """How many writes were answered while each fault was on."""
    numbers = [len(answers.within(_time_of(fault, evidence))) for fault in faults]
    figures = [Figure("answered under faults", sum(numbers), "")] if faults else []
    figures += [
        Figure(f"fault {fault.id} ({_name(fault)}) answered", number, "")
        for fault, number in zip(faults, numbers, strict=True)
    ]
    return tuple(figures)


def _is_control(fault: FaultEvent, evidence: Evidence) -> bool:
    """Whether a fault of the network stops the service because there is no second way."""
    stops_it = evidence.scenario.expected[fault.id] is Service.STOPS
    return stops_it and fault.fault in NETWORK_FAULTS and sentence(fault, evidence) is not None


def _notes(faults: Sequence[FaultEvent], evidence: Evidence) -> tuple[str, ...]:
    """Where the topology predicts something else than the plan expects."""
    notes: list[str] = []
    for fault in faults:
        survival = predicted(fault, evidence)
        survives = evidence.scenario.expected[fault.id] is Service.SURVIVES
        if survival is not None and survives is not (survival.quorum and bool(survival.clients)):
            notes.append(f"The topology predicts something else of {_name(fault)}: {survival.reason}.")
    return tuple(dict.fromkeys(notes))

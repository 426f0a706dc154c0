"""Every fault bit and was healed, by its own probe: measured before, during and after.

This is a promise of the harness, not of ZooKeeper. A fault without proof makes the run broken: what was said about the
servers may be true, but not that they were put to the test.
"""

from __future__ import annotations

from harness.check.evidence import Evidence
from harness.check.guarantee import Guarantee, count
from harness.check.verdict import Figure, Verdict
from harness.history.records import FaultAction, FaultEvent

GUARANTEE = Guarantee("faults-proved", "Every fault is seen to bite, and seen to be gone after it was healed.")

#: Each stage of a probe, what `bites` must be, and the sentence for when it is not.
_STAGES = (
    ("before", False, "its target was not seen to be healthy before it"),
    ("during", True, "it was not seen to bite"),
    ("after", False, "it was not seen to be gone after it was healed"),
)
#: The life of a fault that the harness carried out, with the sentence for a step that is lacking.
_LIFE = ((FaultAction.INJECTED, "it was never injected"), (FaultAction.HEALED, "it was never healed"))


def check(evidence: Evidence) -> Verdict:
    """Judge. Never `violated`: what is not proved is not known, and is told as `broken` besides."""
    faults = first_steps(evidence)
    doubts = [sentence for fault in faults for sentence in unproved(fault, evidence)]
    doubts += never_injected(evidence)
    doubts += [f"Not all events can be read: {damage.text}." for damage in evidence.damaged("events")]
    proved = sum(1 for fault in faults if not unproved(fault, evidence))
    kept = f"{count(proved, 'fault')} bit and went, each by its own probe." if faults else "No fault was asked for."
    return GUARANTEE.judged([], doubts, kept, (Figure("faults proved", proved, ""), Figure("faults", len(faults), "")))


def first_steps(evidence: Evidence) -> tuple[FaultEvent, ...]:
    """The first event of each fault, in the order of the schedule."""
    first: dict[int, FaultEvent] = {}
    for event in evidence.faults:
        first.setdefault(event.id, event)
    return tuple(first[id_] for id_ in sorted(first))


def never_injected(evidence: Evidence) -> list[str]:
    """One sentence if the schedule has more faults than were begun, else none."""
    scheduled, begun = evidence.scenario.scheduled_faults or 0, len(first_steps(evidence))
    if begun >= scheduled:
        return []
    if begun == 0:
        return [
            "The plan's fault was never injected." if scheduled == 1 else f"None of the plan's {scheduled} faults came."
        ]
    return [f"Only {begun} of the plan's {scheduled} faults came."]


def unproved(fault: FaultEvent, evidence: Evidence) -> list[str]:
    """Why one fault is not proved, a sentence each; empty if it is."""
    name = f"Fault {fault.id} ({fault.fault} {fault.target})"
    actions = {event.action for event in evidence.faults if event.id == fault.id}
    sentences = [f"{name}: {text}." for action, text in _LIFE if action not in actions]
    found = {probe.stage: probe for probe in evidence.probes if probe.id == fault.id}
    for stage, bites, text in _STAGES:
        probe = found.get(stage)
        if probe is None:
            sentences.append(f"{name}: {text} (no probe was taken).")
        elif probe.bites is not bites:
            sentences.append(f"{name}: {text} ({probe.summary}).")
    return sentences


def broken(evidence: Evidence) -> tuple[str, ...]:
    """Why the run is broken, a sentence each: the harness could not do what it said. Empty if it could."""
    sentences: list[str] = []
    for event in evidence.faults:
        if event.action is FaultAction.FAILED:
            detail = f": {event.detail}" if event.detail else ""
            sentences.append(f"Fault {event.id} ({event.fault} {event.target}) failed{detail}.")
    for fault in first_steps(evidence):
        sentences += unproved(fault, evidence)
    sentences += never_injected(evidence)
    sentences += [note.text for note in evidence.notes if note.broken]
    aborted = next((phase for phase in evidence.phases if phase.name == "aborted"), None)
    if aborted is not None:
        sentences.append(f"The run was aborted{': ' + aborted.detail if aborted.detail else ''}.")
    elif evidence.phase_at("done") is None:
        last = f"its last phase is {evidence.phases[-1].name}" if evidence.phases else "it has no phases"
        sentences.append(f"The run ended early: {last}.")
    return tuple(dict.fromkeys(sentences))

"""The service recovers from each fault within the plan's budget.

For each fault, from its injection until the next one or the end of the load:

* **write outage**: the longest wait of all clients together (`outage.py`) that began in that time;
* **recovery**: the time from the injection until the last disturbed client was served again. Each client counts with
  its longest disturbance that began while the fault lasted. One that began more than three seconds after the
  injection was not seen at the injection, and counts from its own begin; so does none at all, as zero.
* What begins after the heal counts likewise from the heal, and is held to the same budget.

A disturbance belongs to the fault in whose time it began. Where a plan expects a fault to stop the service, nobody is
expected to be served before it heals: whatever lasts into its time counts from its heal. Only clients that had been
answered before the fault count. Without a budget nothing is promised but that the clients are served again before the
load ends.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

import msgspec

from harness.check.claims import claims_of
from harness.check.evidence import Evidence
from harness.check.expectation import Stop, stops
from harness.check.faults_proved import first_steps, never_injected
from harness.check.guarantee import Guarantee, Problem, count
from harness.check.outage import (
    SECOND,
    SHORTEST_STALL,
    Attempt,
    Wait,
    attempts_by_client,
    disturbances,
    stall_threshold,
    waits,
)
from harness.check.prediction import NETWORK_FAULTS, sentence
from harness.check.verdict import Figure, Verdict, Witness
from harness.check.words import Words
from harness.history.records import FaultAction, FaultEvent

GUARANTEE = Guarantee("recovery", "After each fault the clients' writes are answered again within the plan's budget.")

#: A disturbance that begins later than this after the injection (or the heal) counts from its own begin.
ONSET = 3 * SECOND
#: Fewer attempts to write than this between two faults, or while one is on, are too few to tell.
MIN_ATTEMPTS = 5


@dataclass(frozen=True)
class Disturbed:
    """One client's disturbance under one fault."""

    process: str
    wait: Wait
    #: What it counts from: the injection, the heal, or its own begin.
    since: int

    @property
    def lasted(self) -> int:
        """Nanoseconds until the client was served again, or gave up."""
        return max(0, self.wait.until - self.since)


@dataclass(frozen=True)
class FaultRecovery:
    """What one fault did to the clients."""

    fault: FaultEvent
    #: When its healing began; None if it was never healed.
    healed: int | None
    #: The next fault's injection, or the end of the load.
    end: int
    load_end: int
    #: Clients that had been answered before it; and how often clients tried to write, or were about to, in its time, or
    #: while it was on where the next one came before it healed.
    working: int
    attempts: int
    #: The longest wait of all clients together; None if there was none.
    outage: Wait | None
    #: Each disturbed client's longest disturbance that began before the heal, and after it.
    during: tuple[Disturbed, ...]
    after: tuple[Disturbed, ...]
    #: Whether the service was expected to stop.
    stops: bool = False

    @property
    def name(self) -> str:
        """`switch-down net1`."""
        return f"{self.fault.fault} {self.fault.target}"

    @property
    def write_outage_s(self) -> float:
        """Seconds."""
        return self.outage.length / 1e9 if self.outage is not None else 0.0

    @property
    def recovery_s(self) -> float:
        """Seconds from the injection until every client was served again; 0 if none was disturbed."""
        return max((d.lasted for d in self.during), default=0) / 1e9

    @property
    def heal_s(self) -> float:
        """Seconds from the heal until every client that it disturbed was served again; 0 if none was."""
        return max((d.lasted for d in self.after), default=0) / 1e9

    @property
    def unrecovered(self) -> tuple[Disturbed, ...]:
        """Clients that were not served again before the load ended."""
        return tuple(d for d in (*self.during, *self.after) if d.wait.end is None)


def check(evidence: Evidence) -> Verdict:
    """Judge."""
    words = Words(evidence.start)
    found = measure(evidence)
    budget = evidence.scenario.recovery_within_s
    problems: list[Problem] = []
    doubts = [f"Not all operations can be read: {damage.text}." for damage in evidence.damaged("clients")]
    doubts += [f"Not all events can be read: {damage.text}." for damage in evidence.damaged("events")]
    if found and not evidence.acknowledged_writes:
        doubts.append("No write was acknowledged, so no recovery can be seen.")
        found = ()
    doubts += never_injected(evidence)
    for recovery in found:
        problems += _over_budget(recovery, budget, evidence, words)
        doubts += _unclear(recovery, budget, words)
    notes = [text for recovery in found if (text := sentence(recovery.fault, evidence)) is not None]
    if budget is None and found:
        notes.append("The plan sets no budget, so recovery is measured, and not judged.")
    verdict = GUARANTEE.judged(problems, doubts, _kept(found, budget, words), _figures(found), tuple(notes))
    return msgspec.structs.replace(verdict, claims=_claims(found, evidence))


def measure(evidence: Evidence) -> tuple[FaultRecovery, ...]:
    """What each fault did to the clients, in the order of the injections."""
    faults = [event for event in first_steps(evidence) if event.action is FaultAction.INJECT]
    faults.sort(key=lambda event: event.at)
    if not faults:
        return ()
    writes = evidence.writes
    load_end = evidence.load_end
    timeline = _Timeline(
        faults,
        {event.id: event.at for event in evidence.faults if event.action is FaultAction.HEAL},
        load_end,
        {stop.fault: stop for stop in stops(evidence)},
    )
    attempts = attempts_by_client(writes, evidence.sessions, load_end)
    threshold = stall_threshold(_waits_before(faults[0].at, attempts.values()))
    for name, mine in attempts.items():
        timeline.add_client(name, disturbances(waits(mine, threshold), threshold), threshold)
    together = sorted(chain.from_iterable(attempts.values()), key=itemgetter(0))
    if not timeline.add_service(waits(together, SHORTEST_STALL), threshold):
        timeline.add_service(waits(together), threshold)
    first_answers = [next((a[0] for a in mine if a[2] is not None), load_end) for mine in attempts.values()]
    calls, ends = sorted(call for _until, call, _op in together), [until for until, _call, _op in together]
    return tuple(timeline.recovery(place, calls, ends, first_answers) for place in range(len(faults)))


def _waits_before(moment: int, attempts: Iterable[list[Attempt]]) -> list[Wait]:
    """The waits of clients that nothing disturbs yet; their first answers, before which they connect, left out."""
    found: list[Wait] = []
    for mine in attempts:
        undisturbed = mine[: bisect_right(mine, moment, key=itemgetter(0))]
        found += [wait for wait in waits(undisturbed) if wait.before is not None and wait.end is not None]
    return found


class _Timeline:
    """Sorts waits under the faults in whose time they began."""

    def __init__(
        self, faults: list[FaultEvent], heals: dict[int, int], load_end: int, stops_by_fault: dict[int, Stop]
    ) -> None:
        self._faults, self._heals, self._load_end = faults, heals, load_end
        self._injections = [fault.at for fault in faults]
        self._stops = stops_by_fault
        self._stop_places = [(p, stops_by_fault[f.id]) for p, f in enumerate(faults) if f.id in stops_by_fault]
        self._during: list[dict[str, Disturbed]] = [{} for _ in faults]
        self._after: list[dict[str, Disturbed]] = [{} for _ in faults]
        self._outages: list[Wait | None] = [None for _ in faults]

    def _place(self, start: int, tolerance: int) -> int:
        """Which fault a wait belongs to, -1 for none. A request on its way when the fault came belongs to it."""
        return bisect_right(self._injections, start + tolerance) - 1

    def add_client(self, process: str, found: list[Wait], tolerance: int) -> None:
        for wait in found:
            place = self._place(wait.start, tolerance)
            if place < 0 or wait.start >= self._load_end or wait.before is None:
                continue
            if (stopped := self._stopped(wait)) is not None:
                place, stop = stopped
                # nobody waits in vain while nothing else is expected
                if wait.end is None or wait.end > stop.healed:
                    self._keep(self._after[place], Disturbed(process, wait, stop.healed))
                continue
            fault = self._faults[place]
            healed = self._heals.get(fault.id)
            after_heal = healed is not None and wait.start + tolerance >= healed
            cause = healed if after_heal and healed is not None else fault.at
            since = cause if wait.start <= cause + ONSET else wait.start
            self._keep((self._after if after_heal else self._during)[place], Disturbed(process, wait, since))

    def _stopped(self, wait: Wait) -> tuple[int, Stop] | None:
        """The last fault that was expected to stop the service while this wait lasted, and its place."""
        found = [(p, s) for p, s in self._stop_places if s.start < wait.until and wait.start < s.healed]
        return max(found, key=lambda entry: entry[1].healed, default=None)

    def _keep(self, here: dict[str, Disturbed], candidate: Disturbed) -> None:
        known = here.get(candidate.process)
        if known is None or candidate.wait.length > known.wait.length:
            here[candidate.process] = candidate

    def add_service(self, found: list[Wait], tolerance: int) -> bool:
        """Take in waits of all clients together, in the order of time; whether there was one for each fault."""
        starts = [wait.start for wait in found]
        for place, injected in enumerate(self._injections):
            end = self._injections[place + 1] - tolerance if place + 1 < len(self._injections) else self._load_end
            near = found[bisect_left(starts, injected - tolerance) : bisect_left(starts, end)]
            here = [wait for wait in near if wait.until > injected]
            if here and here[-1].end is None and here[-1].length < tolerance:
                here.pop()  # the last write of the load was lost, and nobody asked again
            if here:
                # An outage does not begin before its fault, even where a request was already on its way.
                w = max(here, key=lambda wait: wait.until - max(wait.start, injected))
                self._outages[place] = Wait(max(w.start, injected), w.end, w.before, w.after, w.given_up)
        return None not in self._outages

    def recovery(self, place: int, calls: list[int], ends: list[int], first_answers: list[int]) -> FaultRecovery:
        fault = self._faults[place]
        end = self._injections[place + 1] if place + 1 < len(self._faults) else max(self._load_end, fault.at)
        return FaultRecovery(
            fault=fault,
            healed=self._heals.get(fault.id),
            end=end,
            load_end=self._load_end,
            working=sum(1 for first in first_answers if first <= fault.at),
            attempts=bisect_left(calls, max(end, self._heals.get(fault.id, end))) - bisect_left(ends, fault.at),
            outage=self._outages[place],
            during=tuple(self._during[place].values()),
            after=tuple(self._after[place].values()),
            stops=fault.id in self._stops,
        )


def _over_budget(recovery: FaultRecovery, budget: float | None, evidence: Evidence, words: Words) -> list[Problem]:
    if budget is None or recovery.working == 0:
        return []
    limit = round(budget * 1e9)
    late = [d for d in (*recovery.during, *recovery.after) if d.lasted > limit]
    if not late:
        return []
    worst = max(late, key=lambda d: d.lasted)
    lasted = worst.lasted / 1e9
    ended = "was answered again only" if worst.wait.end is not None else "was still not answered"
    cause = "healing" if worst in recovery.after else "injection"
    prediction = sentence(recovery.fault, evidence)
    lead = "As the topology predicts, the budget is exceeded: " if prediction else ""
    summary = (
        f"{lead}{worst.process} {ended} {lasted:.2f} s after the {cause} of {recovery.name}; "
        f"the budget is {budget:g} s. {_outage_words(recovery)}"
    )
    witnesses = [_fault_witness(recovery, words)]
    witnesses += [words.operation(op) for op in (worst.wait.before, worst.wait.after) if op is not None]
    if worst.wait.after is None:
        witnesses.append(
            Witness(
                text=f"no write of {worst.process} was answered from {words.at(worst.wait.start)} on; it gave up at "
                f"{words.at(worst.wait.until)}",
                start=worst.wait.start,
                end=worst.wait.until,
            )
        )
    return [Problem(summary, tuple(witnesses))]


def _fault_witness(recovery: FaultRecovery, words: Words) -> Witness:
    healed = f", healed at {words.at(recovery.healed)}" if recovery.healed is not None else ", not healed"
    return Witness(
        text=f"{recovery.name} was injected at {words.at(recovery.fault.at)}{healed}",
        start=recovery.fault.at,
        end=recovery.healed,
    )


def _outage_words(recovery: FaultRecovery) -> str:
    outage = recovery.outage
    if outage is None:
        return ""
    if outage.end is None:
        return f"No write at all was answered in the last {recovery.write_outage_s:.2f} s of the load."
    kept_on = recovery.healed is not None and outage.end > recovery.healed and outage.start < recovery.healed
    tail = ", until after the fault was healed" if kept_on else ""
    return f"No write at all was answered for {recovery.write_outage_s:.2f} s{tail}."


def _unclear(recovery: FaultRecovery, budget: float | None, words: Words) -> list[str]:
    if recovery.working == 0:
        return [f"No client had been answered before {recovery.name}, so its recovery cannot be seen."]
    if recovery.attempts < MIN_ATTEMPTS:
        return [
            f"Too little load to tell: clients tried to write {count(recovery.attempts, 'time')} after {recovery.name} "
            f"at {words.at(recovery.fault.at)}."
        ]
    limit = round(budget * 1e9) if budget is not None else None
    for open_one in recovery.unrecovered:
        if limit is None or open_one.lasted <= limit:
            return [
                f"The load ended {open_one.lasted / 1e9:.2f} s into a wait of {open_one.process} "
                f"after {recovery.name}: too early to tell."
            ]
    return []


def _kept(found: tuple[FaultRecovery, ...], budget: float | None, words: Words) -> str:
    if not found:
        return "No fault was injected, so there was nothing to recover from."
    worst = max(found, key=lambda r: (r.heal_s if r.stops else r.recovery_s, r.write_outage_s))
    within = f" (budget {budget:g} s)" if budget is not None else ""
    at = f"{worst.name} at {words.at(worst.fault.at)}"
    if worst.stops:
        back = f"clients were served again {worst.heal_s:.2f} s after the healing" if worst.after else "nobody waited"
        served = f"which was expected to stop the service, {back}{within}"
    elif not worst.during:
        served = "no client was disturbed" + within
    else:
        clients = count(len(worst.during), "disturbed client was", "disturbed clients were")
        served = f"{clients} served again {worst.recovery_s:.2f} s after the injection{within}"
    others = "" if len(found) == 1 else " The other fault" if len(found) == 2 else f" The other {len(found) - 1} faults"
    others += " did less." if others else ""
    return f"After {at}, {served}; the longest write outage was {worst.write_outage_s:.2f} s.{others}"


def _figures(found: tuple[FaultRecovery, ...]) -> tuple[Figure, ...]:
    figures: list[Figure] = []
    if found:
        figures.append(Figure("write_outage_s", round(max(r.write_outage_s for r in found), 3), "s"))
        figures.append(Figure("recovery_s", round(max(r.recovery_s for r in found), 3), "s"))
    for recovery in found:
        name = f"fault {recovery.fault.id} ({recovery.name})"
        figures.append(Figure(f"{name} write_outage_s", round(recovery.write_outage_s, 3), "s"))
        figures.append(Figure(f"{name} recovery_s", round(recovery.recovery_s, 3), "s"))
        if recovery.after:
            figures.append(Figure(f"{name} after_heal_s", round(recovery.heal_s, 3), "s"))
    return tuple(figures)


def _claims(found: tuple[FaultRecovery, ...], evidence: Evidence) -> tuple[str, ...]:
    claims: list[str] = []
    for recovery in found:
        control = recovery.fault.fault in NETWORK_FAULTS and sentence(recovery.fault, evidence) is not None
        claims += ("NR-11",) if control else claims_of(recovery.fault)
    return tuple(dict.fromkeys(claims))

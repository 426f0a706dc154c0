"""A fault plan: what shall break, when, and for how long; and how a seed turns it into one schedule.

A `Plan` is what a file says. `expand` draws its random parts and gives the schedule: steps in the order of time,
whose targets may still be roles, because who leads is known only while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from harness.errors import PlanError
from harness.history.scenario import LoadSpec, Service
from harness.nemesis import packets
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.offers import Guest, refusal
from harness.nemesis.targets import check_target, conflict
from harness.topology.duration import MAX_SECONDS, format_duration
from harness.topology.model import Topology
from harness.topology.toml_document import key_path

#: Most steps of a schedule, the drawn ones included.
MAX_STEPS = 1000

#: How long a plan that says neither `duration` nor `recovery_within` goes on after its last fault, seconds.
DEFAULT_AFTERMATH_S = 10.0


@dataclass(frozen=True)
class Step:
    """One fault of a schedule."""

    #: Its place: in the file for a plan's own steps, in the order of time for a schedule's; from 0.
    id: int
    #: Seconds after the load began, to the millisecond.
    at_s: float
    #: A name in `KINDS`.
    fault: str
    #: As `harness.nemesis.targets` describes it; a role is resolved when the step is due.
    target: str
    #: How long it lasts, seconds; None for a fault that does not last.
    for_s: float | None = None
    #: What is expected of the service while it lasts; None where nothing is said.
    expect: Service | None = None

    @property
    def end_s(self) -> float:
        """When it heals; the same as `at_s` where it does not last."""
        return round(self.at_s + (self.for_s or 0.0), 3)


@dataclass(frozen=True)
class RandomFaults:
    """`[[random]]`: faults that the seed draws. They never overlap each other, because each has a slot of its own."""

    #: Its place in the file, from 0.
    id: int
    #: Fault and target, drawn with equal chances.
    choices: tuple[tuple[str, str], ...]
    #: How many; or None, and one in every `every_s` seconds.
    count: int | None
    every_s: float | None
    #: The shortest and the longest that a fault lasts, seconds. Both 0 if none of `choices` lasts.
    shortest_s: float
    longest_s: float
    #: The end of every slot that is left in peace, so that recovery can be seen, seconds.
    rest_s: float = 0.0
    #: The window; `until_s` None is the end of the run.
    from_s: float = 0.0
    until_s: float | None = None
    #: What is expected of the service under each of them that lasts; None where nothing is said.
    expect: Service | None = None


@dataclass(frozen=True)
class Plan:
    """What a plan file says, checked as far as that goes without a topology."""

    name: str
    title: str
    #: In the order of the file.
    steps: tuple[Step, ...]
    random: tuple[RandomFaults, ...]
    #: How long the load runs, seconds.
    duration_s: float
    #: The promise: how soon after each fault clients are served again, seconds; None where nothing is promised.
    recovery_within_s: float | None = None
    #: The topology that it is meant for, where the user names none.
    topology: str = "dual-net"
    load: LoadSpec = field(default_factory=LoadSpec)
    #: The text that it was read from, so that a run folder repeats it.
    source: str = ""


def expand(plan: Plan, *, seed: int, duration_s: float | None = None) -> tuple[Step, ...]:
    """The schedule of one run: all steps, drawn ones included, in the order of time and numbered in it.

    The same plan, seed and duration always give the same schedule, on every version of Python.

    Args:
        plan: what to draw from.
        seed: any integer.
        duration_s: how long the load runs, where it is not as the plan says.

    Raises:
        PlanError: a step does not fit into that duration.
    """
    duration_s = plan.duration_s if duration_s is None else duration_s
    check_times(plan, duration_s, plan.name)
    steps = list(plan.steps)
    for group in plan.random:
        # A stream of its own for each group: another group in the file changes nothing of what this one draws.
        steps.extend(_draw(group, duration_s, Random(f"{seed}/{group.id}")))
    steps.sort(key=lambda step: step.at_s)
    return tuple(replace(step, id=number) for number, step in enumerate(steps))


def check_times(plan: Plan, duration_s: float, where: str) -> None:
    """Refuse a plan whose faults do not fit into a duration, or get into each other's way.

    Args:
        plan: what to check.
        duration_s: how long the load runs.
        where: what the error calls the plan.

    Raises:
        PlanError: see above; or there are more than `MAX_STEPS` steps.
    """
    if not 0 < duration_s <= MAX_SECONDS:
        raise PlanError(
            f"the run would last {format_duration(duration_s)}",
            where=f"{where}:duration",
            next_step=f"allowed: more than 0s, and at most {format_duration(MAX_SECONDS)}",
        )
    for step in plan.steps:
        _check_fits(step, duration_s, where)
    total = len(plan.steps)
    for group in plan.random:
        total += _slots(group, duration_s, where)[0]
        if total > MAX_STEPS:
            raise PlanError(
                f"the plan has more than {MAX_STEPS} steps",
                where=f"{where}:{key_path(('random', group.id))}",
                next_step="draw fewer, or run a shorter plan with several seeds",
            )
    _refuse_overlaps(plan, duration_s, where)


def check_plan(plan: Plan, topology: Topology, guests: Sequence[Guest] = ()) -> None:
    """Refuse a plan that cannot be carried out on a topology. To be called before anything is started.

    Args:
        plan: what to check.
        topology: what there is.
        guests: the servers, where somebody else started them.

    Raises:
        PlanError: a switch, host, server or NIC that is not there; a role that nobody can hold there; or a kind of
            fault that is not offered of these servers.
    """
    aimed = [(("step", s.id), s.fault, s.target) for s in plan.steps]
    aimed += [(("random", g.id), fault, target) for g in plan.random for fault, target in g.choices]
    for key, fault, target in aimed:
        try:
            check_target(KINDS[fault].aim, target, topology)
        except ValueError as problem:
            raise PlanError(
                f"fault {fault} cannot be aimed at {target} in topology {topology.name}: {problem}",
                where=f"{plan.name}:{key_path(key)}",
            ) from None
        if reason := refusal(fault, target, guests):
            raise PlanError(f"fault {fault} is not offered of {reason}", where=f"{plan.name}:{key_path(key)}")
    _refuse_clashes(plan, topology)


def _refuse_clashes(plan: Plan, topology: Topology) -> None:
    """Two faults of packets that a NIC cannot have at once, as far as that is certain before the run."""
    steps = [step for step in plan.steps if KINDS[step.fault].aim is Aim.PACKETS]
    for place, step in enumerate(steps):
        for other in steps[:place]:
            meet = step.at_s < other.end_s and other.at_s < step.end_s
            if meet and (reason := packets.clash(other.target, step.target, topology)):
                raise PlanError(
                    f"{step.target} cannot hold while {key_path(('step', other.id))} does: {reason}",
                    where=f"{plan.name}:{key_path(('step', step.id))}",
                    next_step="let one end before the other begins, or write both as one fault",
                )


def _check_fits(step: Step, duration_s: float, where: str) -> None:
    if step.at_s < duration_s and step.end_s <= duration_s:
        return
    key, moment, happens = ("at", step.at_s, "begins") if step.at_s >= duration_s else ("for", step.end_s, "ends")
    raise PlanError(
        f"the fault {happens} at {format_duration(moment)}, and the run is over at {format_duration(duration_s)}",
        where=f"{where}:{key_path(('step', step.id, key))}",
        next_step="a fault must end within the run, so that its recovery is seen; choose a longer duration",
    )


def _slots(group: RandomFaults, duration_s: float, where: str) -> tuple[int, int]:
    """How many faults a group draws, and the length of the slot that each has to itself, in milliseconds."""
    start, end = _window(group, duration_s)
    key = ("random", group.id)
    if end > duration_s or start >= end:
        raise PlanError(
            f"the window from {format_duration(start)} until {format_duration(end)} is not within the run, "
            f"which is over at {format_duration(duration_s)}",
            where=f"{where}:{key_path(key)}",
            next_step="leave `until` out for a window that goes on to the end of the run",
        )
    window_ms = _ms(end) - _ms(start)
    if group.every_s is None:
        number = group.count or 1
        slot_ms = window_ms // number
    else:
        slot_ms = _ms(group.every_s)
        number = window_ms // slot_ms
    needed_ms = max(1, _ms(group.longest_s) + _ms(group.rest_s))
    if number < 1 or slot_ms < needed_ms:
        raise PlanError(
            f"each fault has {format_duration(min(slot_ms, window_ms) / 1000)} of the window to itself, and needs "
            f"{format_duration(needed_ms / 1000)}",
            where=f"{where}:{key_path(key)}",
            next_step="draw fewer faults or shorter ones, or choose a longer duration",
        )
    return number, slot_ms


def _window(group: RandomFaults, duration_s: float) -> tuple[float, float]:
    return group.from_s, duration_s if group.until_s is None else group.until_s


def _draw(group: RandomFaults, duration_s: float, rng: Random) -> Iterator[Step]:
    number, slot_ms = _slots(group, duration_s, "")
    shortest_ms, longest_ms = _ms(group.shortest_s), _ms(group.longest_s)
    for slot in range(number):
        # Always three draws, also where one is not needed, so that each slot's fate is its own.
        which, length, place = rng.random(), rng.random(), rng.random()
        fault, target = group.choices[int(which * len(group.choices))]
        for_ms = shortest_ms + int(length * (longest_ms - shortest_ms + 1)) if KINDS[fault].lasts else 0
        at_ms = _ms(group.from_s) + slot * slot_ms + int(place * (slot_ms - for_ms - _ms(group.rest_s)))
        lasts = KINDS[fault].lasts
        for_s, expect = (for_ms / 1000, group.expect) if lasts else (None, None)
        yield Step(0, at_ms / 1000, fault, target, for_s, expect)


@dataclass(frozen=True)
class _Claim:
    """A stretch of time in which a fault may hold a target."""

    key: tuple[str, int]
    fault: str
    target: str
    start_s: float
    end_s: float


def _refuse_overlaps(plan: Plan, duration_s: float, where: str) -> None:
    """Two faults of one kind on one target at the same time would heal each other.

    Only targets that are certain are compared. Whoever carries a plan out sees to roles, see `busy` of
    `resolve_target`. A drawn fault may come at any moment of its window, so the whole window counts.
    """
    claims = [_Claim(("step", s.id), s.fault, s.target, s.at_s, max(s.end_s, s.at_s + 0.001)) for s in plan.steps]
    for group in plan.random:
        claims += [_Claim(("random", group.id), f, t, *_window(group, duration_s)) for f, t in group.choices]
    claims.sort(key=lambda claim: claim.start_s)
    open_claims: list[_Claim] = []
    for claim in claims:
        open_claims = [other for other in open_claims if other.end_s > claim.start_s]
        for other in open_claims:
            if other.fault != claim.fault or (other.key == claim.key and claim.key[0] == "random"):
                continue
            if conflict(KINDS[claim.fault].aim, claim.target, other.target):
                raise PlanError(
                    f"{claim.fault} of {claim.target} may begin at {format_duration(claim.start_s)}, before "
                    f"{key_path(other.key)} has ended the same at {format_duration(other.end_s)}",
                    where=f"{where}:{key_path(claim.key)}",
                    next_step="let one fault of a kind end before the next one on the same target begins",
                )
        open_claims.append(claim)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""The life of each fault, put together from its events and its probes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from harness.history.records import FaultAction, FaultEvent, ProbeEvent
from harness.report.words import NANOSECONDS, duration, listing

#: The stages at which a probe is taken, in their order.
STAGES = ("before", "during", "after")


@dataclass(frozen=True)
class FaultStory:
    """One fault from injection to healing.

    Attributes:
        began: when injection was begun, monotonic nanoseconds.
        injected: when it was in place; None if it never was.
        healing: when healing was begun; None if it never was.
        healed: when it was gone; None if it never was.
        failure: what the harness failed at, else empty.
        probes: the last probe of each stage.
    """

    id: int
    kind: str
    target: str
    asked: str
    began: int
    injected: int | None = None
    healing: int | None = None
    healed: int | None = None
    failure: str = ""
    probes: Mapping[str, ProbeEvent] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`switch-down net1`."""
        return f"{self.kind} {self.target}".strip()

    @property
    def role(self) -> str:
        """The target as asked for, where that says more than the target itself."""
        return self.asked if self.asked and self.asked != self.target else ""

    @property
    def lasted(self) -> float | None:
        """From in place to the start of healing, seconds; None where one of the two is missing."""
        return _seconds(self.injected, self.healing)

    @property
    def inject_took(self) -> float | None:
        """From the decision to the fault being in place, seconds."""
        return _seconds(self.began, self.injected)

    @property
    def heal_took(self) -> float | None:
        """From the decision to heal to the fault being gone, seconds."""
        return _seconds(self.healing, self.healed)

    @property
    def proved(self) -> bool | None:
        """True if it was seen to bite and then to be gone, False if seen otherwise, None if the probes cannot tell."""
        during, after = (self.probes[s].bites if s in self.probes else None for s in ("during", "after"))
        if during is False or after is True:
            return False
        return True if during is True and after is False else None


def _seconds(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else (end - start) / NANOSECONDS


def fault_stories(events: Sequence[FaultEvent], probes: Sequence[ProbeEvent]) -> tuple[FaultStory, ...]:
    """Every fault that was begun or tried, in the order of the schedule."""
    by_id: dict[int, list[FaultEvent]] = {}
    for event in events:
        by_id.setdefault(event.id, []).append(event)
    stages: dict[int, dict[str, ProbeEvent]] = {}
    for probe in probes:
        stages.setdefault(probe.id, {})[probe.stage] = probe
    return tuple(_story(by_id[key], stages.get(key, {})) for key in sorted(by_id))


def _story(events: Sequence[FaultEvent], probes: Mapping[str, ProbeEvent]) -> FaultStory:
    first = min(events, key=lambda e: e.at)
    # The event that names the resolved target is the one that tells what was really hit.
    named = next((e for e in events if e.action is FaultAction.INJECTED), first)
    failures = [e.detail or "the harness failed at this fault" for e in events if e.action is FaultAction.FAILED]
    return FaultStory(
        id=first.id,
        kind=named.fault,
        target=named.target,
        asked=named.asked or first.asked,
        began=first.at,
        injected=_when(events, FaultAction.INJECTED),
        healing=_when(events, FaultAction.HEAL),
        healed=_when(events, FaultAction.HEALED),
        failure="; ".join(failures),
        probes=probes,
    )


def _when(events: Sequence[FaultEvent], action: FaultAction) -> int | None:
    return min((e.at for e in events if e.action is action), default=None)


#: What each kind of fault does, in the singular, for a sentence: `{part}` is what it is aimed at, `{manner}` what is
#: behind the colon of its target, where there is one.
_VERBS = {
    "switch-down": "switch {part} died",
    "switch-flap": "switch {part} came and went ({manner})",
    "switch-split": "switch {part} fell into islands ({manner})",
    "link-down": "the link {part} was cut",
    "link-flap": "the link {part} came and went ({manner})",
    "nic-down": "the NIC {part} was set down",
    "partition": "a partition held ({part})",
    "packets": "packets suffered ({part})",
    "stream": "TCP streams suffered ({part})",
    "kill": "server {part} was killed",
    "pause": "server {part} was paused",
    "restart": "server {part} was restarted",
    "crash-loop": "server {part} was killed after each start",
    "restart-storm": "server {part} was killed at random moments",
    "rolling-restart": "server {part} was restarted in turn",
    "slow-start": "server {part} was killed and slow to start",
    "limit": "server {part} was limited ({manner})",
    "clock": "server {part} was given a wrong clock ({manner})",
    "disk": "server {part} was given a bad disk ({manner})",
    "damage": "server {part} was killed and its data damaged ({manner})",
}
#: Kinds that are over at once.
_AT_ONCE = ("restart", "rolling-restart")
#: A name in a target, or a NIC's, which has a colon.
_NAME = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?")


def what_happened(fault: FaultStory) -> str:
    """`switch net1 died`, `server zk3 (leader) was killed`; a kind unknown here is told by its own name."""
    pattern = _VERBS.get(fault.kind, f"{fault.kind} hit {{part}}")
    part, manner = _parts(fault, pattern)
    names = targets(part)
    if pattern.startswith("server ") and len(names) > 1:
        pattern = pattern.replace("server ", "servers ").replace(" was ", " were ").replace(" its ", " their ")
    # a target that is a sentence of its own stays one
    said = listing(names) if all(map(_NAME.fullmatch, names)) and "({part})" not in pattern else part
    asked = fault.role.removesuffix(f":{manner}") if manner else fault.role
    role = f" ({asked})" if asked not in ("", part) and "({part})" not in pattern else ""
    return pattern.replace("{part}", said + role).replace("{manner}", manner).strip()


def _parts(fault: FaultStory, pattern: str) -> tuple[str, str]:
    if "{manner}" not in pattern:
        return fault.target, ""
    cut = fault.target.rpartition if fault.kind == "link-flap" else fault.target.partition
    part, _colon, manner = cut(":")
    return part, manner


def targets(text: str) -> tuple[str, ...]:
    """The single targets of a fault, which are written with commas between them."""
    return tuple(text.replace(",", " ").split())


def parts_hit(fault: FaultStory, known: Collection[str]) -> tuple[str, ...]:
    """The switches, NICs and hosts, of those that there are, that a fault's target names."""
    # islands are those of a switch, which is all that breaks
    said = fault.target.partition(":")[0] if fault.kind == "switch-split" else fault.target
    found: list[str] = []
    for name in _NAME.findall(said):
        found += [name] if name in known else [part for part in name.split(":") if part in known]
    return tuple(dict.fromkeys(found))


def how_long(fault: FaultStory) -> str:
    """`for 8.0 s`, `and was never healed`, `could not be injected`; empty for a fault that heals by itself."""
    if fault.injected is None:
        return "but could not be injected"
    if fault.kind in _AT_ONCE:
        return ""
    if fault.healed is None or fault.lasted is None:
        return "and was never healed"
    return f"for {duration(fault.lasted)}"

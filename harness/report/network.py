"""The topology as a drawing: switches as lines, hosts as boxes between them, what faults hit is marked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory, parts_hit
from harness.report.words import instant
from harness.topology.model import Role, Server, Topology

BOX_WIDTH = 132
BOX_GAP = 20
MARGIN = 4
#: Room above the topmost switch for its label.
LABEL = 18
#: Room for a switch' name before its line begins.
NAME_WIDTH = 64
SWITCH_GAP = 34
ROW_HEIGHT = 17


@dataclass(frozen=True)
class SwitchLine:
    """A switch, drawn as a line across."""

    name: str
    subnet: str
    y: int
    #: Where its label stands: on the side away from the hosts, where no cable crosses it.
    label_y: int
    #: What was done to it, empty if nothing was.
    fault: str


@dataclass(frozen=True)
class AddressRow:
    """One NIC inside of its host's box."""

    switch: str
    address: str
    y: int
    fault: str


@dataclass(frozen=True)
class Cable:
    """From a host's box to a switch' line."""

    name: str
    x: int
    y1: int
    y2: int
    fault: str


@dataclass(frozen=True)
class HostBox:
    """A host."""

    name: str
    role: str
    is_client: bool
    x: int
    rows: tuple[AddressRow, ...]
    fault: str


@dataclass(frozen=True)
class Drawing:
    """The whole drawing, in pixels."""

    width: int
    height: int
    box_y: int
    box_width: int
    box_height: int
    line_x: int
    switches: tuple[SwitchLine, ...]
    hosts: tuple[HostBox, ...]
    cables: tuple[Cable, ...]
    description: str


def draw(topology: Topology, faults: Sequence[FaultStory], axis: TimeAxis) -> Drawing:
    """Put half of the switches above the hosts and half below."""
    known = {*topology.switch_names, *(h.host for h in topology.hosts), *(n.name for n in topology.nics())}
    marks = fault_marks(faults, axis, known)
    names = topology.switch_names
    above = names[: (len(names) + 1) // 2]
    below = names[len(above) :]
    most_nics = max((len(h.nics) for h in topology.hosts), default=1)
    box_height = 32 + ROW_HEIGHT * most_nics
    box_y = LABEL + SWITCH_GAP * len(above)
    levels = {name: LABEL + SWITCH_GAP * i for i, name in enumerate(above)}
    levels |= {name: box_y + box_height + SWITCH_GAP * (i + 1) for i, name in enumerate(below)}
    boxes, cables = [], []
    for place, host in enumerate(topology.hosts):
        x = MARGIN + NAME_WIDTH + place * (BOX_WIDTH + BOX_GAP)
        is_client = not isinstance(host, Server)
        rows = tuple(
            AddressRow(n.switch, str(n.address), box_y + 38 + i * ROW_HEIGHT, marks.get(n.name, ""))
            for i, n in enumerate(host.nics)
        )
        role = "client" if not isinstance(host, Server) else host.role.value.replace(Role.PARTICIPANT, "")
        boxes.append(HostBox(host.host, role, is_client, x, rows, marks.get(host.host, "")))
        for side, edge in ((above, box_y), (below, box_y + box_height)):
            plugged = [n for n in host.nics if n.switch in side]
            for i, nic in enumerate(plugged):
                cable_x = x + BOX_WIDTH * (i + 1) // (len(plugged) + 1)
                cables.append(Cable(nic.name, cable_x, edge, levels[nic.switch], marks.get(nic.name, "")))
    lowest = levels[below[-1]] if below else box_y + box_height
    switches = tuple(
        SwitchLine(s.name, str(s.subnet), y, y - 7 if s.name in above else y + 17, marks.get(s.name, ""))
        for s, y in ((s, levels[s.name]) for s in topology.switches)
    )
    return Drawing(
        width=max(560, 2 * MARGIN + NAME_WIDTH + len(boxes) * (BOX_WIDTH + BOX_GAP) - BOX_GAP),
        height=lowest + 24,
        box_y=box_y,
        box_width=BOX_WIDTH,
        box_height=box_height,
        line_x=MARGIN + NAME_WIDTH - 12,
        switches=switches,
        hosts=tuple(boxes),
        cables=tuple(cables),
        description=_described(topology, marks),
    )


def fault_marks(faults: Sequence[FaultStory], axis: TimeAxis, known: Collection[str]) -> Mapping[str, str]:
    """For each switch, NIC or host that a fault names, what it was and when: `switch-down 3.0 s to 11.0 s`.

    Args:
        faults: in the order of the schedule.
        axis: of their times.
        known: the names of all switches, NICs and hosts.
    """
    hits: dict[str, list[str]] = {}
    for fault in faults:
        if fault.injected is None:
            continue
        end = f"to {instant(axis.seconds(fault.healed))}" if fault.healed is not None else "and never healed"
        for target in parts_hit(fault, known):
            hits.setdefault(target, []).append(f"{fault.kind} {instant(axis.seconds(fault.injected))} {end}")
    return {t: texts[0] + (f" and {len(texts) - 1} more" if len(texts) > 1 else "") for t, texts in hits.items()}


def _described(topology: Topology, marks: Mapping[str, str]) -> str:
    hosts = "; ".join(f"{h.host} on {', '.join(n.switch for n in h.nics)}" for h in topology.hosts)
    broken = "; ".join(f"{name}: {text}" for name, text in marks.items())
    return f"{hosts}. Broken: {broken}." if broken else f"{hosts}."

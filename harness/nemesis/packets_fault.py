"""A fault of packets: queues at the NICs, and the proof that what they do is what was asked for.

Trains of datagrams go over the paths that it shapes, and some over paths that it does not. Paths of which the same is
expected are judged together, against two expectations: what all faults make of them with this one, and without it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from harness.history.records import Measurement
from harness.nemesis import packets
from harness.nemesis.effects import needs
from harness.nemesis.kernel_parts import kernel_lacking
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.plan import Step
from harness.nemesis.trials import (
    Burst,
    Counted,
    Expected,
    Finding,
    compare,
    compare_rate,
    expect,
    on_wire,
)
from harness.nemesis.world import ANSWER_MS, Fault, Probe, World
from harness.testbed.reach import HOST_DOWN
from harness.testbed.shaping import bucket
from harness.testbed.wire import Arrivals, Path, Shape, Train
from harness.topology.model import Topology

#: How many paths are measured through one NIC, and how many that the fault does not mean.
_PEERS, _OTHERS = 4, 20
#: Datagrams: of all paths together at least and at most, of each path at least, and of each for comparison.
_LEAST, _MOST, _LEAST_EACH, _FOR_COMPARISON = 400, 12_000, 20, 10
#: A share is seen to be there, but for one time in a million, among so many divided by it.
_TO_SEE = 14
#: To measure a share as well as one can in a moment: so many divided by it, and so many at most.
_TO_MEASURE, _MEASURED = 100, 4000
#: Bytes of a datagram: where all that matters is that it arrives, and where bytes are damaged.
_SMALL, _LARGE = 64, 1000
#: Bytes of a datagram of a burst, by the least rate, bits per second: fast ones are sent in several packets each.
_SIZES = ((10_000_000, 7392), (2_000_000, 1400), (0, 300))
#: How long a burst takes, seconds; and its fewest datagrams.
_BURST_SECONDS, _BURST_LEAST = 0.25, 10
#: Bits per second that bursts may have together; how many times the rate a burst must try; and how often it does.
_TOGETHER, _ENOUGH, _ATTEMPTS = 20_000_000, 1.5, 4
#: Microseconds between two datagrams of all paths together, and the share of a rate that a train takes.
_GAP_US, _RATE_SHARE = 60.0, 0.25
#: Longest train, and the time that a queue may hold a datagram back, milliseconds.
_LONGEST_MS, _QUEUE_MS = 1000.0, 600.0
#: After so long a busy machine has sent what it could, milliseconds.
_LIMIT_MS = 2000.0
#: How late a datagram may be on a path that the fault does not mean, milliseconds.
_LATE_ELSEWHERE_MS = 15.0

#: Source, destination, switch.
_Way = tuple[str, str, str]


@dataclass(frozen=True)
class _Group:
    """Paths of which the same is expected, with this fault and without it."""

    ways: tuple[_Way, ...]
    given: Expected
    without: Expected

    @property
    def only_rate(self) -> bool:
        """Whether nothing but a rate is the fault's."""
        return self.given.rate != self.without.rate and self.given == replace(self.without, rate=self.given.rate)


class PacketsFault(Fault):
    """Packets that are late, lost, doubled, damaged, or few."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._packets = packets.parse(target, world.topology)
        self._world = world
        packets.combine((*world.shapes.held(), *self._packets.shapes))  # refuses what cannot hold at once
        refuse_lacking(self._packets.shapes, world.testbed.lacking(), self.name)
        self._held = False

    def inject(self) -> None:
        """Make all queues."""
        self._held = True
        self._world.shapes.hold(self.id, self._packets.shapes)

    def heal(self) -> None:
        """Undo what no other fault holds."""
        self._held = False
        self._world.shapes.release(self.id)

    def probe(self) -> Probe:
        """Send trains over its paths, and a burst through each NIC that has a rate."""
        mine = self._ways()
        if not mine:
            return Probe(None, "other faults hold every path of it")
        groups = self._grouped(mine)
        others = self._others(set(self._all_ways()))
        verdicts, texts, measurements = self._by_trains(groups, others)
        for verdict, text, measurement in self._by_bursts():
            verdicts.append(verdict)
            texts.append(text)
            measurements.append(measurement)
        bites = verdicts.pop() if len(set(verdicts)) == 1 else None
        return Probe(bites, "; ".join(dict.fromkeys(texts)), tuple(measurements))

    # --- which paths -----------------------------------------------------------------------------------------

    def _all_ways(self) -> list[_Way]:
        ways = [way for shape in self._packets.shapes for way in self._world.shapes.ways_of(shape)]
        return list(dict.fromkeys(ways))

    def _ways(self) -> list[_Way]:
        """Some through each NIC, of those that nothing else keeps from answering."""
        chosen: dict[_Way, None] = {}
        for shape in self._packets.shapes:
            free = [way for way in self._world.shapes.ways_of(shape) if self._is_free(way)]
            chosen.update(dict.fromkeys(free[:_PEERS]))
        return list(chosen)

    def _is_free(self, way: _Way) -> bool:
        return not self._world.holds_path(Path(*way, None), but=self.id)

    def _others(self, mine: set[_Way]) -> list[_Way]:
        nics = self._world.topology.nics()
        ways = [(a.host, b.host, a.switch) for a in nics for b in nics if a.switch == b.switch and a.host != b.host]
        free = [way for way in ways if way not in mine and self._is_free(way)]
        return free[:: max(1, math.ceil(len(free) / _OTHERS))]

    def _grouped(self, ways: Sequence[_Way]) -> list[_Group]:
        found: dict[tuple[Expected, Expected], list[_Way]] = {}
        for way in ways:
            without = self._world.shapes.on_path(*way, but=self.id)
            own = [s.effects for s in self._packets.shapes if way in self._world.shapes.ways_of(s)]
            found.setdefault((expect([*without, *own]), expect(without)), []).append(way)
        return [_Group(tuple(ways), *key) for key, ways in found.items()]

    # --- trains ----------------------------------------------------------------------------------------------

    def _by_trains(
        self, groups: Sequence[_Group], others: Sequence[_Way]
    ) -> tuple[list[bool | None], list[str], list[Measurement]]:
        elsewhere = {way: expect(self._world.shapes.on_path(*way, but=self.id)) for way in others}
        total = sum(len(group.ways) for group in groups) + len(others)
        trains = [train for group in groups for train in _trains(group, total)]
        trains += [Train(*way, _FOR_COMPARISON, max(2000.0, total * _GAP_US), _SMALL) for way in others]
        expected = [e for g in groups for e in (g.given, g.without)] + list(elsewhere.values())
        linger = max((e.jitter_ms for e in expected if e.duplicate), default=0.0) * 4 + 10
        arrivals = self._world.testbed.send_trains(
            trains, timeout_ms=max(map(_patience, expected)), linger_ms=linger, limit_ms=_LIMIT_MS
        )
        became = {(t.source, t.destination, t.switch): a for t, a in zip(trains, arrivals, strict=True)}
        verdicts: list[bool | None] = []
        texts: list[str] = []
        measurements: list[Measurement] = []
        for group in groups:
            there = [way for way in group.ways if became[way].error != HOST_DOWN]
            if not there:
                continue
            counted = Counted.of([became[way] for way in there], _size(group.given))
            verdict, findings = self._judged(group, counted)
            if verdict is None or not group.only_rate:  # a rate is for bursts to show
                verdicts.append(verdict)
            texts.append(f"{len(there)} paths: " + ", ".join(f.text for f in findings if f.text))
            measurements += [_path_measurement(way, became[way], healthy=verdict is False) for way in there]
        sound = [_is_as_expected(elsewhere[way], became[way]) for way in others if became[way].error != HOST_DOWN]
        if sound:
            texts.append(f"elsewhere {sum(sound)} of {len(sound)} as before")
            if not all(sound) and True in verdicts:
                verdicts.append(None)  # what it does not mean is shaped, too: not the fault that was asked for
        return verdicts, texts, measurements

    def _judged(self, group: _Group, counted: Counted) -> tuple[bool | None, tuple[Finding, ...]]:
        given, without = compare(group.given, counted), compare(group.without, counted)
        verdict = self._decided(given, without, same=group.given == group.without)
        return verdict, without if verdict is False else given

    def _decided(self, given: Sequence[Finding], without: Sequence[Finding], *, same: bool) -> bool | None:
        fits = (all(f.fits for f in given), all(f.fits for f in without))
        if fits == (True, True):
            # the bounds overlap, as they do for a millisecond: the nearer one is told; hidden by others, what is held
            nearer = sum(f.distance for f in given) <= sum(f.distance for f in without)
            return self._held if same else nearer
        return {(True, False): True, (False, True): False}.get(fits)

    # --- bursts ----------------------------------------------------------------------------------------------

    def _by_bursts(self) -> list[tuple[bool | None, str, Measurement]]:
        chosen: dict[_Way, Expected] = {}
        asked = self._packets.effects.rate
        if not asked:
            return []
        for shape in self._packets.shapes:
            for way in self._world.shapes.ways_of(shape):
                if self._is_free(way):
                    chosen[way] = expect(self._world.shapes.on_path(*way, but=self.id))
                    break
        size = next(size for rate, size in _SIZES if asked >= rate)
        frame = on_wire(size)
        skip = math.ceil(bucket(asked) / frame) + 2
        seconds = max(_BURST_SECONDS, _BURST_LEAST * frame * 8 / asked)
        count = skip + math.ceil(seconds * asked / 8 / frame)
        found = []
        for ways in _batches(chosen, most=max(1, _TOGETHER // asked)):
            patience = max(_patience(chosen[way]) for way in ways) + 3000 * count * frame * 8 / asked
            bursts = self._bursts(ways, Train("", "", "", count, 0.0, size), skip, patience, chosen)
            for way, burst in bursts.items():
                without = chosen[way]
                given = min(rate for rate in (asked, without.rate) if rate)
                as_asked, as_without = (compare_rate(rate, burst, asked) for rate in (given, without.rate))
                verdict = self._decided([as_asked], [as_without], same=given == without.rate)
                text = (as_without if verdict is False else as_asked).text
                name = f"burst of {count} {_named(way)}"
                found.append((verdict, f"burst {_named(way)}: {text}", Measurement(name, text, verdict is False)))
        return found

    def _bursts(
        self, ways: Sequence[_Way], train: Train, skip: int, patience: float, without: Mapping[_Way, Expected]
    ) -> dict[_Way, Burst]:
        """A burst over each of these paths, all at once; once more where too little was sent for the rate to be felt.

        That may be on a machine that is busy with other things.
        """
        asked, bursts = self._packets.effects.rate, dict[_Way, Burst]()
        own_delay = self._packets.effects.delay_ms if self._held else 0.0
        for _attempt in range(_ATTEMPTS):
            left = [way for way in ways if way not in bursts or bursts[way].offered < _ENOUGH * asked]
            if not left:
                break
            trains = [Train(*way, train.count, train.gap_us, train.size) for way in left]
            arrivals = self._world.testbed.send_trains(trains, timeout_ms=patience, limit_ms=_LIMIT_MS)
            for way, became in zip(left, arrivals, strict=True):
                if became.error != HOST_DOWN:
                    delay = without[way].delay_ms + own_delay
                    bursts[way] = Burst.of(became, train.size, skip=skip, delay_ms=delay)
        return bursts


def refuse_lacking(shapes: Sequence[Shape], lacking: Mapping[str, str], where: str) -> None:
    """Refuse what this kernel cannot do.

    Raises:
        KernelLacking: with the kernel's words and the next step.
    """
    for shape in shapes:
        for part in needs(shape.effects, lacking, to_one=shape.peer is not None):
            if part in lacking:
                raise kernel_lacking(part, lacking, where)


def refuse_steps(steps: Iterable[Step], topology: Topology, lacking: Callable[[], Mapping[str, str]]) -> None:
    """Refuse a schedule of which this kernel cannot do a step. To be called before anything is broken.

    Raises:
        KernelLacking: with the kernel's words and the next step.
    """
    for step in steps:
        if KINDS[step.fault].aim is Aim.PACKETS:
            # whoever leads, the effects are the same
            target = packets.resolve(step.target, topology, leader=topology.participants[0].id, rng=Random(0))
            refuse_lacking(packets.parse(target, topology).shapes, lacking(), f"{step.fault} {step.target}")


def _trains(group: _Group, total: int) -> list[Train]:
    """Enough for the smallest share to be seen, and no more than a rate lets through."""
    both = (group.given, group.without)
    clumping = min(max(expected.clumping for expected in both), 30.0)
    wanted = _LEAST * clumping
    for expected in both:
        wanted = max(wanted, _enough(expected.loss) * clumping)
        wanted = max(wanted, *map(_enough, (expected.duplicate, expected.reorder, expected.corrupt)))
    wanted = min(_MOST, wanted)
    each = max(_LEAST_EACH, math.ceil(wanted / len(group.ways)))
    size = _size(group.given)
    gap = max(200.0, total * _GAP_US)
    if group.given.reorder:
        gap = min(gap, group.given.delay_ms * 1000 / 8)
    if rate := min((e.rate for e in (group.given, group.without) if e.rate), default=0):
        sharing = min(len(group.ways), 2 * _PEERS)
        gap = max(gap, sharing * on_wire(size) * 8e6 / (rate * _RATE_SHARE))
    each = max(5, min(each, round(_LONGEST_MS * 1000 / gap)))
    return [Train(*way, each, gap, size) for way in group.ways]


def _enough(share: float) -> float:
    """How many datagrams it takes to see a share, and to measure it well."""
    return max(_TO_SEE / share, min(_MEASURED, _TO_MEASURE / share)) if share else 0.0


def _batches(ways: Iterable[_Way], *, most: int) -> list[list[_Way]]:
    """Paths that can be measured at once, because no two of them have a NIC and direction in common."""
    batches: list[list[_Way]] = []
    for source, destination, switch in ways:
        for batch in batches:
            taken = any(switch == other[2] and (source == other[0] or destination == other[1]) for other in batch)
            if len(batch) < most and not taken:
                batch.append((source, destination, switch))
                break
        else:
            batches.append([(source, destination, switch)])
    return batches


def _size(expected: Expected) -> int:
    return _LARGE if expected.corrupt else _SMALL


def _patience(expected: Expected) -> float:
    """How long a datagram may be on its way, milliseconds."""
    queue = _QUEUE_MS if expected.rate else 0.0
    return ANSWER_MS + expected.delay_ms * 1.05 + 4.2 * expected.jitter_ms + queue


def _is_as_expected(expected: Expected, train: Arrivals) -> bool:
    """A short look at a path that the fault does not mean: somebody arrives, and in time."""
    delays = [m / 1000 for m in train.micros if m is not None]
    if not delays:
        return expected.loss > 0.5
    late = 4.2 * expected.jitter_ms + _LATE_ELSEWHERE_MS + (_QUEUE_MS if expected.rate else 0.0)
    return statistics.median(delays) <= expected.delay_ms * 1.05 + late


def _path_measurement(way: _Way, train: Arrivals, *, healthy: bool) -> Measurement:
    delays = [m / 1000 for m in train.micros if m is not None]
    found = f"{len(delays)} of {len(train.sent)} arrive"
    if delays:
        found += f", median {statistics.median(delays):.2f} ms, from {min(delays):.2f} to {max(delays):.2f}"
    if train.duplicates or train.damaged:
        found += f"; {train.duplicates} doubled, {train.damaged} damaged"
    return Measurement(_named(way), train.error or found, healthy=healthy)


def _named(way: _Way) -> str:
    source, destination, switch = way
    return f"{source} > {destination} over {switch}"

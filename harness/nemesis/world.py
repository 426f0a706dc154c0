"""What every fault is: something with a target that can be injected, healed and probed; and what it is made of."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.history.records import Measurement
from harness.nemesis.holds import LimitHolds, LinkHolds, RuleHolds, ServerHolds, ShapeHolds
from harness.nemesis.port_holds import NicHolds, SplitHolds
from harness.nemesis.stream_holds import StreamHolds
from harness.nemesis.trials import expect
from harness.testbed.handles import Link, Testbed
from harness.testbed.wire import Path
from harness.topology.model import Topology
from harness.toxiproxy.proxies import Proxies
from harness.zookeeper.ensemble import Ensemble

#: How long a datagram or an admin word may take before it counts as unanswered. On these networks both take < 1 ms.
ANSWER_MS = 150
#: How long packets may wait in a queue that others fill, milliseconds.
_CROWDED_MS = 600
#: A path that loses more on purpose says nothing of other faults; of so many datagrams one arrives over all others,
#: but for one time in a million.
_MOST_LOSS, _AGAINST_LOSS = 0.5, 20


@dataclass(frozen=True)
class Probe:
    """One look at a fault's target. `bites` is None where the probe cannot tell."""

    bites: bool | None
    summary: str
    measurements: tuple[Measurement, ...] = ()


class Fault(ABC):
    """One fault of a run; `id` is its place in the schedule."""

    #: How much longer than others it takes until its probe sees it bite, and until it is seen to be gone, seconds.
    slow_to_bite, slow_to_heal = 0.0, 0.0
    #: How much longer its target may take to look healthy before it.
    slow_to_settle = 0.0

    def __init__(self, fault_id: int, kind: str, target: str) -> None:
        self.id, self.kind, self.target = fault_id, kind, target

    @property
    def name(self) -> str:
        """`switch-down net1`."""
        return f"{self.kind} {self.target}"

    @abstractmethod
    def inject(self) -> None:
        """Break it."""

    @abstractmethod
    def heal(self) -> None:
        """Mend it. Idempotent."""

    @abstractmethod
    def probe(self) -> Probe:
        """Measure whether it bites now."""

    def cut_short(self) -> None:  # noqa: B027  # not abstract: most faults have nothing to do
        """End at once what heals by itself and takes its time, because all of the run ends. Most faults do not."""


@dataclass(frozen=True)
class World:
    """What faults are made of: the testbed, the ensemble, and what is held."""

    testbed: Testbed
    ensemble: Ensemble
    topology: Topology
    links: LinkHolds
    servers: ServerHolds
    rules: RuleHolds
    shapes: ShapeHolds
    limits: LimitHolds
    streams: StreamHolds
    nics: NicHolds
    splits: SplitHolds
    #: Whoever changes what is held takes it: the nemesis, and faults that have a thread of their own.
    lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def of(cls, ensemble: Ensemble, proxies: Proxies | None = None) -> World:
        """The world of a running ensemble, and of the proxies that its streams pass."""
        testbed, topology = ensemble.testbed, ensemble.topology
        rules = RuleHolds(testbed)
        return cls(
            testbed,
            ensemble,
            topology,
            LinkHolds(testbed, topology),
            ServerHolds(ensemble),
            rules,
            ShapeHolds(testbed, topology, rules),
            LimitHolds(testbed),
            StreamHolds(proxies),
            NicHolds(testbed),
            SplitHolds(testbed),
        )

    def reach(
        self, switches: Sequence[str], *, answer_ms: int = ANSWER_MS, broadcast: bool = False
    ) -> tuple[Path, ...]:
        """Which host reaches which: with patience where packets are late on purpose, and many where they are lost."""
        held = [shape.effects for shape in self.shapes.held()]
        late = 2 * max((e.delay_ms + 4 * e.jitter_ms for e in held), default=0.0)
        crowded = _CROWDED_MS if any(e.rate for e in held) else 0
        lossy = any(e.loss or e.bursts or e.corrupt for e in held)
        return self.testbed.reach(
            switches,
            timeout_ms=round(answer_ms + late + crowded),
            count=_AGAINST_LOSS if lossy else 1,
            broadcast=broadcast,
        )

    def holds_path(self, path: Path, *, but: int) -> bool:
        """Whether another fault than `but` may be why a path does not answer."""
        ends = (Link(path.switch, path.source), Link(path.switch, path.destination))
        if any(self.links.is_cut(end, but=but) or self.nics.is_down(end, but=but) for end in ends):
            return True
        if self.splits.parts(path.switch, path.source, path.destination, but=but):
            return True
        address = next(n.address for n in self.topology.nics() if (n.host, n.switch) == (path.source, path.switch))
        lost = expect(self.shapes.on_path(path.source, path.destination, path.switch, but=but)).loss
        return lost > _MOST_LOSS or self.rules.is_cut(path.destination, str(address), but=but)


def path_measurement(path: Path) -> Measurement:
    """One path of a reachability matrix, as evidence."""
    found = f"{path.micros / 1000:.2f} ms" if path.micros is not None else path.error or f"no answer in {ANSWER_MS} ms"
    what = f"{path.source} > {path.destination} over {path.switch}"
    return Measurement(what, found, healthy=path.micros is not None)

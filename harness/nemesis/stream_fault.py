"""TCP streams through proxies that are slow, cut, reset or stalled, and the conversations that prove it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.history.records import Measurement
from harness.nemesis import streams
from harness.nemesis.stream_samples import Call, Sample, ask_much, converse
from harness.nemesis.stream_trials import Trial, trials_of
from harness.nemesis.streams import Way
from harness.nemesis.toxics import Kind
from harness.nemesis.world import Fault, Probe, World
from harness.testbed.wire import Path
from harness.topology.proxies import Proxy, Service

#: How often one that takes so little is tried, because a moment's hiccup takes as much; a shorter one than that if it
#: is on more than a few paths, all of which must show it. Milliseconds.
_ROUNDS, _SHORT_MS, _FEW = 3, (700.0, 120.0), 3
#: Of a toxic that is on a share of connections, so many are expected to show it. With half of that it is there; with a
#: single one it is not: one time in three hundred it would be.
_EXPECTED, _ENOUGH, _TOO_FEW = 8.0, 0.5, 0.13
#: For how long it is looked again where a look does not tell, because the machine is busy with something else, seconds.
_LOOKS_S = 2.5
#: How long a server may take by itself, seconds; for the first time that it tells all of its figures, it takes 0.2 s.
_PLAIN_S = 0.6
#: Most paths that are tried, so that a look takes a moment; those of each server are among them.
_PATHS = 6


@dataclass(frozen=True)
class _Tried:
    """One trial on one path: through the proxy, and beside it."""

    proxy: Proxy
    trial: Trial
    given: Sample
    beside: Sample

    def shows(self, *, some: bool) -> bool | None:
        """Whether the toxic is seen."""
        return self.trial.shows(self.given, self.beside, some=some)


class StreamFault(Fault):
    """A toxic on the proxies of some streams, or those proxies down."""

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        self._stream = streams.parse(target, world.topology)
        self._world = world

    def inject(self) -> None:
        """Add the toxics of all its proxies in one go."""
        self._world.streams.hold(self.id, self._stream)

    def heal(self) -> None:
        """Take them away, and no other fault's."""
        self._world.streams.release(self.id)

    def probe(self) -> Probe:
        """Talk with the servers through its proxies, and beside them.

        Streams between servers are tried on the port of the election, which every server has open; the port of the
        quorum has the same toxics, and only a leader answers there.
        """
        proxies = self._measurable()
        tried: list[_Tried] = []
        deadline = time.monotonic() + _LOOKS_S
        while True:
            tried += self._try(proxies)  # what was seen before counts, too: a busy machine is late, and never early
            probe = self._judge(tried)
            if probe.bites is not None or time.monotonic() > deadline:
                return probe

    def _judge(self, tried: Sequence[_Tried]) -> Probe:
        sound = [one for one in tried if one.trial.is_sound(one.beside)]
        usual = _soonest if self._stream.toxicity == 1 else _latest
        sound = [replace(one, beside=usual(theirs)) for theirs in _by_path(sound) for one in theirs]
        if not sound:
            return self._by_its_word()
        return self._judged(sound) if self._stream.toxicity == 1 else self._judged_share(sound)

    # --- which paths -----------------------------------------------------------------------------------------

    def _measurable(self) -> list[Proxy]:
        """The proxies that nothing else keeps from answering as they should; some of each server's, if many."""
        free = [proxy for proxy in self._stream.proxies if self._is_free(proxy)]
        by_server: dict[str, list[Proxy]] = {}
        for proxy in free:
            by_server.setdefault(proxy.destination, []).append(proxy)
        each = max(1, _PATHS // max(1, len(by_server)))
        return [proxy for theirs in by_server.values() for proxy in theirs[:each]]

    def _is_free(self, proxy: Proxy) -> bool:
        world, source, destination = self._world, proxy.source, proxy.destination
        if proxy.service is Service.QUORUM and self._stream.toxic.kind is not Kind.DOWN:
            return False
        server = next(s for s in world.topology.servers if s.host == destination)
        ways = (Path(source, destination, proxy.switch, None), Path(destination, source, proxy.switch, None))
        return not (
            world.servers.held(server.id)
            or world.streams.held_by_others(proxy, but=self.id)
            or any(world.holds_path(way, but=self.id) for way in ways)
        )

    # --- measuring -------------------------------------------------------------------------------------------

    def _try(self, proxies: Sequence[Proxy]) -> list[_Tried]:
        late = self._late_s()
        much = self._longest_answers(proxies, late)
        pairs = [(p, t) for p in proxies for t in trials_of(self._stream, p.service, much=much[p])]
        # what goes up is much, and what comes down would be late for it
        groups = [[(p, t) for p, t in pairs if t.ways == ways] for ways in dict.fromkeys(t.ways for _p, t in pairs)]
        rounds = self._rounds([trial for _proxy, trial in pairs])
        if self._stream.toxicity < 1:  # many, of which few are late: all at once
            return [one for group in groups for one in self._once(group * rounds, late)]
        return [one for _round in range(rounds) for group in groups for one in self._once(group, late)]

    def _once(self, pairs: Sequence[tuple[Proxy, Trial]], late: float) -> list[_Tried]:
        """Each trial once, beside the proxy and then through it.

        Not at the same time: a server reads one greeting at a time, and a slow one keeps all others waiting.
        """
        beside = [Call(p.source, p.upstream, t.question, _PLAIN_S + late) for p, t in pairs]
        through = [Call(p.source, p.listen, t.question, t.patience_ms / 1000 + late) for p, t in pairs]
        plain = converse(self._world.testbed, beside)
        given = converse(self._world.testbed, through)
        return [_Tried(p, t, g, b) for (p, t), g, b in zip(pairs, given, plain, strict=True)]

    def _longest_answers(self, proxies: Sequence[Proxy], late: float) -> dict[Proxy, int]:
        """How many bytes each server says at most, where that matters."""
        if self._stream.toxic.kind not in (Kind.BANDWIDTH, Kind.SLICER, Kind.LIMIT_DATA):
            return dict.fromkeys(proxies, 0)
        calls = [Call(p.source, p.upstream, ask_much(p.service), _PLAIN_S + late) for p in proxies]
        samples = converse(self._world.testbed, calls)
        return {proxy: sample.received for proxy, sample in zip(proxies, samples, strict=True)}

    def _rounds(self, trials: Sequence[Trial]) -> int:
        share = self._stream.toxicity
        if share < 1 and trials:
            kinds = len({trial.ways for trial in trials})
            seen = 1 - (1 - share) ** min(trial.chance for trial in trials)
            return math.ceil(_EXPECTED / seen / (len(trials) / kinds))
        short = _SHORT_MS[len(trials) > _FEW]
        return _ROUNDS if any(0 < trial.expected_ms < short for trial in trials) else 1

    def _late_s(self) -> float:
        """How much later packets are on purpose, there and back, seconds."""
        held = [shape.effects for shape in self._world.shapes.held()]
        return 4 * max((e.delay_ms + 4 * e.jitter_ms for e in held), default=0.0) / 1000

    # --- judging ---------------------------------------------------------------------------------------------

    def _judged(self, tried: Sequence[_Tried]) -> Probe:
        """It is on every connection: each path shows it, or none does."""
        verdicts = {self._of_path(theirs) for theirs in _by_path(tried)}
        bites = verdicts.pop() if len(verdicts) == 1 else None
        return Probe(bites, self._summary(tried), _measurements(tried, some=False))

    def _of_path(self, tried: Sequence[_Tried]) -> bool | None:
        """A machine that is busy makes some conversations later, and none sooner: the soonest one tells."""
        timed = sorted(
            (moment, n) for n, one in enumerate(tried) if (moment := one.trial.moment(one.given)) is not None
        )
        if not timed:
            return tried[-1].shows(some=False)
        varies = self._stream.toxic.jitter_ms > 0
        _moment, number = timed[len(timed) // 2 if varies else 0]
        return tried[number].shows(some=False)

    def _judged_share(self, tried: Sequence[_Tried]) -> Probe:
        """It is on some connections: about so many show it, or none does."""
        verdicts: set[bool | None] = set()
        for ways in {one.trial.ways for one in tried}:
            theirs = [one for one in tried if one.trial.ways == ways]
            shown = sum(one.shows(some=True) is True for one in theirs)
            share = 1 - (1 - self._stream.toxicity) ** theirs[0].trial.chance
            found = shown / (share * len(theirs))
            verdicts.add(True if found >= _ENOUGH else (False if found <= _TOO_FEW else None))
        bites = verdicts.pop() if len(verdicts) == 1 else None
        return Probe(bites, self._summary(tried), _measurements(tried, some=True))

    def _summary(self, tried: Sequence[_Tried]) -> str:
        some = self._stream.toxicity < 1
        parts = []
        for ways in dict.fromkeys(one.trial.ways for one in tried):
            theirs = [one for one in tried if one.trial.ways == ways]
            shown = sum(one.shows(some=some) is True for one in theirs)
            where = "" if len(ways) > 1 else f" {ways[0]}"
            parts.append(f"{shown} of {len(theirs)} conversations show {self._stream.toxic.text()}{where}")
        return "; ".join(parts)

    def _by_its_word(self) -> Probe:
        """Where other faults keep every path from being measured, only toxiproxy's own word is left."""
        states = self._world.streams.proxies.states()
        said = [self._world.streams.is_on(self.id, self._stream, p, states) for p in self._stream.proxies]
        bites = said[0] if len(set(said)) == 1 else None
        text = {True: "has it", False: "does not have it"}.get(bool(bites), "") if bites is not None else "is not sure"
        return Probe(bites, f"no path of it can be measured now; toxiproxy {text} on {len(said)} proxies")


def _by_path(tried: Sequence[_Tried]) -> list[list[_Tried]]:
    """The trials of each path and way."""
    paths: dict[tuple[Proxy, tuple[Way, ...]], list[_Tried]] = {}
    for one in tried:
        paths.setdefault((one.proxy, one.trial.ways), []).append(one)
    return list(paths.values())


def _soonest(tried: Sequence[_Tried]) -> Sample:
    """What the server by itself takes: the soonest of its answers."""
    return min((one.beside for one in tried), key=lambda sample: tried[0].trial.moment(sample) or 0.0)


def _latest(tried: Sequence[_Tried]) -> Sample:
    """What it takes with as many who ask at once: where each conversation counts, none may be late by itself."""
    return max((one.beside for one in tried), key=lambda sample: tried[0].trial.moment(sample) or 0.0)


def _measurements(tried: Sequence[_Tried], *, some: bool) -> tuple[Measurement, ...]:
    """The last conversation of each path."""
    last = {(one.proxy, one.trial.ways): one for one in tried}
    return tuple(
        Measurement(
            f"{proxy.text}{'' if len(ways) > 1 else f', {ways[0]}'}",
            f"{one.given.text()}; beside the proxy {one.beside.text()}",
            healthy=one.shows(some=some) is False,
        )
        for (proxy, ways), one in last.items()
    )

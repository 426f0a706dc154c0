"""What was measured against what was asked: bounds whose false-alarm rate is stated, and what fits them.

A share is measured by counting, and counts are binomial: the bounds are exact, and fair chance leaves them once in
`1 / FALSE_ALARM` looks. Loss in bursts is counted as if there were fewer packets, by how much neighbours share a fate.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.nemesis.effects import lost_in_chain
from harness.testbed import netem
from harness.testbed.wire import Arrivals, Effects, Spread

#: How often fair chance alone leaves the bounds of a share, or of a median.
FALSE_ALARM = 1e-6
#: How many standard deviations that is (normal distribution, both sides).
_SIGMAS = 4.9
#: What a sound path on a busy machine may do: a share of its packets lost or overtaken, and lateness, milliseconds.
_STRAY_SHARE = 0.001
_LATE_MS, _LATE_SHARE = 4.0, 0.05
#: No packet comes early, but for the kernel's clock.
_EARLY_MS, _EARLY_SHARE = 0.1, 0.01
#: Which part of a rate must be left for the measurement by the ensemble's own packets, and how much too high it may be.
_RATE_LEFT, _RATE_OVER = 0.3, 1.15
#: Which part of what was sent arrives at the same pace, where nothing holds it back.
_AS_SENT = 0.8
#: Headers, and what a packet may have without Ethernet's; bytes.
_ETHERNET, _IP, _UDP, _MTU = 14, 20, 8, 1500


@dataclass(frozen=True)
class Expected:
    """What a path should show. Shares are from 0 to 1."""

    delay_ms: float = 0.0
    #: One NIC's jitter; where several have one, their sum is not predicted.
    jitter_ms: float = 0.0
    spread: Spread = Spread.UNIFORM
    predictable: bool = True
    loss: float = 0.0
    #: By how much fewer packets count, because neighbours are lost together.
    clumping: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    #: Bits per second; 0: without a limit.
    rate: int = 0


def expect(several: Sequence[Effects]) -> Expected:
    """What these effects are on one path, one after the other."""
    shaky = [e for e in several if e.jitter_ms]
    last = shaky[-1] if shaky else Effects()
    passed, clumping = 1.0, 1.0
    for effects in several:
        passed *= 1 - effects.loss
        if chain := effects.bursts:
            passed *= 1 - lost_in_chain(chain)
            alike = max(0.0, 1 - chain.to_bad - chain.to_good)
            clumping = max(clumping, (1 + alike) / (1 - alike)) if alike < 1 else math.inf
    middle = sum(statistics.median(netem.table(e.spread)) / netem.DIST_SCALE * e.jitter_ms for e in shaky)
    return Expected(
        delay_ms=round(sum(e.delay_ms for e in several) + middle, 6),
        jitter_ms=sum(e.jitter_ms for e in shaky),
        spread=last.spread,
        predictable=len(shaky) < 2 and not last.correlation,
        loss=1 - passed,
        clumping=clumping,
        duplicate=1 - math.prod(1 - e.duplicate for e in several),
        reorder=max((e.reorder for e in several), default=0.0),
        corrupt=1 - math.prod(1 - e.corrupt for e in several),
        rate=min((e.rate for e in several if e.rate), default=0),
    )


@dataclass(frozen=True)
class Counted:
    """What trains over paths of one kind showed together."""

    sent: int
    lost: int
    damaged: int
    duplicates: int
    overtook: int
    #: Of those that arrived, milliseconds, sorted.
    delays: tuple[float, ...]
    #: Bytes of a datagram, without headers.
    size: int

    @classmethod
    def of(cls, trains: Sequence[Arrivals], size: int) -> Counted:
        """Add up what became of several trains."""
        delays = sorted(m / 1000 for train in trains for m in train.micros if m is not None)
        sent = sum(len(train.sent) for train in trains)
        damaged = sum(train.damaged for train in trains)
        return cls(
            sent,
            max(0, sent - len(delays) - damaged),
            damaged,
            sum(train.duplicates for train in trains),
            sum(_overtook(train) for train in trains),
            tuple(delays),
            size,
        )


@dataclass(frozen=True)
class Finding:
    """One quantity: what was measured, what was asked for, and whether the one is within the bounds of the other."""

    fits: bool
    #: How far the two are apart.
    distance: float
    #: For people; empty where nothing was asked for and nothing was found.
    text: str


def compare(expected: Expected, counted: Counted) -> tuple[Finding, ...]:
    """Every quantity that can be judged on what was counted."""
    # what is damaged in its headers is not recognised, and so counts as lost
    shown = expected.corrupt * counted.size / on_wire(counted.size)
    lost = 1 - (1 - expected.loss) * (1 - (expected.corrupt - shown))
    loss = _share("lost", counted.lost, counted.sent, lost, expected.clumping, stray=True, crowded=bool(expected.rate))
    findings = [loss]
    if not expected.rate:
        findings.append(_share("damaged", counted.damaged, counted.sent, shown * (1 - expected.loss)))
    findings.append(_share("doubled", counted.duplicates, len(counted.delays), expected.duplicate))
    if not expected.jitter_ms and not expected.rate:
        findings.append(_share("overtook", counted.overtook, len(counted.delays), expected.reorder, stray=True))
    if expected.loss < 1:
        findings += _delays(expected, counted.delays)
    return tuple(findings)


@dataclass(frozen=True)
class Burst:
    """Datagrams sent as fast as possible, once the first ones have passed; rates of whole frames, bits per second."""

    offered: float
    arrived: float
    #: How long the last ones waited beyond what a path takes anyway, milliseconds.
    lag_ms: float

    @classmethod
    def of(cls, train: Arrivals, size: int, *, skip: int, delay_ms: float) -> Burst:
        """What a train without gaps showed."""
        pairs = [(s, s + m) for s, m in zip(train.sent, train.micros, strict=True) if m is not None]
        lags = [(there - sent) / 1000 - delay_ms for sent, there in pairs[-max(1, len(pairs) // 4) :]]
        bits = on_wire(size) * 8
        arrived = _pace(sorted(there for _sent, there in pairs)[skip:], bits)
        return cls(_pace(train.sent, bits), arrived, statistics.median(lags) if lags else 0.0)

    @property
    def unhindered(self) -> bool:
        """Whether all that was sent came through as it was sent."""
        return self.arrived >= _AS_SENT * self.offered and self.lag_ms < _LATE_MS


def compare_rate(expected: int, burst: Burst, asked: int) -> Finding:
    """A burst against the rate expected, bits per second; 0: none, and then it is not held back to the one asked."""
    measured = max(burst.arrived, 1.0)
    said = f"{_bits(burst.arrived)} of {_bits(burst.offered)}"
    if not expected:
        free = burst.unhindered or measured > asked * _RATE_OVER * 1.3
        return Finding(free, 0.0 if free else math.inf, f"{said} arrive, no limit asked")
    fits = expected * _RATE_LEFT <= measured <= expected * _RATE_OVER and not burst.unhindered
    return Finding(fits, abs(math.log(measured / expected)), f"{said} arrive, asked {_bits(expected)}")


def on_wire(size: int) -> int:
    """The bytes that a datagram has on the wire, in as many packets as it takes."""
    packets = math.ceil((size + _UDP) / (_MTU - _IP))
    return size + _UDP + packets * (_ETHERNET + _IP)


def _pace(moments: Sequence[float], bits: int) -> float:
    if len(moments) < 2 or moments[-1] <= moments[0]:
        return 0.0
    return (len(moments) - 1) * bits / ((moments[-1] - moments[0]) / 1e6)


def bounds(share: float, number: float, false_alarm: float = FALSE_ALARM) -> tuple[float, float]:
    """The shares of a number of draws that fair chance stays between, but for one time in `1 / false_alarm`."""
    count = max(1, round(number))
    if share <= 0.0 or share >= 1.0:
        return share, share
    deviation = math.sqrt(count * share * (1 - share))
    reach = round(8 * deviation) + 30  # beyond it is less than any false-alarm rate worth naming
    middle = round(count * share)
    low = _quantile(count, share, range(max(0, middle - reach), count + 1), false_alarm / 2)
    high = _quantile(count, share, range(min(count, middle + reach), -1, -1), false_alarm / 2)
    return low / count, high / count


def _quantile(count: int, share: float, places: range, tail: float) -> int:
    """The first place from the outside that is not in the tail."""
    mass = 0.0
    for place in places:
        mass += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(place + 1)
            - math.lgamma(count - place + 1)
            + place * math.log(share)
            + (count - place) * math.log1p(-share)
        )
        if mass > tail:
            return place
    return places[-1]


def _share(
    what: str,
    found: int,
    of: int,
    share: float,
    clumping: float = 1.0,
    *,
    stray: bool = False,
    crowded: bool = False,
) -> Finding:
    """`crowded`: in a queue that others fill, more may be lost than was asked for."""
    measured = found / of if of else 0.0
    low, _ = bounds(share, of / clumping)
    _, high = bounds(max(share, _STRAY_SHARE) if stray else share, of / clumping) if not crowded else (0.0, 1.0)
    text = f"{what} {measured:.2%} of {of}" if share or found or what == "lost" else ""
    if share or found:
        text += f", asked {share:.2%} ({low:.2%} to {high:.2%})"
    return Finding(low <= measured <= high if of else True, abs(measured - share), text)


def _delays(expected: Expected, delays: Sequence[float]) -> list[Finding]:
    if not delays:
        return [Finding(False, math.inf, "nothing arrived")]
    median = statistics.median(delays)
    asked = expected.delay_ms
    chance = _SIGMAS * 1.26 * expected.jitter_ms / math.sqrt(len(delays))
    low = asked - chance - _EARLY_MS - asked * _EARLY_SHARE
    high = asked + chance + _LATE_MS + asked * _LATE_SHARE
    late = bool(expected.rate)  # it waits in a queue that is full of others, or not
    slow = "" if late else f" to {high:.1f}"
    text = f"median {median:.2f} ms, asked {asked:g} ({max(0.0, low):.1f}{slow})"
    found = [Finding(low <= median and (late or median <= high), abs(median - asked), text)]
    if expected.jitter_ms and not late and len(delays) > 3:
        found.append(_quartiles(expected, delays))
    return found


def _quartiles(expected: Expected, delays: Sequence[float]) -> Finding:
    """How wide the middle half is, against the same of the distribution that was asked for."""
    quarters = statistics.quantiles(delays, n=4)
    measured = quarters[2] - quarters[0]
    wanted = statistics.quantiles(netem.table(expected.spread), n=4)
    asked = (wanted[2] - wanted[0]) / netem.DIST_SCALE * expected.jitter_ms
    chance = min(0.9, _SIGMAS * 1.6 / math.sqrt(len(delays)) + 0.05)
    low, high = (asked * (1 - chance), asked * (1 + chance) + _LATE_MS) if expected.predictable else (0.0, math.inf)
    text = f"middle half {measured:.2f} ms wide, asked {asked:.2f}"
    if not expected.predictable:
        text += " (of correlated or several jitters only said, not judged)"
    return Finding(low <= measured <= high, abs(measured - asked), text)


def _overtook(train: Arrivals) -> int:
    """How many arrived before one that was sent earlier."""
    latest, count = -math.inf, 0
    for sent, micros in zip(train.sent, train.micros, strict=True):
        if micros is None:
            continue
        count += sent + micros < latest
        latest = max(latest, sent + micros)
    return count


def _bits(rate: float) -> str:
    for unit, size in (("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.0f} bit/s"

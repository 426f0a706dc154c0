"""What becomes of packets: how effects are written, and what several of them are together.

::

    delay 200ms                    delay 50ms jitter 10ms            (uniform: from 40 to 60 ms)
    delay 50ms jitter 10ms normal  (or pareto, paretonormal; 10 ms is one standard deviation)
    delay 50ms jitter 10ms correlated 25%
    loss 10%                       loss 10% in bursts of 5           (five in a row, on average)
    loss gilbert-elliott 2% 20% 90% 0.1%      (good to bad, bad to good, lost while bad, lost while good)
    duplicate 1%     corrupt 0.1%     delay 10ms, reorder 25%        (a quarter is not delayed, and overtakes)
    rate 1mbit                     (or 100kbit, 2.5mbit, at most 100mbit)

several of them parted by commas: `delay 50ms, loss 1%`. Words and models are those of `tc-netem(8)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import reduce

import msgspec

from harness.testbed.wire import Chain, Effects, Spread
from harness.topology.duration import parse_duration
from harness.topology.toml_document import allowed_words, nearest, value_text

WORDS = ("delay", "loss", "duplicate", "reorder", "corrupt", "rate")
#: Longest delay and jitter, milliseconds; netem counts jitter in 32 bits of nanoseconds.
MAX_DELAY_MS, MAX_JITTER_MS = 60_000.0, 2_000.0
#: Slowest and fastest rate, bits per second: a faster one cannot be told from none by a short burst.
RATES = (8_000, 100_000_000)
_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6}

_DURATION = r"(\d+(?:\.\d+)?(?:ms|s|m|h))"
_SHARE = r"(\d{1,3}(?:\.\d{1,4})?)%"
_DELAY = re.compile(
    rf"delay {_DURATION}(?: jitter {_DURATION}(?: ({'|'.join(Spread)}))?(?: correlated {_SHARE})?)?", re.ASCII
)
_LOSS = re.compile(rf"loss {_SHARE}(?: in bursts of (\d{{1,3}}(?:\.\d)?))?", re.ASCII)
_CHAIN = re.compile(rf"loss gilbert-elliott {_SHARE} {_SHARE} {_SHARE} {_SHARE}", re.ASCII)
_SIMPLE = re.compile(rf"(duplicate|reorder|corrupt) {_SHARE}", re.ASCII)
_RATE = re.compile(r"rate (\d{1,6}(?:\.\d{1,3})?)(bit|kbit|mbit)", re.ASCII)
_FORMS = {
    "delay": "delay 200ms [jitter 20ms [normal|pareto|paretonormal] [correlated 25%]]",
    "loss": "loss 10% [in bursts of 5], or loss gilbert-elliott 2% 20% 90% 0.1%",
    "duplicate": "duplicate 1%",
    "reorder": "delay 10ms, reorder 25%",
    "corrupt": "corrupt 0.1%",
    "rate": "rate 1mbit",
}


def parse_effects(text: str) -> Effects:
    """What a text says.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    seen: dict[str, Effects] = {}
    for part in (part.strip() for part in text.split(",")):
        word = part.partition(" ")[0]
        if word not in WORDS:
            raise ValueError(
                f"there is no effect {value_text(part)}; {nearest(word, WORDS)}allowed: {allowed_words(WORDS)}"
            )
        if word in seen:
            raise ValueError(f"{word} is said twice")
        seen[word] = _parse_one(word, part)
    if "reorder" in seen and "delay" not in seen:
        raise ValueError("reorder takes a delay, which those that overtake are spared; as in delay 10ms, reorder 25%")
    return merge(seen.values())


def _parse_one(word: str, text: str) -> Effects:
    if match := _DELAY.fullmatch(text):
        return _delay(match)
    if match := _LOSS.fullmatch(text):
        return _loss(_share(match[1]), float(match[2]) if match[2] else None)
    if match := _CHAIN.fullmatch(text):
        return Effects(bursts=Chain(*(_share(share, least=0.0) for share in match.groups())))
    if match := _SIMPLE.fullmatch(text):
        return msgspec.structs.replace(Effects(), **{match[1]: _share(match[2])})
    if match := _RATE.fullmatch(text):
        rate = round(float(match[1]) * _UNITS[match[2]])
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"{value_text(text)} is not allowed; allowed: from 8kbit to 100mbit, which can be proved")
        return Effects(rate=rate)
    raise ValueError(f"{value_text(text)} is not understood; allowed: {_FORMS[word]}")


def _delay(match: re.Match[str]) -> Effects:
    delay = parse_duration(match[1]) * 1000
    jitter = parse_duration(match[2]) * 1000 if match[2] else 0.0
    if not 0 < delay <= MAX_DELAY_MS:
        raise ValueError(f"a delay of {match[1]} is not allowed; allowed: more than 0ms, and at most 60s")
    if jitter > min(delay, MAX_JITTER_MS) or (match[2] and not jitter):
        raise ValueError(f"a jitter of {match[2]} is not allowed; allowed: at most the delay, and at most 2s")
    spread = Spread(match[3]) if match[3] else Spread.UNIFORM
    return Effects(delay, jitter, spread, _share(match[4]) if match[4] else 0.0)


def _loss(share: float, burst: float | None) -> Effects:
    if burst is None:
        return Effects(loss=share)
    if burst <= 1 or share > burst / (1 + burst):
        raise ValueError(
            f"loss {share:.4%} in bursts of {burst:g} cannot be: a burst has more than one packet, and "
            f"between two of them one arrives at least"
        )
    # stationary: bad for a share of p / (p + r) of all packets, and for 1 / r in a row
    return Effects(bursts=Chain(to_bad=share / (1 - share) / burst, to_good=1 / burst))


def _share(text: str, least: float = 1e-6) -> float:
    share = float(text) / 100
    if not least <= share <= 1:
        raise ValueError(f"{text}% is not allowed; allowed: more than 0%, and at most 100%")
    return share


# --- together -----------------------------------------------------------------------------------------------


def merge(several: Iterable[Effects]) -> Effects:
    """What they are where all of them hold on one NIC: delays add up, and what is left to chance is independent.

    Raises:
        ValueError: there is no such thing, as with two rates: a NIC has one queue.
    """
    return reduce(_merge_two, several, Effects())


def _merge_two(one: Effects, other: Effects) -> Effects:
    single: Mapping[str, tuple[object, object]] = {
        "jitter": (one.jitter_ms, other.jitter_ms),
        "reorder": (one.reorder, other.reorder),
        "loss in bursts": (one.bursts, other.bursts),
        "rate": (one.rate, other.rate),
    }
    for name, (first, second) in single.items():
        if first and second:
            raise ValueError(f"a NIC cannot have {name} twice")
    shaky = one if one.jitter_ms else other
    return msgspec.structs.replace(
        shaky,
        delay_ms=one.delay_ms + other.delay_ms,
        loss=_either(one.loss, other.loss),
        bursts=one.bursts or other.bursts,
        duplicate=_either(one.duplicate, other.duplicate),
        reorder=one.reorder or other.reorder,
        corrupt=_either(one.corrupt, other.corrupt),
        rate=one.rate or other.rate,
    )


def _either(one: float, other: float) -> float:
    return one + other - one * other


def lost_in_chain(chain: Chain) -> float:
    """The share that a chain loses in the long run."""
    total = chain.to_bad + chain.to_good
    bad = chain.to_bad / total if total else 0.0
    return bad * chain.lost_in_bad + (1 - bad) * chain.lost_in_good


def needs(effects: Effects, lacking: Collection[str] = (), *, to_one: bool = False) -> tuple[str, ...]:
    """What the kernel must have for them, by the names of `Testbed.lacking`.

    Args:
        effects: what packets suffer.
        lacking: what the kernel has not: loss alone can be had in two ways.
        to_one: whether only those to or from one address do.
    """
    queued = effects
    filtered: tuple[str, ...] = ()
    if effects.loss and "netem" in lacking:
        queued, filtered = msgspec.structs.replace(effects, loss=0.0), ("bridge", "numgen")
    if queued == Effects():
        return filtered
    queue = "tbf" if queued == Effects(rate=queued.rate) else "netem"
    return (*filtered, queue, *(("htb",) if to_one else ()))

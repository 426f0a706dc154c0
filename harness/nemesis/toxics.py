"""Toxics: what becomes of a TCP stream, in words.

::

    latency 200ms                 every byte is so much later
    latency 200ms jitter 50ms     by 150 to 250 ms
    bandwidth 100kbit             so much a second (toxiproxy counts whole kilobytes: this is 12 of them)
    slow_close 1s                 the end of the connection arrives so much later
    timeout 0ms                   nothing arrives, and the connection stays; with another time, it is closed after it
    reset_peer 100ms              so long after the first byte the connection is reset
    slicer 64B every 1ms          bytes arrive in pieces of 33 to 64, each a millisecond after the other
    slicer 64B varying 16B every 1ms
    limit_data 10kB               the connection is closed after so many bytes
    down                          the proxy refuses connections, and has closed those that it had

They are those of toxiproxy, by its names. Amounts are bounded by what a probe can tell from no toxic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from harness.topology.duration import format_duration, parse_duration
from harness.topology.toml_document import allowed_words, nearest, value_text


class Kind(StrEnum):
    """A kind of toxic, as toxiproxy calls it; `down` is the proxy itself."""

    LATENCY = "latency"
    BANDWIDTH = "bandwidth"
    SLOW_CLOSE = "slow_close"
    TIMEOUT = "timeout"
    RESET_PEER = "reset_peer"
    SLICER = "slicer"
    LIMIT_DATA = "limit_data"
    DOWN = "down"


@dataclass(frozen=True)
class ToxicSpec:
    """A toxic with its amounts; those that its kind does not have are 0."""

    kind: Kind
    #: Of latency, slow_close, timeout, reset_peer; of a slicer, the time between two pieces. Milliseconds.
    time_ms: int = 0
    jitter_ms: int = 0
    #: Kilobytes per second; a kilobyte has 1000 bytes.
    rate: int = 0
    #: Of a slicer's pieces, or of what limit_data lets through. Bytes.
    size: int = 0
    variation: int = 0

    @property
    def attributes(self) -> dict[str, int]:
        """As toxiproxy takes them."""
        return {
            Kind.LATENCY: {"latency": self.time_ms, "jitter": self.jitter_ms},
            Kind.BANDWIDTH: {"rate": self.rate},
            Kind.SLOW_CLOSE: {"delay": self.time_ms},
            Kind.TIMEOUT: {"timeout": self.time_ms},
            Kind.RESET_PEER: {"timeout": self.time_ms},
            Kind.SLICER: {
                "average_size": self.size,
                "size_variation": self.variation,
                "delay": self.time_ms * _MICROSECONDS,
            },
            Kind.LIMIT_DATA: {"bytes": self.size},
            Kind.DOWN: {},
        }[self.kind]

    def text(self) -> str:
        """As `parse_toxic` reads it."""
        time = format_duration(self.time_ms / 1000)
        match self.kind:
            case Kind.LATENCY:
                jitter = f" jitter {format_duration(self.jitter_ms / 1000)}" if self.jitter_ms else ""
                return f"latency {time}{jitter}"
            case Kind.BANDWIDTH:
                return f"bandwidth {self.rate * _BITS}kbit"
            case Kind.SLICER:
                varying = f" varying {self.variation}B" if self.variation else ""
                return f"slicer {self.size}B{varying} every {time}"
            case Kind.LIMIT_DATA:
                return f"limit_data {self.size}B"
            case Kind.DOWN:
                return "down"
        return f"{self.kind} {time}"


def parse_toxic(text: str) -> ToxicSpec:
    """Read a toxic.

    Raises:
        ValueError: half a sentence that says what is wrong, and what is allowed.
    """
    word = text.partition(" ")[0]
    kinds = [kind.value for kind in Kind]
    if word not in kinds:
        raise ValueError(f"there is no toxic {value_text(word)}; {nearest(word, kinds)}allowed: {allowed_words(kinds)}")
    form, read, example = _FORMS[Kind(word)]
    match = form.fullmatch(text)
    if match is None:
        raise ValueError(f"{value_text(text)} is not understood; allowed: {value_text(example)}")
    return read(match)


_MICROSECONDS, _BITS = 1000, 8
#: Bounds: times in milliseconds, rates in kilobytes per second, sizes in bytes.
_LATENCY, _CLOSING, _TIMEOUT, _RESET, _BETWEEN = (10, 2000), (50, 2000), (0, 10_000), (0, 2000), (1, 100)
_RATES, _PIECES, _LIMITS = (1, 1250), (1, 512), (1, 500_000)

_RATE = re.compile(r"(\d{1,5})(kbit|mbit)", re.ASCII)
_SIZE = re.compile(r"(\d{1,6})(B|kB)", re.ASCII)


def _milliseconds(text: str, bounds: tuple[int, int]) -> int:
    found = round(parse_duration(text) * 1000)
    if not bounds[0] <= found <= bounds[1]:
        least, most = (format_duration(bound / 1000) for bound in bounds)
        raise ValueError(f"found {value_text(text)}; allowed: from {least} to {most}")
    return found


def _kilobytes(text: str) -> int:
    match = _RATE.fullmatch(text)
    bits = int(match[1]) * {"kbit": 1, "mbit": 1000}[match[2]] if match else 0
    found = round(bits / _BITS)
    if not _RATES[0] <= found <= _RATES[1]:
        raise ValueError(f"found {value_text(text)}; allowed: a rate from 8kbit to 10mbit")
    return found


def _bytes(text: str, bounds: tuple[int, int]) -> int:
    match = _SIZE.fullmatch(text)
    found = int(match[1]) * {"B": 1, "kB": 1000}[match[2]] if match else 0
    if not bounds[0] <= found <= bounds[1]:
        raise ValueError(f"found {value_text(text)}; allowed: a size from {bounds[0]}B to {bounds[1]}B")
    return found


def _latency(match: re.Match[str]) -> ToxicSpec:
    time = _milliseconds(match[1], _LATENCY)
    jitter = _milliseconds(match[2], (1, time)) if match[2] else 0
    return ToxicSpec(Kind.LATENCY, time_ms=time, jitter_ms=jitter)


def _slicer(match: re.Match[str]) -> ToxicSpec:
    size = _bytes(match[1], _PIECES)
    if match[2] and size == 1:
        raise ValueError("pieces of 1B cannot vary")
    variation = _bytes(match[2], (1, size - 1)) if match[2] else 0
    return ToxicSpec(Kind.SLICER, time_ms=_milliseconds(match[3], _BETWEEN), size=size, variation=variation)


def _timed(kind: Kind, bounds: tuple[int, int]) -> Callable[[re.Match[str]], ToxicSpec]:
    return lambda match: ToxicSpec(kind, time_ms=_milliseconds(match[1], bounds))


_FORMS: dict[Kind, tuple[re.Pattern[str], Callable[[re.Match[str]], ToxicSpec], str]] = {
    Kind.LATENCY: (re.compile(r"latency (\S+)(?: jitter (\S+))?"), _latency, "latency 200ms jitter 50ms"),
    Kind.BANDWIDTH: (
        re.compile(r"bandwidth (\S+)"),
        lambda match: ToxicSpec(Kind.BANDWIDTH, rate=_kilobytes(match[1])),
        "bandwidth 100kbit",
    ),
    Kind.SLOW_CLOSE: (re.compile(r"slow_close (\S+)"), _timed(Kind.SLOW_CLOSE, _CLOSING), "slow_close 1s"),
    Kind.TIMEOUT: (re.compile(r"timeout (\S+)"), _timed(Kind.TIMEOUT, _TIMEOUT), "timeout 0ms"),
    Kind.RESET_PEER: (re.compile(r"reset_peer (\S+)"), _timed(Kind.RESET_PEER, _RESET), "reset_peer 100ms"),
    Kind.SLICER: (
        re.compile(r"slicer (\S+)(?: varying (\S+))? every (\S+)"),
        _slicer,
        "slicer 64B varying 16B every 1ms",
    ),
    Kind.LIMIT_DATA: (
        re.compile(r"limit_data (\S+)"),
        lambda match: ToxicSpec(Kind.LIMIT_DATA, size=_bytes(match[1], _LIMITS)),
        "limit_data 10kB",
    ),
    Kind.DOWN: (re.compile(r"down"), lambda _match: ToxicSpec(Kind.DOWN), "down"),
}

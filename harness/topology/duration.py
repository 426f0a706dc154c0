"""Durations as people write them in a file or on the command line: `500ms`, `1.5s`, `2m`, `1h`."""

from __future__ import annotations

import math
import re

#: The longest duration that is understood: one day.
MAX_SECONDS = 24 * 3600.0

#: What to tell someone who wrote it wrong.
DURATION_FORM = 'a number and a unit, such as "500ms", "10s", "1.5s", "2m" or "1h", at most 24h'

_PATTERN = re.compile(r"(\d{1,9})(\.\d{1,3})?(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds, rounded to the millisecond.

    A unit is always needed, and a fraction has at most three digits: `10` or `1.0000s` are refused, not guessed at.

    Raises:
        ValueError: not of that form, or longer than `MAX_SECONDS`. The message names the text and the form.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or (match[3] == "ms" and match[2]):
        raise ValueError(f"{text[:40]!r} is not a duration; allowed: {DURATION_FORM}")
    seconds = round(float(match[1] + (match[2] or "")) * _SECONDS[match[3]], 3)
    if seconds > MAX_SECONDS:
        raise ValueError(f"{text[:40]!r} is too long; allowed: {DURATION_FORM}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as the same number of milliseconds.

    Negative and infinite numbers and numbers beyond a day are written as well, so that an error can name them.
    """
    if not math.isfinite(seconds * 1000):
        return f"{seconds}s" if math.isfinite(seconds) else str(seconds)
    milliseconds = round(seconds * 1000)
    if milliseconds % 1000:
        return f"{milliseconds}ms" if abs(milliseconds) < 1000 else f"{milliseconds / 1000:.3f}".rstrip("0") + "s"
    whole = milliseconds // 1000
    if whole and whole % 3600 == 0:
        return f"{whole // 3600}h"
    if whole and whole % 60 == 0:
        return f"{whole // 60}m"
    return f"{whole}s"

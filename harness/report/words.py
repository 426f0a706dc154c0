"""Numbers and instants as people read them."""

from __future__ import annotations

from collections.abc import Sequence

NANOSECONDS = 1_000_000_000

#: A narrow no-break space before units, so that no figure is torn from its unit at a line's end.
THIN = "\u202f"


def duration(seconds: float) -> str:
    """`41 ms`, `2.1 s`, `3 min 20 s`, `1 h 5 min`: about two significant figures."""
    if seconds < 0:
        return f"\u2212{duration(-seconds)}"
    if seconds < 0.001:
        return f"{round(seconds * 1e6)}{THIN}µs"
    if seconds < 0.9995:
        milliseconds = seconds * 1e3
        return f"{milliseconds:.1f}{THIN}ms" if milliseconds < 9.95 else f"{round(milliseconds)}{THIN}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    if whole < 3600:
        return _two_units(whole, 60, "min", "s")
    return _two_units(round(whole / 60), 60, "h", "min")


def _two_units(amount: int, ratio: int, large: str, small: str) -> str:
    high, low = divmod(amount, ratio)
    return f"{high}{THIN}{large} {low}{THIN}{small}" if low else f"{high}{THIN}{large}"


def instant(seconds: float, decimals: int = 1) -> str:
    """A place on the time axis: `3.0 s`, always in seconds, so that it can be found on the axis."""
    text = f"{seconds:.{decimals}f}" if abs(seconds) < 1000 else f"{seconds:,.0f}"
    return f"{text.replace('-', chr(0x2212))}{THIN}s"


def count(number: int) -> str:
    """`4,812`."""
    return f"{number:,}"


def figure(value: float, unit: str) -> str:
    """A verdict's figure: seconds as a duration, whole numbers without a fraction, others to three figures."""
    if unit in ("s", "second", "seconds"):
        return duration(value)
    if unit == "ms":
        return duration(value / 1e3)
    text = count(int(value)) if float(value).is_integer() else f"{value:.3g}"
    return f"{text}{THIN}{unit}" if unit else text


def plural(number: int, noun: str, several: str = "") -> str:
    """`1 fault`, `3 faults`; `several` where the plural is not formed by an s."""
    return f"{count(number)} {noun if number == 1 else several or noun + 's'}"


def listing(items: Sequence[str], *, most: int = 3) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c and 4 more`."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def size(number: int) -> str:
    """A file's size: `812 B`, `14 kB`, `3.2 MB`."""
    if number < 1000:
        return f"{number}{THIN}B"
    unit, value = "kB", number / 1e3
    for larger in ("MB", "GB"):
        if value >= 999.5:
            unit, value = larger, value / 1e3
    return f"{value:.1f}{THIN}{unit}" if value < 9.95 else f"{round(value)}{THIN}{unit}"


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last of them an ellipsis where something was left out."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"

"""Figures as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report import words


def plain(text: str) -> str:
    return text.replace(words.THIN, " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (0.0000805, "80 µs"),
        (0.0021, "2.1 ms"),
        (0.041, "41 ms"),
        (0.9996, "1.0 s"),
        (2.14, "2.1 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3900, "1 h 5 min"),
        (-2, "\u22122.0 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert plain(words.duration(seconds)) == text


@given(st.floats(0, 1e6))
def test_a_duration_is_short(seconds: float) -> None:
    assert len(words.duration(seconds)) <= 14


def test_figures() -> None:
    assert plain(words.figure(2.1, "s")) == "2.1 s"
    assert plain(words.figure(2100, "ms")) == "2.1 s"
    assert words.figure(1731, "") == "1,731"
    assert plain(words.figure(0.123456, "share")) == "0.123 share"


def test_listing_and_plural() -> None:
    assert words.listing(["a"]) == "a"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.listing(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert words.plural(1, "fault") == "1 fault"
    assert words.plural(2, "reply", "replies") == "2 replies"


def test_sizes() -> None:
    assert plain(words.size(812)) == "812 B"
    assert plain(words.size(14_200)) == "14 kB"
    assert plain(words.size(3_200_000)) == "3.2 MB"
    assert plain(words.size(5 * 10**13)) == "50000 GB"


@given(st.text(), st.integers(1, 50))
def test_shortened_text_is_short(text: str, limit: int) -> None:
    assert len(words.shorten(text, limit)) <= limit
    if len(text) <= limit:
        assert words.shorten(text, limit) == text

"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.topology.duration import MAX_SECONDS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0.0), ("500ms", 0.5), ("10s", 10.0), ("1.5s", 1.5), ("2m", 120.0), ("0.25h", 900.0), ("24h", 86400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


NOT_DURATIONS = """
10|1 0s| 10s|10s |-1s|+1s|1e3s|1.5ms|1.s|.5s|1.0000s|10S|1m30s|24.001h|999999999s|infs|nan|1d|
""".strip().split("|")


@pytest.mark.parametrize("text", [*NOT_DURATIONS, "10s\n", "\u0663s", "9" * 5000 + "s"])
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number and a unit"):
        parse_duration(text)


@given(st.integers(0, int(MAX_SECONDS * 1000)))
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= MAX_SECONDS


def test_the_shortest_form_is_written() -> None:
    assert [format_duration(s) for s in (0.0, 0.5, 1.5, 8.0, 90.0, 120.0, 7200.0, 86399.999)] == [
        *("0s", "500ms", "1.5s", "8s", "90s", "2m", "2h", "86399.999s")
    ]


@given(st.floats())
def test_any_number_can_be_named_in_an_error(seconds: float) -> None:
    assert format_duration(seconds)


def test_a_number_too_large_for_milliseconds_can_be_named() -> None:
    assert format_duration(1.797693134862316e305) == "1.797693134862316e+305s"

"""Paths and scales."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.axis import Bins
from harness.report.charts import Grid, LinearScale, LogScale, number

FOUR = Grid(Bins(0.0, 4.0, 1.0, 4))


def test_steps_hold_a_value_until_the_next_bin_and_break_where_there_is_none() -> None:
    assert FOUR.steps([10, 10, 30, 30]) == "M0 10H500V30H1000"
    assert FOUR.steps([10, None, 30, None]) == "M0 10H250M500 30H750"
    assert FOUR.steps([None, None, None, None]) == ""


def test_columns_stand_on_the_floor() -> None:
    assert FOUR.columns([100, 40, 60, 100]) == "M250 100V40H500V60H750V100Z"
    assert FOUR.columns([None, 0, 0, None]) == "M250 100V0H750V100Z"
    assert FOUR.columns([100, None, 100, 100]) == ""


def test_coordinates_are_short() -> None:
    assert [number(v) for v in (0.0, 12.34, 12.96, 100.0, 33.333)] == ["0", "12.3", "13", "100", "33.3"]


heights = st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=300)


@given(heights)
def test_a_path_is_compact_and_lies_in_the_box(values: list[float | None]) -> None:
    grid = Grid(Bins(0.0, float(len(values)), 1.0, len(values)))
    for path in (grid.steps(values), grid.columns(values)):
        assert len(path) <= 24 * (len(values) + 1)
        assert all(0 <= float(n) <= 1000 for n in re.findall(r"[\d.]+", path))


@given(st.floats(0, 1e9))
def test_a_linear_scale_holds_its_greatest_value(greatest: float) -> None:
    scale = LinearScale.over(greatest)
    assert scale.top >= greatest * (1 - 1e-6)
    assert scale.top <= max(2 * greatest, 1.0)
    assert scale.height(0.0) == 100
    assert len(scale.ticks()) == 3


def test_a_linear_scale_is_round() -> None:
    assert [LinearScale.over(v).top for v in (0, 1, 355, 100, 101, 7)] == [1, 1, 400, 100, 150, 8]
    assert [t.label for t in LinearScale.over(355).ticks()] == ["0", "200", "400"]


def test_a_logarithmic_scale_has_whole_decades() -> None:
    scale = LogScale.over(0.002, 2.5)
    assert (scale.low, scale.high) == (-3, 1)
    assert [t.label.replace("\u202f", " ") for t in scale.ticks()] == ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]
    assert scale.height(0.001) == pytest.approx(100)
    assert scale.height(0.1) == pytest.approx(50)
    assert scale.height(0.0) == 100
    assert scale.height(None) is None


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_logarithmic_scale_holds_both_values(one: float, other: float) -> None:
    scale = LogScale.over(min(one, other), max(one, other))
    for value in (one, other):
        height = scale.height(value)
        assert height is not None
        assert 0 <= height <= 100

"""The axis and its bins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.axis import MAX_BINS, MAX_TICKS, TimeAxis, bins

spans = st.floats(0.5, 400_000, allow_nan=False)
starts = st.floats(-500, 500, allow_nan=False)


def test_an_axis_has_length() -> None:
    with pytest.raises(ValueError, match="no length"):
        TimeAxis(0, 1.0, 1.0)


def test_ticks_are_round_and_labelled() -> None:
    ticks = TimeAxis(0, 0.0, 18.6).ticks()
    assert [t.label.replace("\u202f", " ") for t in ticks][:3] == ["0 s", "2 s", "4 s"]
    assert ticks[1].place == pytest.approx(200 / 18.6, abs=0.001)
    assert [t.label.replace("\u202f", " ") for t in TimeAxis(0, 0.0, 7200).ticks()][1] == "15 min"
    assert [t.label.replace("\u202f", " ") for t in TimeAxis(0, 0.0, 30_000).ticks()][1] == "1 h"


@given(starts, spans)
def test_ticks_are_few_and_on_the_axis(start: float, span: float) -> None:
    ticks = TimeAxis(0, start, start + span).ticks()
    assert 1 <= len(ticks) <= MAX_TICKS + 1
    assert all(0 <= t.place <= 100 for t in ticks)
    assert len({t.label for t in ticks}) == len(ticks)


def test_what_lies_beyond_an_edge_is_put_on_the_edge() -> None:
    axis = TimeAxis(10, 0.0, 4.0)
    assert axis.place(10) == 0
    assert axis.place(10 + 2 * 10**9) == 50
    assert axis.place(10 + 9 * 10**9) == 100
    assert axis.place(0) == 0


@given(starts, spans, st.integers(0, 10**7))
def test_bins_are_bounded_and_cover_the_axis(start: float, span: float, items: int) -> None:
    axis = TimeAxis(0, start, start + span)
    over = bins(axis, items)
    assert 1 <= over.count <= MAX_BINS
    assert sum(over.covered(i) for i in range(over.count)) == pytest.approx(span)
    # No bin is a sliver, or its rate would be a fiction.
    assert all(over.covered(i) >= over.width * 0.49 for i in range(over.count)) or over.count == 1


@given(starts, spans, st.integers(0, 10**6), st.lists(st.floats(-1000, 10**6, allow_nan=False), max_size=50))
def test_every_instant_has_a_bin(start: float, span: float, items: int, instants: list[float]) -> None:
    over = bins(TimeAxis(0, start, start + span), items)
    for instant in instants:
        index = over.index(instant)
        assert 0 <= index < over.count
        if start <= instant < start + span:
            assert over.left(index) - 1e-6 <= instant <= over.left(index) + over.covered(index) + 1e-6


def test_bins_of_a_short_run_hold_about_twenty_operations() -> None:
    over = bins(TimeAxis(0, 0.0, 18.0), 3600)
    assert over.width == 0.1
    assert bins(TimeAxis(0, 0.0, 18.0), 40).count == 36

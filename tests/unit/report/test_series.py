"""Counts and percentiles on known data."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history.records import Function, Operation, Outcome, Phase, Sample
from harness.report.axis import Bins, TimeAxis, bins
from harness.report.material import Material
from harness.report.series import connections, latency, percentile, throughput, time_axis

MS = 1_000_000
S = 1_000_000_000


def operation(
    call: float,
    took: float | None = 0.001,
    outcome: Outcome = Outcome.OK,
    function: Function = Function.GET,
    *,
    zxid: int | None = None,
) -> Operation:
    start = round(call * S)
    end = None if took is None else start + round(took * S)
    return Operation("c1.0", 0, function, "/r/0", start, end, outcome, zxid=zxid)


def ten_seconds(width: float = 1.0) -> Bins:
    return Bins(0.0, 10.0, width, round(10 / width))


AXIS = TimeAxis(0, 0.0, 10.0)


def test_operations_are_counted_by_their_return_and_what_became_of_them() -> None:
    seen = throughput(
        [
            operation(0.5),
            operation(0.9, 0.2, function=Function.SET),
            operation(2.1, outcome=Outcome.FAIL, function=Function.SET),
            operation(2.5, outcome=Outcome.FAIL, function=Function.SET, zxid=9),
            operation(3.2, None, Outcome.INFO, Function.DELETE),
            operation(3.3, 2.0, Outcome.INFO),
        ],
        AXIS,
        ten_seconds(),
    )
    assert seen.reads == (1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert seen.writes == (0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert seen.refused == (0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert seen.failed == (0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert seen.indeterminate == (0, 0, 0, 1, 0, 1, 0, 0, 0, 0)


def test_rates_are_per_second() -> None:
    seen = throughput([operation(0.1 + k / 100) for k in range(20)], AXIS, ten_seconds(0.5))
    assert seen.rate(seen.reads)[:2] == (40.0, 0.0)


operations = st.lists(
    st.builds(
        operation,
        st.floats(-5, 700),
        st.none() | st.floats(0, 30),
        st.sampled_from(Outcome),
        st.sampled_from(Function),
        zxid=st.none() | st.just(7),
    ),
    max_size=200,
)


@given(operations, st.floats(1, 600))
def test_no_operation_is_lost_or_counted_twice(several: list[Operation], span: float) -> None:
    axis = TimeAxis(0, 0.0, span)
    seen = throughput(several, axis, bins(axis, len(several)))
    answered = [o for o in several if o.outcome is Outcome.OK]
    assert sum(seen.reads) == sum(not o.function.is_write for o in answered)
    assert sum(seen.writes) == sum(o.function.is_write for o in answered)
    assert sum(seen.failed) == sum(o.outcome is Outcome.FAIL and o.zxid is None for o in several)
    assert sum(seen.refused) == sum(o.outcome is Outcome.FAIL and o.zxid is not None for o in several)
    assert sum(seen.indeterminate) == sum(o.outcome is Outcome.INFO for o in several)
    timed = latency(several, axis, bins(axis, len(several)))
    assert sum(timed.samples) == sum(o.returned is not None for o in answered)


def test_percentiles_are_nearest_rank() -> None:
    hundred = [k * MS for k in range(1, 101)]
    assert percentile(hundred, 50) == 0.050
    assert percentile(hundred, 95) == 0.095
    assert percentile(hundred, 99) == 0.099
    assert percentile(hundred, 100) == 0.100
    assert percentile([7 * MS], 99) == 0.007
    assert percentile([], 50) is None


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=300), st.floats(0.1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[int], percent: float) -> None:
    ascending = sorted(values)
    found = percentile(ascending, percent)
    assert found is not None
    nanoseconds = round(found * S)
    assert nanoseconds in values
    assert sum(v <= nanoseconds for v in values) >= percent / 100 * len(values) - 1e-6
    smaller = [v for v in values if v < nanoseconds]
    assert len(smaller) < percent / 100 * len(values)


def test_latency_is_that_of_acknowledged_operations_by_their_call() -> None:
    seen = latency(
        [
            operation(0.5, 0.010),
            operation(0.6, 3.0),
            operation(0.7, 0.5, Outcome.INFO),
            operation(5.0, None, Outcome.OK),
        ],
        AXIS,
        ten_seconds(),
    )
    assert seen.samples[0] == 2
    assert seen.p50[0] == 0.010
    assert seen.maximum[0] == 3.0
    assert seen.p50[1:] == (None,) * 9


def test_connections_are_the_last_sample_of_a_bin_and_are_carried_on() -> None:
    samples = [
        Sample(round(-0.5 * S), 1, "follower", connections=9),
        Sample(round(0.2 * S), 1, "follower", connections=3),
        Sample(round(0.8 * S), 1, "follower", connections=4),
        Sample(round(3.0 * S), 1, "down", connections=0),
        Sample(round(5.5 * S), 2, "leader", connections=2),
        Sample(round(99 * S), 2, "leader", connections=7),
    ]
    rows = connections(samples, AXIS, ten_seconds())
    assert rows[1] == (4, 4, 4, 0, 0, 0, 0, 0, 0, 0)
    assert rows[2] == (None,) * 5 + (2,) * 5


def material(**parts: object) -> Material:
    return Material(Path("run"), **parts)  # type: ignore[arg-type]  # a test's shorthand


def test_the_axis_begins_with_the_load_and_holds_everything_that_happened() -> None:
    phases = [Phase(1 * S, "bring-up"), Phase(4 * S, "load"), Phase(14 * S, "quiesce"), Phase(15 * S, "collect")]
    axis = time_axis(material(phases=phases, operations=[operation(5.0), operation(13.0, 4.0)]))
    assert (axis.origin, axis.start, axis.end) == (4 * S, 0.0, 13.0)
    assert time_axis(material(phases=phases)).end == pytest.approx(11.0)


def test_an_operation_before_the_load_is_on_the_axis_too() -> None:
    axis = time_axis(material(phases=[Phase(4 * S, "load")], operations=[operation(3.0)]))
    assert axis.start == -1.0


def test_an_empty_run_has_an_axis() -> None:
    assert time_axis(material()).span >= 1.0
    assert time_axis(material(phases=[Phase(9 * S, "bring-up")])).span >= 1.0

"""Faults of clocks: what their words mean, what is refused, and what a series of looks at a clock proves."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.nemesis import clocks
from harness.nemesis.clock_fault import Look, is_right, is_so
from harness.nemesis.clocks import Clock, Drift, Jumps, Skew

WRONG = {
    "late": '"late" is not what becomes of a clock; allowed: such as "ahead 5s"',
    "ahead": '"ahead" is not what becomes of a clock',
    "ahead 5s every 1s": '"ahead 5s every 1s" is not what becomes of a clock',
    "ahead 5": "'5' is not a duration; allowed: a number and a unit",
    "ahead -5s": "'-5s' is not a duration",
    "ahead 0s": '"0s" is not allowed here; allowed: 100ms to 24h',
    "behind 25h": "'25h' is too long",
    "jumps 2s": '"jumps 2s" is not what becomes of a clock',
    "jumps 2s every 5ms": '"5ms" is not allowed here; allowed: 200ms to 1s',
    "jumps 1ms every 500ms": '"1ms" is not allowed here; allowed: 100ms to 24h',
    "drifts 1x": "a clock cannot be told to run at 1x; allowed: 0.2x to 0.8x, 1.2x to 5x",
    "drifts 0x": "a clock cannot be told to run at 0x",
    "drifts 1.5": '"drifts 1.5" is not what becomes of a clock',
}

milliseconds = st.integers(100, 86_400_000).map(lambda ms: ms / 1000)
rates = st.one_of(st.integers(200, 800), st.integers(1200, 5000)).map(lambda rate: rate / 1000)
faults: st.SearchStrategy[Clock] = st.one_of(
    milliseconds.map(Skew),
    milliseconds.map(lambda seconds: Skew(-seconds)),
    st.builds(Jumps, milliseconds, st.integers(200, 1000).map(lambda ms: ms / 1000)),
    rates.map(Drift),
)


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        clocks.parse(text)
    assert str(caught.value).startswith(WRONG[text]), str(caught.value)


@given(faults)
def test_what_is_written_is_read_back(clock: Clock) -> None:
    assert clocks.parse(str(clock)) == clock


@given(st.text(max_size=30) | st.from_regex(r"(ahead|jumps|drifts) [0-9a-z. ]{0,20}", fullmatch=True))
def test_junk_is_refused_and_breaks_nothing(text: str) -> None:
    try:
        clocks.parse(text)
    except ValueError as problem:
        assert str(problem)


def test_where_each_stands() -> None:
    assert [Skew(-5).offset(since) for since in (0, 100)] == [-5, -5]
    jumps = Jumps(2, 0.5)
    assert [jumps.offset(since) for since in (0, 0.4, 0.6, 1.1)] == [2, 2, 0, 2]
    assert jumps.pause(0.6) == pytest.approx(0.4)
    assert Drift(0.5).offset(4) == -2
    assert Drift(2).pause(0) == clocks.DRIFT_STEP_S


def watch(clock: Clock | None, seed: int, *, error: float, looks: int = 60, from_s: float = 0.0) -> list[Look]:
    """Looks at a clock with this fault (None: one that is right), none of which is as good as it could be."""
    rng = Random(seed)
    found, at = [], 0.0
    for _ in range(looks):
        at += 0.03 + 0.04 * rng.random()
        offset = clock.offset(at + from_s) if clock else 0.0
        blur = error * rng.random()
        found.append(Look(100 + at, offset + (2 * rng.random() - 1) * blur, blur))
    return found


@given(faults, st.integers(0, 10_000))
def test_a_fault_is_seen_and_a_clock_that_is_right_is_not_taken_for_one(clock: Clock, seed: int) -> None:
    wrong, right = watch(clock, seed, error=0.03), watch(None, seed, error=0.03)
    assert is_so(clock, wrong)
    assert not is_so(clock, right)
    assert is_right(clock, right, watched=True)
    assert is_right(clock, right, watched=False)


@given(faults, st.integers(0, 10_000), st.floats(0, 100))
def test_a_fault_that_goes_on_is_never_taken_for_healed(clock: Clock, seed: int, from_s: float) -> None:
    wrong = watch(clock, seed, error=0.03, from_s=from_s + 1)
    assert not any(is_right(clock, wrong[: end + 1], watched=True) for end in range(len(wrong)))


@given(faults, faults, st.integers(0, 10_000))
def test_one_fault_is_not_taken_for_another(asked: Clock, made: Clock, seed: int) -> None:
    looks = watch(made, seed, error=0.002)
    assert is_so(asked, looks) <= alike(asked, made, looks)


def alike(asked: Clock, made: Clock, looks: list[Look]) -> bool:
    """Whether two faults may be told from each other, by as much as a probe promises."""
    match asked, made:
        case Skew(), Skew():
            return abs(asked.seconds - made.seconds) < 0.01
        case Drift(), Drift():
            return abs(asked.rate - made.rate) < 0.3 * abs(asked.rate - 1) + 0.1
        case Jumps(), Jumps():
            return abs(asked.seconds - made.seconds) < 0.01
        case Skew(), _:
            return any(look.shows(asked.seconds) for look in looks)
        case _:
            return not isinstance(made, Skew)


def test_too_little_proves_nothing() -> None:
    blurred = [Look(100 + at, 0.05, 0.2) for at in (0.0, 0.1, 0.2, 0.3)]
    for clock in (Skew(0.1), Jumps(0.1, 0.2), Drift(1.2)):
        assert not is_so(clock, blurred)
        assert not is_so(clock, [])
        assert not is_right(clock, [], watched=False)
    assert not is_right(Skew(0.1), blurred, watched=True)
    assert not is_right(Jumps(2, 1), [Look(100 + at / 10, 0.0, 0.001) for at in range(8)], watched=True)
    assert not is_right(Drift(2), [Look(100, 0.0, 0.001)], watched=True)

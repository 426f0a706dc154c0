"""The register workload: what it draws is decided by the seed, and every value is written once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.history.records import Function, Stat
from harness.load.generator import MIX, Call, RegisterGenerator

PATHS = tuple(f"/r{number}" for number in range(4))


def stat(version: int) -> Stat:
    return Stat(1, 2, 3, version, 0, 0, 5, 0)


def draw(seed: int, process: str = "c1.0", count: int = 300) -> list[Call]:
    generator = RegisterGenerator(process, PATHS, seed)
    calls = []
    for index in range(count):
        calls.append(generator.next(index))
        generator.saw(calls[-1].path, stat(index) if index % 3 else None)
    return calls


@given(st.integers())
def test_the_same_seed_draws_the_same(seed: int) -> None:
    assert draw(seed, count=60) == draw(seed, count=60)


def test_another_seed_or_process_draws_something_else() -> None:
    assert draw(1) != draw(2)
    assert draw(1) != draw(1, process="c1.1")


@given(st.integers())
def test_every_value_is_written_once(seed: int) -> None:
    values = [c.value for p in ("c1.0", "c1.1") for c in draw(seed, p, 100) if c.value is not None]
    assert len(set(values)) == len(values)


@given(st.integers())
def test_only_writes_carry_values_and_only_sets_and_deletes_versions(seed: int) -> None:
    for call in draw(seed, count=100):
        assert (call.value is not None) == (call.function in (Function.CREATE, Function.SET))
        assert call.version is None or call.function in (Function.SET, Function.DELETE)
        assert call.path in PATHS


def test_versions_are_right_ones_mostly_and_wrong_ones_sometimes() -> None:
    generator = RegisterGenerator("p", ("/r",), 0)
    generator.saw("/r", stat(7))
    versions = [generator.next(index).version for index in range(2000)]
    assert versions.count(None) > versions.count(7) > versions.count(1007) > 0
    assert set(versions) == {None, 7, 1007}


def test_no_version_is_insisted_on_before_one_was_seen() -> None:
    generator = RegisterGenerator("p", PATHS, 0)
    assert all(generator.next(index).version is None for index in range(500))


def test_a_missing_znode_is_created_soon() -> None:
    generator = RegisterGenerator("p", ("/r",), 0)
    generator.saw("/r", None)
    drawn = [generator.next(index).function for index in range(500)]
    assert drawn.count(Function.CREATE) > 200
    generator.saw_present("/r")
    drawn = [generator.next(index).function for index in range(500)]
    assert drawn.count(Function.CREATE) < 100


def test_every_function_is_drawn_in_about_its_share() -> None:
    generator = RegisterGenerator("p", PATHS, 0)
    drawn = [generator.next(index).function for index in range(20_000)]
    for function, weight in MIX:
        # five standard deviations of a binomial share
        bound = 5 * (20_000 * weight / 1000 * (1 - weight / 1000)) ** 0.5
        assert abs(drawn.count(function) - 20 * weight) < bound

"""Limits: what their words mean, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.nemesis.kinds import Aim
from harness.nemesis.limits import Limit, parse
from harness.nemesis.targets import check_target
from harness.topology.loader import load_topology

MEANT = {
    "cpu 5%": Limit(cpu=0.05),
    "cpu 1%": Limit(cpu=0.01),
    "cpu 2.5%": Limit(cpu=0.025),
    "cpu 12.34%": Limit(cpu=0.1234),
    "cpu 1000%": Limit(cpu=10.0),
    "memory 16MB": Limit(memory=16 * 2**20),
    "memory 200MB": Limit(memory=200 * 2**20),
    "memory 1024GB": Limit(memory=2**40),
}
WRONG = {
    "": '"" is not a limit; allowed: such as "cpu 5%"',
    "5%": '"5%" is not a limit; allowed: such as',
    "cpu 5": '"cpu 5" is not a limit; allowed: such as',
    "cpu -5%": '"cpu -5%" is not a limit; allowed: such as',
    "cpu 0%": '"cpu 0%" is not a limit; allowed: from cpu 1% to cpu 1000%',
    "cpu 0.99%": '"cpu 0.99%" is not a limit; allowed: from cpu 1%',
    "cpu 1000.01%": '"cpu 1000.01%" is not a limit; allowed: from cpu 1%',
    "memory 200": '"memory 200" is not a limit; allowed: such as',
    "memory 15MB": '"memory 15MB" is not a limit; allowed: from memory 16MB',
    "memory 1025GB": '"memory 1025GB" is not a limit; allowed: from memory 16MB',
    "memory 200MB, cpu 5%": '"memory 200MB, cpu 5%" is not a limit; allowed: such as',
    "cpu \u0665%": '"cpu \u0665%" is not a limit; allowed: such as',
}


@pytest.mark.parametrize("text", MEANT)
def test_what_is_meant(text: str) -> None:
    assert parse(text) == MEANT[text]


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value).startswith(WRONG[text]), str(caught.value)


def test_a_target_is_servers_and_a_limit() -> None:
    topology = load_topology("dual-net")
    check_target(Aim.LIMIT, "a follower:cpu 5%", topology)
    with pytest.raises(ValueError, match='there is no server "zk9"'):
        check_target(Aim.LIMIT, "zk9:cpu 5%", topology)
    with pytest.raises(ValueError, match="is not server:limit"):
        check_target(Aim.LIMIT, "cpu 5%", topology)


@given(
    st.integers(100, 100_000).map(lambda hundredths: Limit(cpu=hundredths / 10_000))
    | st.integers(16, 2**20).map(lambda megabytes: Limit(memory=megabytes * 2**20))
)
def test_what_is_written_is_read_again(limit: Limit) -> None:
    assert parse(str(limit)) == limit


@given(st.text(max_size=30) | st.text(alphabet="cpu memory0123456789.%MGB", max_size=20))
def test_any_words_are_a_limit_or_refused(text: str) -> None:
    try:
        limit = parse(text)
    except ValueError as problem:
        assert "\n" not in str(problem)
    else:
        assert (limit.cpu is None) != (limit.memory is None)

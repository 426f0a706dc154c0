"""Orders and the conversation come through as they were said, however they are cut."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.usermode.order import (
    ANSWERS,
    ORDER_FILE,
    SIGNALS,
    Answer,
    Ended,
    Lines,
    Order,
    Refused,
    Running,
    Screen,
    Signal,
    line,
    read_order,
)
from harness.usermode.supervision import make_order

ANSWER = st.one_of(
    st.builds(Running, st.floats(0, 1e6)), st.builds(Ended, st.integers(0, 255)), st.builds(Refused, st.text())
)


@given(st.lists(ANSWER, max_size=8), st.data())
def test_answers_survive_any_cut(answers: list[Answer], data: st.DataObject) -> None:
    sent = b"".join(line(answer) for answer in answers)
    lines, heard = Lines(), []
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        heard += [ANSWERS.decode(found) for found in lines.feed(sent[:size])]
        sent = sent[size:]
    assert heard == answers


@given(st.lists(st.binary(max_size=200_000), max_size=4))
def test_no_flood_is_kept(chunks: list[bytes]) -> None:
    lines = Lines()
    for chunk in chunks:
        lines.feed(chunk)
    assert len(lines.feed(b"\n")) <= 1


def test_a_signal_is_not_an_answer() -> None:
    said = line(Signal(15))
    assert SIGNALS.decode(said) == Signal(15)
    with pytest.raises(msgspec.ValidationError):
        ANSWERS.decode(said)


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    order = Order(("a b", "'", "é"), "/x y", {"A": "1\n2"}, ("/runs",), Screen(24, 80), None, docker=True)
    (tmp_path / ORDER_FILE).write_bytes(msgspec.json.encode(order))
    assert read_order(tmp_path) == order


def test_an_order_has_the_callers_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZKCHAOS_TEST_MARK", "here")
    monkeypatch.setenv("DOCKER_HOST", "unix:///out/of/reach")
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        order = make_order(["true"], writable=[tmp_path, tmp_path], streams=(null, null))
    finally:
        os.close(null)
    assert (order.directory, order.writable) == (str(tmp_path), (str(tmp_path),))
    assert (order.stdout, order.stderr) == (None, None)
    assert order.environ["ZKCHAOS_TEST_MARK"] == "here"
    assert "DOCKER_HOST" not in order.environ


def test_a_terminals_size_goes_along(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    try:
        os.set_blocking(leader, False)
        assert make_order(["true"], streams=(follower, leader)).stdout is not None
    finally:
        os.close(leader)
        os.close(follower)


def test_an_order_without_a_command_or_with_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no command"):
        make_order([])
    with pytest.raises(UsageError, match="no such folder"):
        make_order(["true"], writable=[tmp_path / "missing"])

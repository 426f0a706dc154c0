"""What is picked from a server's log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent
from harness.report.logs import MAX_LENGTH, MAX_LINES, WallClock, read_log, server_logs
from tests.unit.report.sample import log_text


def write(folder: Path, text: str) -> Path:
    path = folder / "server.log"
    path.write_text(text, encoding="utf-8")
    return path


def test_roles_warnings_and_errors_are_picked_and_repeats_counted(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, log_text(3)), 3, "servers/3/logs/server.log")
    assert [line.kind for line in log.lines] == ["role"] * 4 + ["warn", "error", "role", "warn", "role"]
    assert log.lines[0].when == log.lines[0].wall == "10:15:01.220"
    assert log.lines[7].repeats == 3
    assert (log.errors, log.warnings, log.left_out) == (1, 4, 0)
    assert not any("IOException" in line.text or "nothing" in line.text for line in log.lines)


@pytest.mark.parametrize("hours", [-11, -1, 0, 5.5, 13])
def test_times_are_put_on_the_axis_whatever_the_time_zone(tmp_path: Path, hours: float) -> None:
    began = datetime(2025, 11, 22, 10, 15, 1, tzinfo=UTC)
    offset = 77 * 10**9
    start = round(began.timestamp() * 10**9) - offset
    clock = WallClock(offset, start, start + 2 * 10**9)
    lines = ((0.5, "INFO", "LOOKING"), (5.5, "WARN", "something"))
    text = "".join(
        f"{began + timedelta(hours=hours, seconds=after):%Y-%m-%d %H:%M:%S},500 {level} [main] a.Main - {words}\n"
        for after, level, words in lines
    )
    log = read_log(write(tmp_path, text), 1, "server.log", clock)
    assert [one.when.replace("\u202f", " ") for one in log.lines] == ["\u22121.50 s", "3.50 s"]


def test_lines_are_told_by_logger_and_message_without_the_harness_own_connections(tmp_path: Path) -> None:
    text = (
        "2026-11-22 11:35:56,874 WARN  [QuorumPeer[myid=1](plain=[0:0]:2181)] org.apache.zookeeper.Learner - Got - it\n"
        "2026-11-22 11:35:56,875 WARN  [NIOWorkerThread-1] org.apache.NIOServerCnxn - Close of session 0x0\n"
        "2026-11-22 11:35:56,876 INFO  [QuorumPeer] a.QuorumPeer - Peer state changed: following - broadcast\n"
        "2026-11-22 11:35:56,877 INFO  [QuorumPeer] a.QuorumPeer - Peer state changed: following - discovery\n"
    )
    lines = read_log(write(tmp_path, text), 1, "server.log").lines
    assert [one.text for one in lines] == [
        "WARN Learner: Got - it",
        "INFO QuorumPeer: Peer state changed: following - broadcast",
    ]


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none.log", 1, "none.log").lines == ()


def line(second: int, level: str, text: str) -> str:
    return f"2025-11-22 10:{second // 60 % 60:02}:{second % 60:02},000 [myid:1] - {level} [main:Main@1] - {text}\n"


def test_a_long_log_is_bounded_and_warnings_do_not_crowd_out_roles(tmp_path: Path) -> None:
    words = ("alpha", "beta", "gamma")
    warnings = [line(k, "WARN", f"{words[k % 3]} {'x' * 1000}") for k in range(3000)]
    warnings[1500:1500] = [line(1500, "INFO", "LOOKING"), line(1501, "INFO", "LEADING")]
    log = read_log(write(tmp_path, "".join(warnings)), 1, "server.log")
    assert len(log.lines) <= MAX_LINES
    assert all(len(one.text) <= MAX_LENGTH for one in log.lines)
    assert sum(one.kind == "role" for one in log.lines) == 2
    assert log.left_out + len(log.lines) == 3002
    assert [one.number for one in log.lines] == sorted(one.number for one in log.lines)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["WARN", "ERROR", "INFO"]), st.text(max_size=50)), max_size=120))
def test_any_log_is_read_and_bounded(tmp_path: Path, items: list[tuple[str, str]]) -> None:
    text = "".join(line(k, level, words) for k, (level, words) in enumerate(items))
    path = tmp_path / "server.log"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert len(read_log(path, 1, "server.log").lines) <= MAX_LINES


def test_a_clock_that_was_set_wrong_puts_nothing_on_the_axis(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for server in (1, 2, 3):
        folder.server(server).create()
        (folder.server(server).logs / "server.log").write_text(log_text(server), encoding="utf-8")
    fault = FaultEvent(0, 0, FaultAction.INJECT, "clock", "zk1,zk3:ahead 5s", "all:ahead 5s")
    other = FaultEvent(0, 1, FaultAction.INJECT, "kill", "zk2", "zk2")
    logs = server_logs(folder, WallClock(0, 0, 0), [fault, other])
    assert [log.own_clock for log in logs] == [True, False, True]
    assert [all(line.when == line.wall for line in log.lines) for log in logs] == [True, False, True]

"""Ctrl-C and SIGTERM in the middle of a run: healed, kept, judged, told, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.check.verdict import Overall, load_judgement
from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent, Note, Phase, ProbeEvent
from tests.integration.command_line import Said, command, end, wait_for_line, wait_until_gone

MARK = "ZKCHAOS_TEST_MARK"


@contextmanager
def switch_failure(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run, as the leader of a process group, as a shell starts it."""
    process = subprocess.Popen(
        command("run", "switch-failure", "--seed", "2"),
        cwd=folder,
        env={**os.environ, MARK: str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)
        wait_until_gone(f"{MARK}={folder}")


def said(process: subprocess.Popen[bytes]) -> Said:
    out, err = process.communicate(timeout=60)
    return Said(process.returncode, out.decode(), err.decode())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_healed_kept_and_told(
    number: signal.Signals, tmp_path: Path, namespaces_allowed: None, java: None
) -> None:
    with switch_failure(tmp_path) as process:
        latest = tmp_path / "runs" / "latest"
        wait_for_line(latest / "events.jsonl", '"during"', process)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal tells the whole group
        else:
            process.send_signal(number)
        done = said(process)

    assert (done.code, done.err) == (130, "")
    folder = RunFolder.open(latest)
    events = folder.events()
    actions = [event.action for event in events if isinstance(event, FaultEvent)]
    assert actions == [FaultAction.INJECT, FaultAction.INJECTED, FaultAction.HEAL, FaultAction.HEALED]
    assert [e.bites for e in events if isinstance(e, ProbeEvent)][-1] is False
    assert "the run was interrupted" in [event.text for event in events if isinstance(event, Note)]
    assert isinstance(events[-1], Phase)
    assert (events[-1].name, events[-1].detail) == ("aborted", "interrupted")
    assert len(folder.client_records()) > 50

    assert load_judgement(folder).overall is Overall.BROKEN
    assert folder.report_file.stat().st_size > 10_000
    assert done.out.splitlines()[-3] == "BROKEN"
    assert done.out.splitlines()[-2] == f"page:   {folder.report_file}"


def test_an_interrupt_while_the_servers_come_up(tmp_path: Path, namespaces_allowed: None, java: None) -> None:
    with switch_failure(tmp_path) as process:
        latest = tmp_path / "runs" / "latest"
        wait_for_line(latest / "events.jsonl", '"process"', process)
        process.send_signal(signal.SIGINT)
        done = said(process)
    assert (done.code, done.err) == (130, "")
    assert RunFolder.open(latest).report_file.is_file()

"""A disk that is full: refused before the run, told as what it is in the middle of one; what was seen is kept."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent
from harness.run import LEAST_FREE
from tests.integration.command_line import Said, command, end, wait_for_line, wait_until_gone, zkchaos
from tests.integration.conftest import command as program

#: In a mount namespace of its own: a small disk, a command, and a copy of what the command left there.
SCRIPT = 'mount -t tmpfs -o "size=$1" none "$2" || exit 99; disk=$2; kept=$3; shift 3; "$@"; code=$?; '
SCRIPT += 'rm -f "$disk/filler"; cp -R "$disk/." "$kept"; exit $code'


class SmallDisk:
    """A run on a disk of its own, looked at from outside through the root of the process that made it."""

    def __init__(self, process: subprocess.Popen[bytes], disk: Path, kept: Path) -> None:
        self.process, self.kept = process, kept
        self.seen = Path(f"/proc/{process.pid}/root") / disk.relative_to("/")

    def fill(self) -> None:
        """Leave not one byte."""
        with (self.seen / "filler").open("wb", buffering=0) as filler:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        filler.write(b"\0" * size)
                except OSError:
                    continue

    def end(self) -> Said:
        out, err = self.process.communicate(timeout=120)
        return Said(self.process.returncode, out.decode(), err.decode())


@contextmanager
def small_disk(tmp_path: Path, size: int, *words: str) -> Iterator[SmallDisk]:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    unshare = [program("unshare"), "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    process = subprocess.Popen(
        [*unshare, "/bin/sh", "-c", SCRIPT, "sh", str(size), str(disk), str(kept), *command(*words)],
        cwd=tmp_path,
        env={**os.environ, "ZKCHAOS_RUNS": str(disk), "ZKCHAOS_TEST_MARK": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield SmallDisk(process, disk, kept)
    finally:
        end(process)
        wait_until_gone(f"ZKCHAOS_TEST_MARK={tmp_path}")


def test_a_disk_that_is_too_small_is_refused_at_once(tmp_path: Path, namespaces_allowed: None, java: None) -> None:
    with small_disk(tmp_path, LEAST_FREE - 2**20, "run", "switch-failure") as place:
        said = place.end()
    line = said.complaint(3)
    assert str(tmp_path / "disk") in line
    assert "63 MB are free" in line
    assert "64 MB" in line
    assert "nothing was started" in line
    assert said.out == ""
    assert list(place.kept.iterdir()) == []


@pytest.mark.parametrize("moment", ['"phase"', '"injected"'])
def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_seen(
    tmp_path: Path, namespaces_allowed: None, java: None, moment: str
) -> None:
    """Once while the servers come up, once while a switch is down under load."""
    with small_disk(tmp_path, LEAST_FREE + 16 * 2**20, "run", "switch-failure", "--seed", "3") as place:
        wait_for_line(place.seen / "latest" / "events.jsonl", moment, place.process)
        place.fill()
        said = place.end()
    line = said.complaint(3)
    assert str(tmp_path / "disk") in line
    assert "no space is left" in line or "the disk is full" in line
    assert "what was written is kept" in line

    (root,) = (path for path in place.kept.iterdir() if not path.is_symlink())
    folder = RunFolder.open(root)
    assert folder.scenario().seed == 3
    events = folder.events()
    assert events
    if moment == '"injected"':
        actions = [event.action for event in events if isinstance(event, FaultEvent)]
        assert actions[:2] == [FaultAction.INJECT, FaultAction.INJECTED]
        assert len(folder.client_records()) > 50
    judged = zkchaos("check", str(root), cwd=tmp_path)
    assert judged.code in (2, 3)
    assert judged.err == ""

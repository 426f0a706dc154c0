"""Runs `zkchaos` as a process of its own, as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    def complaint(self, code: int) -> str:
        """The one line on stderr of a command that ended with that code; fails if there is more or less."""
        lines = self.err.splitlines()
        assert self.code == code, (self.code, self.err)
        assert len(lines) == 1, self.err
        assert lines[0].startswith("zkchaos: "), lines[0]
        assert "Traceback" not in self.out
        return lines[0].removeprefix("zkchaos: ")


def command(*words: str, prelude: str = "pass") -> list[str]:
    """The command line; `prelude` is Python that comes before it, to take something away from it."""
    return [sys.executable, "-c", f"{prelude}\nfrom harness.cli import main\nmain()", *words]


def zkchaos(
    *words: str,
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    prelude: str = "pass",
    timeout: float = 120,
) -> Said:
    """Run it to its end."""
    done = subprocess.run(
        command(*words, prelude=prelude),
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def living(marker: str) -> list[str]:
    """The command lines of living processes that have this text in their environment, this very process left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if marker.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_text().replace("\0", " ")[:150])
            except OSError:
                continue  # it ended while it was looked at
    return found


def wait_until_gone(marker: str, seconds: float = 10.0) -> None:
    """Wait until none is left; fails with those that are."""
    deadline = time.monotonic() + seconds
    while left := living(marker):
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.02)


def wait_for_line(file: Path, text: str, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    """Wait until a file has this text, while the process that writes it lives."""
    deadline = time.monotonic() + seconds
    while not (file.is_file() and text in file.read_text(errors="replace")):
        assert process.poll() is None, f"it ended with code {process.returncode} before {text!r}"
        assert time.monotonic() < deadline, f"{file} has no {text!r}"
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Be rid of a process that a failed test may have left."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()

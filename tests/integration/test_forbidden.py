"""Where namespaces are forbidden, one line says what to enable, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import command

#: A user namespace of its own, in which the limit can be set without touching the machine's.
_LIMITS = ("max_net_namespaces", "max_pid_namespaces")


@pytest.mark.parametrize("limit", _LIMITS)
def test_the_error_says_what_to_enable(namespaces_allowed: None, java: None, tmp_path: Path, limit: str) -> None:
    runs = tmp_path / "runs"
    script = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    words = [sys.executable, "-m", "harness.cli", "run", "no-faults", "--runs", str(runs)]
    done = subprocess.run(
        [command("unshare"), "--user", "--map-root-user", "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1
    assert "refuses the namespaces" in done.stderr
    assert f"/proc/sys/user/{limit} is 0" in done.stderr
    assert f"sysctl -w user.{limit}=" in done.stderr
    assert not runs.exists()

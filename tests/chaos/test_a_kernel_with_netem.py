"""Every fault alone, and every mixture, once more: in a user-mode kernel, which has netem and no nftables for IPv4."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.usermode.machine import inside

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(1500)]

#: What that kernel has, whatever this machine lacks; of the rest nobody may demand that it is there, too.
THERE = {"namespaces", "java", "netem", "fuse", "cgroups"}
FROM_HERE = {"faketime", "toxiproxy", "zookeeper", "distributions"}


@pytest.mark.parametrize("part", ["test_mixtures.py", "test_every_fault.py"])
def test_all_of_it(part: str, usermode: None, java: None, tmp_path: Path) -> None:
    if inside():
        pytest.skip("this is that kernel")
    required = THERE | (FROM_HERE & set(os.environ.get("ZKCHAOS_REQUIRE", "").split(",")))
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(part))]
    words = ["usermode", "--runs", str(tmp_path), "--memory", "3072", "--", *tests]
    done = subprocess.run(
        [sys.executable, "-c", "from harness.cli import main; main()", *words],
        env={**os.environ, "ZKCHAOS_REQUIRE": ",".join(sorted(required))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert " passed" in done.stdout

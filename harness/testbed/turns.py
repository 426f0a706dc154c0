"""One after the other: whoever wants the same subnets of the same engine takes turns.

An engine gives a subnet to one network only, and the addresses of a topology are fixed (see `subnets`). A run whose
subnets are taken ends with an error; tests, of which several may run at the same time, wait for each other instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
from filelock import FileLock, Timeout

from harness.errors import TestbedError
from harness.testbed.refusals import refusals

#: How long to wait for a turn, seconds: some tests of some minutes.
_PATIENCE = 900.0


@contextlib.contextmanager
def turn(client: docker.DockerClient, patience: float = _PATIENCE) -> Iterator[None]:
    """Have the engine's subnets for the length of a `with` block, among all of this user who ask in this way.

    Raises:
        TestbedError: others had them for `patience` seconds.
    """
    with refusals("the engine's id"):
        name = re.sub(r"[^\w-]", "", str(client.info().get("ID")), flags=re.ASCII)
    path = Path(tempfile.gettempdir(), f"zkchaos-{os.getuid()}-{name}.lock")
    try:
        with FileLock(path, timeout=patience):
            yield
    except Timeout as problem:
        raise TestbedError(
            f"another test on the same Docker engine has not ended within {patience:g} s",
            where=str(path),
            next_step="end it, or run the tests on Docker one after the other",
        ) from problem

"""`zkchaos usermode`: what a command in a user-mode kernel may write to, and the same command line once more inside."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import RunFolderError, UsageError
from harness.scenario import Request
from harness.stage.make import docker_missing
from harness.stage.namespaces import Software
from harness.stage.stage import Tell, versions_of
from harness.topology.proxies import proxies_of
from harness.toxiproxy.program import ensure_program
from harness.usermode.machine import DEFAULT_MEMORY_MB
from harness.usermode.supervision import DEFAULT_DEADLINE_S, make_order, run_in_guest


def run_inside(
    command: Sequence[str],
    runs: Path,
    writable: Sequence[Path] = (),
    *,
    memory_mb: int = DEFAULT_MEMORY_MB,
    deadline_s: float = DEFAULT_DEADLINE_S,
    docker: bool = False,
) -> int:
    """Run a command in a guest that may write to the runs and to the folders named, and nowhere else; its exit code.

    Raises:
        UsageError: a folder or a bound is wrong.
        EnvironmentLacking: this machine lacks something.
        TestbedError: the kernel failed, or the deadline has passed.
    """
    environ = {**os.environ, "ZKCHAOS_RUNS": str(runs.absolute())}
    with _made(runs.absolute()):
        folders = (runs.absolute(), *(folder.absolute() for folder in writable))
        order = make_order(command, writable=folders, environ=environ, docker=docker)
        return run_in_guest(order, memory_mb=memory_mb, deadline_s=deadline_s).code


def run_again_inside(request: Request, runs: Path, tell: Tell) -> int:
    """Perform this process's own command line in a guest; its exit code.

    What it takes from the cache is seen to first: the guest has no network, and leaves nothing there. On a Docker
    engine, which is the guest's own, its images are made of that.

    Raises:
        EnvironmentLacking: this machine lacks something.
        UsageError: the helper container is asked for.
        TestbedError: the kernel failed.
    """
    # the same harness and the same Python, however this one was started
    program, words = "from harness.cli import main; main()", sys.argv[1:]
    testbed = request.scenario.testbed
    if testbed == "docker-helper":
        raise UsageError("everybody is root in the guest", where="--testbed", next_step="--testbed docker")
    if testbed == "docker":
        try:
            from harness.usermode_images import fetch_all  # noqa: PLC0415  # the engine's SDK is an extra
        except ModuleNotFoundError as missing:
            raise docker_missing(missing) from missing
        versions = sorted(set(versions_of(request.topology).values()))
        fetch_all(versions, tell)
        program = f"from harness.usermode_images import put_all; put_all(); {program}"
        words = [",".join(versions), *words]
        if proxies_of(request.topology):
            ensure_program(tell)
    else:
        Software(request.topology, tell)
    return run_inside([sys.executable, "-c", program, *words], runs, docker=testbed == "docker")


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Have a folder that the guest may write to; leave none behind that it did not use."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RunFolderError(problem.strerror or str(problem), where=str(folder)) from problem
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is used
            for path in missing:
                path.rmdir()

"""The keeper ends what it keeps: at its end, at the deadline, on SIGTERM, and when the caller is gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.usermode import keeper

#: Leads a group of its own with a helper in it, as a kernel does, and tells who they are.
KERNEL = "exec setsid bash -c 'sleep 1000 & echo $$ $! >&{out}; wait'"


@contextmanager
def kept(
    *command: str, deadline: float = 60, farewell: float = 60
) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A keeper, the end of the pipe that shows that its caller lives, and one that its kernel writes to."""
    alive, ours = os.pipe()
    said, saying = os.pipe()
    words = [word.replace("{out}", str(saying)) for word in command]
    limits = (str(deadline), str(farewell), str(alive))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", keeper.__file__, *limits, *words], pass_fds=(alive, saying), start_new_session=True
    )
    os.close(alive)
    os.close(saying)
    try:
        yield process, ours, said
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(said)


def members(said: int) -> list[int]:
    """The kernel and its helper."""
    return [int(word) for word in os.read(said, 100).split()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_kernels(script: str, code: int) -> None:
    with kept("sh", "-c", script) as (process, ours, _said):
        assert process.wait(timeout=20) == code
        os.close(ours)


def test_the_deadline() -> None:
    with kept("bash", "-c", KERNEL, deadline=0.5) as (process, ours, said):
        found = members(said)
        assert process.wait(timeout=20) == 137
        wait_until_gone(found)
        os.close(ours)


def test_sigterm() -> None:
    with kept("bash", "-c", KERNEL) as (process, ours, said):
        found = members(said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 137
        wait_until_gone(found)
        os.close(ours)


def test_the_caller_is_gone() -> None:
    with kept("bash", "-c", KERNEL, farewell=0.3) as (process, ours, said):
        found = members(said)
        assert process.poll() is None
        os.close(ours)
        assert process.wait(timeout=20) == 137
        wait_until_gone(found)


def test_the_kernel_alone_holds_its_pipes() -> None:
    with kept("bash", "-c", "echo done >&{out}; exec {out}>&-; sleep 1000") as (process, ours, said):
        assert os.read(said, 100) == b"done\n"
        assert os.read(said, 100) == b""  # while the keeper lives
        assert process.poll() is None
        os.close(ours)


def test_the_kernel_and_all_its_helpers_stay_on_one_processor() -> None:
    with kept("bash", "-c", KERNEL) as (_process, ours, said):
        found = [os.sched_getaffinity(pid) for pid in members(said)]
        os.close(ours)
    assert len(found) == 2
    assert found[0] == found[1] <= os.sched_getaffinity(0)
    assert len(found[0]) == 1

"""What a fault does again and again while it lasts: a thread that ends when the fault is healed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import FaultError, ZkChaosError

#: How long one turn may take to end once it is asked to, seconds: a server's start and stop at the longest.
_FAREWELL = 20.0
#: Seconds between two looks at whether somebody else has let go of the lock.
_POLL = 0.01


class Background:
    """Runs `turns` of a fault until it is stopped.

    Whoever heals holds the lock of what faults hold, and waits for the thread to end; so the thread never waits for
    that lock without looking whether it shall end.

    Args:
        name: of the thread, for people.
        lock: taken by whoever changes what faults hold.
    """

    def __init__(self, name: str, lock: threading.RLock) -> None:
        self._name, self._lock = name, lock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: ZkChaosError | None = None

    def start(self, turns: Iterator[float]) -> None:
        """Take turns: each says how long to wait until the next one, in seconds, and is taken with the lock held."""
        self._thread = threading.Thread(target=self._run, args=(turns,), name=f"zkchaos-{self._name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended it early.

        Raises:
            ZkChaosError: a turn failed.
        """
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        """End it, and wait until it has ended. Idempotent.

        Raises:
            FaultError: its last turn does not end.
        """
        self._stopping.set()
        if self._thread is None:
            return
        self._thread.join(_FAREWELL)
        if self._thread.is_alive():
            raise FaultError(f"a turn of it has not ended within {_FAREWELL:g} s", where=self._name)

    def _run(self, turns: Iterator[float]) -> None:
        try:
            while not self._stopping.is_set():
                with self._turn() as mine:
                    wait = next(turns, None) if mine else 0.0
                if wait is None:
                    return
                self._stopping.wait(wait)
        except ZkChaosError as problem:
            self._problem = problem

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """With the lock held; False where it shall end before it came to that."""
        while not (mine := self._lock.acquire(blocking=False)) and not self._stopping.is_set():
            time.sleep(_POLL)  # waits for the lock or the end, whichever is first
        try:
            yield mine
        finally:
            if mine:
                self._lock.release()

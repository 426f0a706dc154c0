"""What the register workload does next: a pure function of the seed and of what the client has seen.

Each value is written once in a run, so a read names the write that it saw.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.history.records import Function, Stat

#: Share of each function in a thousand operations. Half are writes, so that an outage of writes is seen at once.
MIX: tuple[tuple[Function, int], ...] = (
    (Function.SET, 450),
    (Function.GET, 300),
    (Function.SYNC_GET, 100),
    (Function.CREATE, 50),
    (Function.EXISTS, 60),
    (Function.DELETE, 40),
)
#: Of sets and deletes, the share that insists on a version, and of those the share that insists on a wrong one.
_CHECKED = 0.4
_WRONG = 0.1
#: Of the operations on a znode that was last seen missing, the share that create it instead.
_REVIVED = 0.5


@dataclass(frozen=True)
class Call:
    """An operation to carry out. `value` and `version` as in `records.Invoke`."""

    function: Function
    path: str
    value: str | None = None
    version: int | None = None


class RegisterGenerator:
    """Draws operations for one client process.

    Args:
        process: its name; it makes the values unique.
        paths: the znodes that all clients share.
        seed: the run's seed; with the process's name it determines every draw.
    """

    def __init__(self, process: str, paths: tuple[str, ...], seed: int) -> None:
        self._process = process
        self._paths = paths
        self._random = random.Random(f"{seed}/{process}")
        self._functions = [function for function, _weight in MIX]
        self._weights = [weight for _function, weight in MIX]
        #: The version last seen of each path; absent if the znode was last seen missing, or not yet seen.
        self._versions: dict[str, int] = {}
        #: The paths last seen missing.
        self._missing: set[str] = set()

    def next(self, index: int) -> Call:
        """The operation with this index."""
        (function,) = self._random.choices(self._functions, self._weights)
        path = self._random.choice(self._paths)
        if path in self._missing and self._random.random() < _REVIVED:
            function = Function.CREATE
        match function:
            case Function.CREATE:
                return Call(function, path, value=f"{self._process}:{index}")
            case Function.SET:
                return Call(function, path, value=f"{self._process}:{index}", version=self._version(path))
            case Function.DELETE:
                return Call(function, path, version=self._version(path))
            case _:
                return Call(function, path)

    def _version(self, path: str) -> int | None:
        checked, wrong = self._random.random() < _CHECKED, self._random.random() < _WRONG
        seen = self._versions.get(path)
        if not checked or seen is None:
            return None
        return seen + 1000 if wrong else seen

    def saw(self, path: str, stat: Stat | None) -> None:
        """Tell it the outcome of an operation: the znode's Stat, or None where it does not exist."""
        if stat is None:
            self._versions.pop(path, None)
            self._missing.add(path)
        else:
            self._versions[path] = stat.version
            self._missing.discard(path)

    def saw_present(self, path: str) -> None:
        """Tell it that a znode exists, in whatever version."""
        self._missing.discard(path)

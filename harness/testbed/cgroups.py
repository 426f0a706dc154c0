"""Control groups of servers: what their processes get of the processor and of memory, and what the kernel counts.

A group's folder is on this machine, not in the agent's namespaces, and would outlive them: so a keeper process is
started before the first one is made (see `group_keeper`), and what an earlier run has left, whose keeper was killed
too, is removed by the next one. Who may make groups, and where, see `group_places`.
"""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.errors import TestbedError
from harness.testbed.group_keeper import GroupKeeper
from harness.testbed.group_places import CPU, GIVES, MEMORY, Places
from harness.testbed.handles import Limits, Pressure
from harness.testbed.owners import Life, Owner, life_of

#: The kernel's usual period: so often it looks whether a group has used what it may, microseconds.
_PERIOD_US = 100_000
_PAGE = 4096
#: How often memory is limited to what is in use, where the use changes meanwhile.
_ATTEMPTS = 20
#: How long the processes of a group may take to be gone when they have been killed, and a look at it, seconds.
_EMPTY_TIMEOUT, _POLL = 5.0, 0.01

_NAME = re.compile(r"zkchaos-(\d{1,20})-(\d{1,7})-(\d{1,20})-", re.ASCII)


class Groups:
    """The groups of one testbed's servers, one for each host and hierarchy.

    Args:
        places: where they can be made.
    """

    def __init__(self, places: Places) -> None:
        self._places = places.found
        here = Owner.of_this_process()
        self._prefix = f"zkchaos-{here.space[5:-1]}-{here.pid}-{here.start}-{secrets.token_hex(3)}-"
        self._keeper: GroupKeeper | None = None
        self._made: dict[str, dict[str, _Group]] = {}
        self._asked: dict[str, Limits] = {}

    def make(self, host: str) -> None:
        """Make the groups of a host, without a limit. Idempotent.

        Raises:
            TestbedError: the kernel refused.
        """
        if host in self._made:
            return
        if self._keeper is None:
            self._begin()
        folders = {name: place.folder / f"{self._prefix}{host}" for name, place in self._places.items()}
        for folder in folders.values():
            try:
                folder.mkdir(exist_ok=True)  # of the second version it is the same for both controllers
            except OSError as problem:
                raise TestbedError(f"cannot make a control group: {problem.strerror}", where=str(folder)) from problem
        kinds = {CPU: (_FirstCpu, _SecondCpu), MEMORY: (_FirstMemory, _SecondMemory)}
        self._made[host] = {n: kinds[n][self._places[n].version - 1](f) for n, f in folders.items()}

    def _begin(self) -> None:
        folders: dict[Path, list[str]] = {place.folder: [] for place in self._places.values()}
        for name, place in self._places.items():
            if place.closed:
                folders[place.folder].append(name)
        for folder in folders:
            _remove_left(folder)
        self._keeper = GroupKeeper.start(self._prefix, folders)
        for folder, controllers in folders.items():
            for controller in controllers:
                _write(folder / GIVES, f"+{controller}")

    def has(self, host: str) -> bool:
        """Whether its groups were made."""
        return host in self._made

    def entrances(self, host: str) -> tuple[str, ...]:
        """The files that the pid of a new process of the host is written to. To be called before each start."""
        if host not in self._made:
            return ()
        self.limit(host, self._asked.get(host, Limits()))  # of a process that is gone, less may have been possible
        return tuple(dict.fromkeys(str(group.folder / "cgroup.procs") for group in self._made[host].values()))

    def limit(self, host: str, limits: Limits) -> None:
        """Let its processes have so much and no more.

        Raises:
            TestbedError: the kernel refused.
        """
        self._asked[host] = limits
        for name, group in self._made[host].items():
            try:
                group.limit(limits)
            except OSError as problem:
                what = f"the kernel refuses to limit {name}: {problem.strerror}"
                raise TestbedError(what, where=str(group.folder)) from problem

    def pressure(self, host: str) -> Pressure:
        """What the kernel has counted, and what limits hold.

        Raises:
            TestbedError: the groups are gone.
        """
        counted = Pressure()
        for group in self._made[host].values():
            try:
                counted = group.add_to(counted)
            except OSError as problem:
                raise TestbedError("the control group is gone", where=str(group.folder)) from problem
        return counted

    def close(self) -> None:
        """Remove them; their processes have been killed. Idempotent.

        Raises:
            TestbedError: there are processes in one that do not end.
        """
        made, self._made = self._made, {}
        try:
            for folder in {group.folder for groups in made.values() for group in groups.values()}:
                _remove(folder)
        finally:
            if self._keeper is not None:
                self._keeper.close()
                self._keeper = None


class _Group:
    """One host's group in one hierarchy, as far as one controller is concerned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def limit(self, limits: Limits) -> None:
        """Write what of it is this controller's; OSError as the kernel refuses."""
        raise NotImplementedError

    def add_to(self, counted: Pressure) -> Pressure:
        """Read what of it is this controller's."""
        raise NotImplementedError

    def _write(self, name: str, value: int | str) -> None:
        (self.folder / name).write_text(str(value), encoding="ascii")

    def _read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="ascii").strip()

    def _table(self, name: str) -> Mapping[str, int]:
        return {word: int(number) for word, number in (line.split() for line in self._read(name).splitlines())}


class _FirstCpu(_Group):
    def limit(self, limits: Limits) -> None:
        self._write("cpu.cfs_period_us", _PERIOD_US)
        self._write("cpu.cfs_quota_us", -1 if limits.cpu is None else round(limits.cpu * _PERIOD_US))

    def add_to(self, counted: Pressure) -> Pressure:
        table, quota = self._table("cpu.stat"), int(self._read("cpu.cfs_quota_us"))
        share = quota / int(self._read("cpu.cfs_period_us")) if quota > 0 else None
        return replace(counted, cpu=share, periods=table["nr_periods"], throttled=table["nr_throttled"])


class _SecondCpu(_Group):
    def limit(self, limits: Limits) -> None:
        quota = "max" if limits.cpu is None else round(limits.cpu * _PERIOD_US)
        self._write("cpu.max", f"{quota} {_PERIOD_US}")

    def add_to(self, counted: Pressure) -> Pressure:
        table, (quota, period) = self._table("cpu.stat"), self._read("cpu.max").split()
        share = None if quota == "max" else int(quota) / int(period)
        return replace(counted, cpu=share, periods=table["nr_periods"], throttled=table["nr_throttled"])


class _FirstMemory(_Group):
    """Here the kernel refuses a limit below what is in use, and cannot be taken back."""

    def limit(self, limits: Limits) -> None:
        # A process that is swapped out is slow, which is another fault: what is in swap counts, too; where there
        # is none, not: of both together this kernel does not tell how often they were not enough.
        with_swap = (self.folder / "memory.memsw.limit_in_bytes").exists() and _is_swapping()
        if with_swap:
            self._write("memory.memsw.limit_in_bytes", -1)
        self._write("memory.limit_in_bytes", -1)
        if limits.memory is not None:
            self._lower("memory", limits.memory)
            if with_swap:
                self._lower("memory.memsw", int(self._read("memory.limit_in_bytes")))

    def _lower(self, name: str, size: int) -> None:
        """As far as the kernel does it: what is in use already is all there is, and the next byte is too much."""
        limit, in_use = f"{name}.limit_in_bytes", f"{name}.usage_in_bytes"
        for attempt in range(_ATTEMPTS):
            wanted = size if attempt == 0 else max(size, -(-int(self._read(in_use)) // _PAGE) * _PAGE)
            try:
                self._write(limit, wanted)
            except OSError as problem:
                if problem.errno != errno.EBUSY or attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return

    def add_to(self, counted: Pressure) -> Pressure:
        limit = int(self._read("memory.limit_in_bytes"))
        return replace(
            counted,
            memory=None if limit >= 2**62 else limit,
            in_use=int(self._read("memory.usage_in_bytes")),
            refused=int(self._read("memory.failcnt")),
            killed=self._table("memory.oom_control").get("oom_kill", 0),
        )


class _SecondMemory(_Group):
    """Here a limit below what is in use has the kernel take back what it can, and then kill."""

    def limit(self, limits: Limits) -> None:
        if (self.folder / "memory.swap.max").exists():
            self._write("memory.swap.max", "max" if limits.memory is None else 0)
        self._write("memory.max", "max" if limits.memory is None else limits.memory)

    def add_to(self, counted: Pressure) -> Pressure:
        table, limit = self._table("memory.events"), self._read("memory.max")
        return replace(
            counted,
            memory=None if limit == "max" else int(limit),
            in_use=int(self._read("memory.current")),
            refused=table["max"],
            killed=table["oom_kill"],
        )


def _is_swapping() -> bool:
    return len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) > 1


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="ascii")
    except OSError as problem:
        raise TestbedError(f"the kernel refuses {text}: {problem.strerror}", where=str(file)) from problem


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _EMPTY_TIMEOUT
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as problem:  # EBUSY: a process that was killed is not yet gone
            if time.monotonic() > deadline:
                raise TestbedError(f"cannot remove a control group: {problem.strerror}", where=str(folder)) from problem
            time.sleep(_POLL)
        else:
            return


def _remove_left(folder: Path) -> None:
    """Remove what runs have left whose owners are dead for certain. The kernel removes no group with processes."""
    here = Owner.of_this_process()
    for group in folder.glob("zkchaos-*"):
        if match := _NAME.match(group.name):
            owner = Owner(here.machine, here.boot, f"pid:[{match[1]}]", int(match[2]), int(match[3]))
            if life_of(str(owner), here) is Life.DEAD:
                with contextlib.suppress(OSError):
                    group.rmdir()

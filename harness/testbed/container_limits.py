"""What a container gets of the processor and of memory, by the engine: the control group is the container's own.

The engine remembers what was set, also over the container's end and next start. Only of containers that the harness
made, which have no limits of their own: those of somebody else's would be lost if the harness were killed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import docker
import msgspec
from docker.errors import APIError
from docker.models.containers import Container

from harness.testbed.handles import Limits, Pressure
from harness.testbed.refusals import refusals

_PERIOD_US, _PAGE = 100_000, 4096
#: No limit. The engine takes 0 for "as it is", and has no word for all memory; no machine has so much.
_ALL_CPU, _ALL_MEMORY = -1, 2**60
#: How often memory is limited to what is in use, where the use changes meanwhile.
_ATTEMPTS = 5
#: The engine's word where a limit is below what is in use, and cannot be.
_IN_USE = "current usage"
#: Its words where a container has ended and it has not noticed yet; how long it may take to, and how often it is asked,
#: seconds.
_NOT_NOTICED = ("stopped container", "not running")
_NOTICES_WITHIN, _POLL = 10.0, 0.05


class _Throttling(msgspec.Struct, frozen=True):
    periods: int = 0
    throttled_periods: int = 0


class _Cpu(msgspec.Struct, frozen=True):
    throttling_data: _Throttling = _Throttling()


class _Memory(msgspec.Struct, frozen=True):
    usage: int = 0
    failcnt: int = 0


class _Stats(msgspec.Struct, frozen=True):
    """What the engine says of a container, as far as it matters here. Of one that does not run there is nothing."""

    cpu_stats: _Cpu
    memory_stats: _Memory


def lacking(client: docker.DockerClient) -> Mapping[str, str]:
    """Which of `cpu` and `memory` the engine's kernel does not limit, and why.

    Raises:
        TestbedError: the engine refused.
    """
    with refusals("the engine"):
        info = client.info()
    able = {"cpu": info.get("CpuCfsQuota", info.get("CPUCfsQuota")), "memory": info.get("MemoryLimit")}
    return {name: "the engine says that its kernel does not" for name in able if not able[name]}


class ContainerLimits:
    """The limits of one container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._limits = Limits()

    def set(self, limits: Limits) -> None:
        """Let it have no more than that.

        Raises:
            TestbedError: the engine refused.
        """
        with refusals(str(self._container.name)):
            if limits.cpu != self._limits.cpu:
                quota = _ALL_CPU if limits.cpu is None else round(limits.cpu * _PERIOD_US)
                self._update(cpu_quota=quota, cpu_period=_PERIOD_US)
            if limits.memory != self._limits.memory:
                self._set_memory(_ALL_MEMORY if limits.memory is None else limits.memory)
        self._limits = limits

    def renew(self) -> None:
        """Before a new start: of the process that is gone, less may have been possible than was asked for.

        Raises:
            TestbedError: the engine refused.
        """
        if self._limits.memory is not None:
            with refusals(str(self._container.name)):
                self._set_memory(self._limits.memory)

    def _set_memory(self, size: int) -> None:
        """As far as the kernel does it: with control groups of the first version, not below what is in use."""
        for attempt in range(_ATTEMPTS):
            wanted = size
            if attempt:
                wanted = max(size, -(-self._counted().memory_stats.usage // _PAGE) * _PAGE)
            try:
                # no swap: a process that is swapped out is slow, which is another fault
                self._update(mem_limit=wanted, memswap_limit=wanted)
            except APIError as problem:
                if _IN_USE not in str(problem) or attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return

    def _update(self, **values: int) -> None:
        deadline = time.monotonic() + _NOTICES_WITHIN
        while True:
            try:
                self._container.update(**values)
            except APIError as problem:
                if not any(word in str(problem) for word in _NOT_NOTICED) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
            else:
                return

    def pressure(self) -> Pressure:
        """What the kernel has counted, and what limits hold.

        Raises:
            TestbedError: the engine refused.
        """
        with refusals(str(self._container.name)):
            counted = self._counted()
            self._container.reload()
        config, state = self._container.attrs["HostConfig"], self._container.attrs["State"]
        quota, limit = int(config["CpuQuota"] or 0), int(config["Memory"] or 0)
        throttling, memory = counted.cpu_stats.throttling_data, counted.memory_stats
        return Pressure(
            cpu=quota / _PERIOD_US if quota > 0 else None,
            memory=limit if 0 < limit < _ALL_MEMORY else None,
            periods=throttling.periods,
            throttled=throttling.throttled_periods,
            in_use=memory.usage,
            refused=memory.failcnt,
            killed=int(bool(state["OOMKilled"])),
        )

    def _counted(self) -> _Stats:
        return msgspec.convert(self._container.stats(stream=False, one_shot=True), _Stats)

"""Servers that get little of the processor, or of memory, proved by what the kernel counts of them.

Both are made of control groups: a container's own, or ones that are made for servers on this machine where that is
allowed. Where it is not, the processor is taken away by signals: the process runs for its share of every 100 ms, and is
stopped by SIGSTOP for the rest of it. That is a share of the time, not of a core: with two cores and threads that can
use both it gets twice as much. Memory cannot be taken away so, and its limit is refused there.

A server that does nothing does not feel a limit. So while it is looked at, it is asked many admin words at a time, and
what the kernel counts meanwhile is what is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.errors import KernelLacking
from harness.history.records import Measurement
from harness.nemesis.background import Background
from harness.nemesis.holds import Hold
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.limits import Limit, parse
from harness.nemesis.lives import GONE
from harness.nemesis.plan import Step
from harness.nemesis.targets import server_ids, target_parts
from harness.nemesis.world import Fault, Probe, World
from harness.testbed.handles import Limits, Pressure
from harness.zookeeper import admin

#: How long a server is kept busy for a look, in how many conversations at a time, and how long those may take, seconds.
_LOOK, _TOGETHER, _ANSWER = 0.4, 8, 0.1
_LAST_CHANCE = 3.0
#: The processor by signals: the period, and how often it is looked at whether a process is stopped, seconds; not a
#: fraction of the period.
_PERIOD, _GLANCE = 0.1, 0.007
#: It is stopped for so much at least of the time that it should be.
_ENOUGH = 0.5
_STOPPED = "T"
_MB = 2**20


@dataclass(frozen=True)
class _Looked:
    """What was seen of one server while it was kept busy."""

    before: Pressure
    after: Pressure
    alive: bool
    #: Bursts of words that it was asked, and those that it had answered in time.
    asked: int = 0
    answered: int = 0


class LimitFault(Fault):
    """Servers that get less than they want."""

    #: A server that is starved answers late, and one that has memory left must want more first.
    slow_to_bite = 12.0
    #: It is told by how fast a server answers, and other faults on the same processors delay that while they last.
    slow_to_settle = 8.0

    def __init__(self, fault_id: int, kind: str, target: str, world: World) -> None:
        super().__init__(fault_id, kind, target)
        part, manner = target_parts(Aim.LIMIT, target)
        self._world, self._servers, self._limit = world, server_ids(part), parse(manner)
        refusals = world.testbed.limit_refusals()
        refuse_limit(self._limit, refusals, self.name)
        self._by_signals = self._limit.cpu is not None and "cpu" in refusals
        self._background = Background(self.name, world.lock)
        self._hosts = {server: world.topology.server(server).host for server in self._servers}
        #: What had been counted when it was injected.
        self._begun: dict[int, Pressure] = {}
        self._on = False

    def inject(self) -> None:
        """Let every server of the target have no more."""
        self._on = True
        for server, host in self._hosts.items():
            self._begun[server] = self._world.testbed.pressure(host)
            self._world.servers.hold(self.id, server, Hold.RESTLESS)
            if not self._by_signals:
                self._world.limits.hold(self.id, host, Limits(self._limit.cpu, self._limit.memory))
        if self._by_signals:
            self._background.start(self._turns())

    def heal(self) -> None:
        """Let them have what they had before, and start again whom the kernel has killed.

        Raises:
            ZkChaosError: the kernel refused.
        """
        self._on = False
        try:
            self._background.stop()
        finally:
            for server, host in self._hosts.items():
                if not self._by_signals:
                    self._world.limits.release(self.id, host)
                self._world.servers.release(self.id, server)
        self._background.check()

    def probe(self) -> Probe:
        """Keep each server busy, and read what the kernel counts meanwhile."""
        self._background.check()
        free = [server for server in self._servers if not self._is_foreign(server)]
        if not free:
            return Probe(self._on, "every server of it is held by another fault")
        look = self._watch if self._by_signals else self._measure_memory if self._limit.memory else self._measure_cpu
        verdicts, measurements = set[bool | None](), list[Measurement]()
        for server in free:
            verdict, text = look(server)
            verdicts.add(verdict)
            measurements.append(
                Measurement(f"{self._hosts[server]} with {self._limit}", text, healthy=verdict is False)
            )
        bites = verdicts.pop() if len(verdicts) == 1 else None
        return Probe(bites, "; ".join(f"{m.what}: {m.found}" for m in measurements), tuple(measurements))

    # --- looking ---------------------------------------------------------------------------------------------

    def _is_foreign(self, server: int) -> bool:
        """Another fault has it down or paused, or limits it too and this one has let go."""
        others = self._world.servers.kinds(server, but=self.id)
        if {Hold.DOWN, Hold.PAUSED} & others:
            return True
        return not self._on and bool(self._world.limits.held(self._hosts[server], but=self.id))

    def _keep_busy(self, server: int) -> _Looked:
        """Ask it one burst of words after the other."""
        host, testbed = self._hosts[server], self._world.testbed
        before, asked, answered = testbed.pressure(host), 0, 0
        deadline = time.monotonic() + _LOOK
        while (alive := self._is_alive(server)) and time.monotonic() < deadline:
            asked += 1
            answered += bool(admin.ask(testbed, [host] * _TOGETHER, "mntr", timeout=_ANSWER)[host])
        return _Looked(before, testbed.pressure(host), alive, asked, answered)

    def _is_alive(self, server: int) -> bool:
        return self._world.ensemble.process_state(server) not in GONE

    def _start_again(self, server: int) -> None:
        """Start one whose death was on its way when the limit was lifted: the kernel takes its time to carry it out."""
        with self._world.lock:
            self._world.servers.restore(server)

    def _answers(self, server: int) -> bool:
        """On a machine that has much to do, one answer is enough."""
        host = self._hosts[server]
        return bool(admin.ask(self._world.testbed, [host], "ruok", timeout=_LAST_CHANCE)[host])

    def _measure_cpu(self, server: int) -> tuple[bool | None, str]:
        looked = self._keep_busy(server)
        text = f"{looked.answered} of {looked.asked} bursts of {_TOGETHER} words answered in {_ANSWER * 1000:.0f} ms"
        now, begun = looked.after, self._begun.get(server, looked.before)
        if now.cpu is None:
            well = looked.alive and (looked.answered or self._answers(server))
            return (False if well else None), f"no limit holds, {text}"
        periods, throttled = now.periods - looked.before.periods, now.throttled - looked.before.throttled
        text = f"held back by its control group in {throttled} of {periods} periods of 100 ms, {text}"
        return (self._on and now.throttled > begun.throttled) or None, text

    def _measure_memory(self, server: int) -> tuple[bool | None, str]:
        looked = self._keep_busy(server)
        now, begun = looked.after, self._begun.get(server, looked.before)
        refused, killed = now.refused - begun.refused, now.killed - begun.killed
        state = "alive" if looked.alive else "gone"
        if not looked.alive and self._begun and not self._on:
            self._start_again(server)
        if now.memory is None and not self._on:
            well = looked.alive and (looked.answered or self._answers(server))
            return (False if well else None), f"no limit holds, {now.in_use // _MB} MB in use, process {state}"
        limit = f"a limit of {now.memory / _MB:.1f} MB" if now.memory is not None else "no limit"
        text = f"{limit}, {now.in_use / _MB:.1f} MB in use, refused more {refused} times, process {state}"
        if killed > 0:
            text += f", {killed} killed by the kernel for want of memory"
        return (self._on and (refused > 0 or killed > 0)) or None, text

    # --- by signals ------------------------------------------------------------------------------------------

    def _watch(self, server: int) -> tuple[bool | None, str]:
        """How often the process is found stopped. Words would not do: it answers when it runs, and only then."""
        glances, stopped, alive = 0, 0, True
        deadline = time.monotonic() + _LOOK
        while alive and time.monotonic() < deadline:
            state = self._world.ensemble.process_state(server)
            glances, stopped, alive = glances + 1, stopped + (state == _STOPPED), state not in GONE
            time.sleep(_GLANCE)  # from one glance to the next
        text = f"stopped by signals at {stopped} of {glances} looks, process {'alive' if alive else 'gone'}"
        if not stopped:
            return (False if alive else None), text
        return (stopped >= _ENOUGH * (1 - (self._limit.cpu or 0.0)) * glances) or None, text

    def _turns(self) -> Iterator[float]:
        """Let each process run for its share of a period. It is stopped while others have the lock."""
        ensemble, kinds = self._world.ensemble, self._world.servers.kinds
        share = _PERIOD * (self._limit.cpu or 0.0)
        while True:
            free = [s for s in self._servers if not {Hold.DOWN, Hold.PAUSED} & kinds(s, but=self.id)]
            running = [server for server in free if ensemble.is_running(server)]
            for server in running:
                ensemble.resume(server)
            time.sleep(share)  # what it gets
            for server in running:
                ensemble.pause(server)
            yield _PERIOD - share


def refuse_limit(limit: Limit, refusals: Mapping[str, str], where: str) -> None:
    """Refuse what cannot be limited here.

    Args:
        limit: what is asked for.
        refusals: as `Testbed.limit_refusals` says.
        where: the fault, for the error.

    Raises:
        KernelLacking: with the reason and the next step.
    """
    name = "memory" if limit.memory is not None else "cpu"
    by_signals = limit.cpu is not None and limit.cpu < 1
    if name in refusals and not by_signals:
        raise KernelLacking(
            f"no control group for {name} can be made, which the fault is made of",
            where=where,
            cause=refusals[name],
            next_step="run it as root, or with --testbed docker; `zkchaos usermode -- zkchaos run ...` needs neither",
        )


def refuse_steps(steps: Iterable[Step], refusals: Callable[[], Mapping[str, str]]) -> None:
    """Refuse a schedule of which a limit cannot be made here. To be called before anything is broken.

    Raises:
        KernelLacking: with the reason and the next step.
    """
    for step in steps:
        if KINDS[step.fault].aim is Aim.LIMIT:
            _part, manner = target_parts(Aim.LIMIT, step.target)
            refuse_limit(parse(manner), refusals(), f"{step.fault} {step.target}")

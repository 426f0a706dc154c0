"""The nemesis: carries out a schedule, proves every fault, and heals whatever happens.

Each fault goes through the same life, and every step of it is in the events before the next one is taken::

    probe before -> inject -> probe during -> ... -> heal -> probe after
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from harness.errors import FaultError, ZkChaosError
from harness.history.records import Event, FaultAction, FaultEvent, ProbeEvent
from harness.nemesis.faults import make_fault
from harness.nemesis.kinds import KINDS
from harness.nemesis.plan import Step
from harness.nemesis.targets import is_role, resolve_target
from harness.nemesis.world import Fault, World
from harness.toxiproxy.proxies import Proxies
from harness.zookeeper.ensemble import Ensemble

#: How long a fault may take until its probe sees it bite, and until it is seen to be gone, seconds.
_BITE_TIMEOUT = 3.0
#: How long a target that does not look healthy is looked at again before its fault comes, seconds: on a busy machine an
#: answer may be late; and while an earlier fault has not gone, a server may be on its way back.
_BEFORE_TIMEOUT, _AFTERMATH_TIMEOUT = 2.0, 10.0
_HEAL_TIMEOUT = 30.0
#: How long to wait for a leader to aim at, seconds.
_LEADER_TIMEOUT = 10.0
#: Seconds between two looks at a fault that has not healed yet.
_POLL = 0.05

#: The roles that it takes a leader to resolve.
_LED = re.compile(r"leader|follower|minority|majority")

Record = Callable[[Event], None]


@dataclass
class _Active:
    """A fault that has been injected and not yet been seen to be gone."""

    fault: Fault
    asked: str
    healing_since: float | None = None
    #: When it is to be healed, monotonic seconds; None where whoever injected it will say.
    due: float | None = None


class Nemesis:
    """Injects and heals the faults of one run.

    Args:
        ensemble: what is broken.
        record: takes the events.
        seed: decides what `random`, `a follower`, `minority` and `majority` mean.
        proxies: those that streams pass, where the topology has some.
        patience: how many times longer than on a usual machine everything may take until it is seen.
    """

    def __init__(
        self, ensemble: Ensemble, record: Record, *, seed: int, proxies: Proxies | None = None, patience: float = 1.0
    ) -> None:
        self._ensemble, self._record, self._patience = ensemble, record, patience
        self._world = World.of(ensemble, proxies)
        self._random = Random(f"{seed}/targets")
        self._active: dict[int, _Active] = {}
        self._next_id = 0
        self._stopping = threading.Event()
        # One fault at a time is injected or healed, also when a test and a plan do so at once.
        self._lock = self._world.lock

    # --- one fault by hand -------------------------------------------------------------------------------

    def switch_down(self, switch: str) -> contextlib.AbstractContextManager[str]:
        """Let a switch die for the length of a `with` block; yields its name."""
        return self.fault("switch-down", switch)

    def link_down(self, host: str, switch: str) -> contextlib.AbstractContextManager[str]:
        """Cut the cable between a host (`zk2`, `c1`, `leader`, `a follower`) and a switch."""
        return self.fault("link-down", f"{host}:{switch}")

    def kill(self, server: str | int) -> contextlib.AbstractContextManager[str]:
        """SIGKILL servers (`zk2`, 2, `leader`, `minority`, ...) and start them again at the end of the block."""
        return self.fault("kill", str(server))

    def pause(self, server: str | int) -> contextlib.AbstractContextManager[str]:
        """SIGSTOP servers, and SIGCONT at the end of the block."""
        return self.fault("pause", str(server))

    def restart(self, server: str | int) -> str:
        """Stop servers by SIGTERM, start them again, and return when they answer; returns which they were."""
        with self.fault("restart", str(server)) as target:
            return target

    @contextlib.contextmanager
    def fault(self, kind: str, target: str) -> Iterator[str]:
        """Any kind of fault for the length of a `with` block; yields what the target was resolved to.

        Raises:
            FaultError: it could not be injected, did not bite, or did not heal.
        """
        with self._lock:
            fault_id = self._next_id
            self._next_id += 1
        active = self._inject(fault_id, kind, target)
        try:
            self._prove_bite(active)
            yield active.fault.target
        finally:
            self._heal(active)
            self._wait_until_healed([active])

    # --- a whole schedule --------------------------------------------------------------------------------

    def carry_out(self, schedule: Sequence[Step], *, start: int) -> None:
        """Inject and heal every step at its time; returns when the last one is seen to be gone.

        Args:
            schedule: as `plan.expand` gives it.
            start: the monotonic instant, nanoseconds, that the steps' times count from.

        Raises:
            FaultError: a fault could not be injected, did not bite, or did not heal. Everything is healed by then.
        """
        agenda = [(step.at_s, 1, step) for step in schedule]
        agenda += [(step.end_s, 0, step) for step in schedule if step.for_s is not None]
        agenda.sort(key=lambda entry: (entry[0], entry[1], entry[2].id))
        self._next_id = max((step.id for step in schedule), default=-1) + 1
        try:
            for at_s, entries in _moments(agenda):
                self._wait_until(start / 1e9 + at_s)
                if self._stopping.is_set():
                    return
                self._do(entries, start / 1e9)
            self._wait_until_healed(list(self._active.values()))
        finally:
            self.heal_all()

    def stop(self) -> None:
        """Let `carry_out` end early, in another thread; it heals before it returns."""
        self._stopping.set()

    def heal_all(self) -> None:
        """Heal whatever is still injected. Idempotent.

        Raises:
            ZkChaosError: something did not heal; the others were healed all the same.
        """
        left = list(self._active.values())
        problems: list[ZkChaosError] = []
        for active in left:
            try:
                if active.healing_since is None:
                    self._heal(active)
                else:
                    active.fault.cut_short()
            except ZkChaosError as problem:
                problems.append(problem)
        try:
            self._wait_until_healed([a for a in left if a.healing_since is not None])
        finally:
            if problems:
                raise problems[0]

    def _do(self, entries: Sequence[tuple[int, Step]], start: float) -> None:
        """Everything of one moment: heal first; inject all before looking at any."""
        for inject, step in entries:
            if not inject and step.id in self._active:
                self._heal(self._active[step.id])
        begun = [
            self._inject(step.id, step.fault, step.target, due=start + step.end_s if step.for_s is not None else None)
            for inject, step in entries
            if inject
        ]
        for active in begun:
            self._prove_bite(active)
            if not KINDS[active.fault.kind].lasts:
                self._heal(active)

    def _wait_until(self, moment: float) -> None:
        """Wait for a monotonic moment in seconds, looking meanwhile at what is healing."""
        while not self._stopping.is_set() and (left := moment - time.monotonic()) > 0:
            healing = [a for a in self._active.values() if a.healing_since is not None]
            for active in healing:
                self._check_healed(active)
            self._stopping.wait(min(left, _POLL) if healing else left)

    # --- the life of a fault -----------------------------------------------------------------------------

    def _inject(self, fault_id: int, kind: str, asked: str, *, due: float | None = None) -> _Active:
        with self._lock:
            self._next_id = max(self._next_id, fault_id + 1)
            try:
                fault = make_fault(fault_id, kind, self._resolve(kind, asked), self._world)
            except ValueError as problem:
                raise FaultError(str(problem), where=f"{kind} {asked}") from problem
            active = _Active(fault, asked, due=due)
            self._look_before(active)
            self._tell(active, FaultAction.INJECT)
            # It counts as active before it is injected: half an injection is healed, too.
            self._active[fault_id] = active
            try:
                fault.inject()
            except ZkChaosError as problem:
                self._tell(active, FaultAction.FAILED, str(problem))
                raise
            self._tell(active, FaultAction.INJECTED)
            return active

    def _look_before(self, active: _Active) -> None:
        """Look until its target is seen to be healthy, but not for long: it is injected in any case."""
        begun = time.monotonic()
        while self._probe(active, "before") is not False and not self._stopping.is_set():
            healing = [other for other in self._active.values() if other.healing_since is not None]
            patience = (_AFTERMATH_TIMEOUT if healing else _BEFORE_TIMEOUT) + active.fault.slow_to_settle
            if time.monotonic() - begun > patience * self._patience:
                return
            for other in healing:
                self._check_healed(other)
            self._heal_what_is_due()
            self._stopping.wait(_POLL)

    def _prove_bite(self, active: _Active) -> None:
        patience = (_BITE_TIMEOUT + active.fault.slow_to_bite) * self._patience
        deadline = time.monotonic() + patience
        while self._probe(active, "during") is not True:
            if time.monotonic() > deadline:
                what = f"the fault did not bite within {patience:g} s"
                self._tell(active, FaultAction.FAILED, what)
                raise FaultError(what, where=active.fault.name, next_step="the probe's evidence is in events.jsonl")
            time.sleep(_POLL)

    def _heal(self, active: _Active) -> None:
        with self._lock:
            if active.healing_since is not None:
                return
            self._tell(active, FaultAction.HEAL)
            active.fault.heal()
            active.healing_since = time.monotonic()

    def _check_healed(self, active: _Active) -> bool:
        """Look whether it is gone; tell so once. The look that shows it is the one that is kept."""
        probe = active.fault.probe()
        if probe.bites is not False:
            since = active.healing_since or 0.0
            patience = (_HEAL_TIMEOUT + active.fault.slow_to_heal) * self._patience
            if time.monotonic() - since > patience:
                what = f"the fault did not heal within {patience:g} s: {probe.summary}"
                self._tell(active, FaultAction.FAILED, what)
                self._active.pop(active.fault.id, None)
                raise FaultError(what, where=active.fault.name)
            return False
        if self._active.pop(active.fault.id, None) is None:
            return True  # another thread has seen and told it
        self._tell(active, FaultAction.HEALED)
        self._record(
            ProbeEvent(time.monotonic_ns(), active.fault.id, "after", False, probe.summary, probe.measurements)
        )
        return True

    def _wait_until_healed(self, some: Sequence[_Active]) -> None:
        problems: list[FaultError] = []
        waiting = [a for a in some if a.fault.id in self._active]
        while waiting:
            for active in waiting:
                try:
                    self._check_healed(active)
                except FaultError as problem:
                    problems.append(problem)
            waiting = [a for a in waiting if a.fault.id in self._active]
            if waiting:
                time.sleep(_POLL)
        if problems:
            raise problems[0]

    # --- details -----------------------------------------------------------------------------------------

    def _resolve(self, kind: str, asked: str) -> str:
        if kind not in KINDS:
            raise FaultError("there is no such kind of fault", where=kind, next_step=f"kinds: {', '.join(KINDS)}")
        aim = KINDS[kind].aim
        leader = self._leader() if is_role(aim, asked) and _LED.search(asked) else None
        busy = {a.fault.target for a in self._active.values() if a.fault.kind == kind and a.healing_since is None}
        return resolve_target(aim, asked, self._ensemble.topology, leader=leader, rng=self._random, busy=busy)

    def _leader(self) -> int | None:
        """The current leader; waits a while for one, because an election may be going on.

        What is to be healed meanwhile is healed: it may be why there is none.
        """
        deadline = time.monotonic() + _LEADER_TIMEOUT * self._patience
        while (leader := self._ensemble.leader()) is None and time.monotonic() < deadline:
            self._heal_what_is_due()
            time.sleep(_POLL)
        return leader

    def _heal_what_is_due(self) -> None:
        now = time.monotonic()
        for active in list(self._active.values()):
            if active.due is not None and active.due <= now:
                self._heal(active)

    def _probe(self, active: _Active, stage: str) -> bool | None:
        probe = active.fault.probe()
        event = ProbeEvent(time.monotonic_ns(), active.fault.id, stage, probe.bites, probe.summary, probe.measurements)
        self._record(event)
        return probe.bites

    def _tell(self, active: _Active, action: FaultAction, detail: str = "") -> None:
        fault = active.fault
        self._record(FaultEvent(time.monotonic_ns(), fault.id, action, fault.kind, fault.target, active.asked, detail))


def _moments(
    agenda: Sequence[tuple[float, int, Step]],
) -> Iterator[tuple[float, list[tuple[int, Step]]]]:
    """Group the entries of an ordered agenda that are due at the same time."""
    group: list[tuple[int, Step]] = []
    for number, (at_s, inject, step) in enumerate(agenda):
        group.append((inject, step))
        if number + 1 == len(agenda) or agenda[number + 1][0] != at_s:
            yield at_s, group
            group = []

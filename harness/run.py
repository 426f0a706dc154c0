"""Performs a run: builds the testbed, starts the ensemble and the load, lets the nemesis loose, collects, ends.

The only module that knows every floor of the house. It writes evidence and judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from harness.collect import collect, sweep
from harness.errors import RunFolderError, StorageFull, ZkChaosError
from harness.history.folder import NO_SPACE, LineWriter, RunFolder, storage_error
from harness.history.records import Event, Note, Phase
from harness.history.scenario import Scenario
from harness.load.registers import RegisterLoad, register_paths
from harness.nemesis import limit_fault, partition_fault, split_fault
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.packets_fault import refuse_steps
from harness.nemesis.plan import Step
from harness.overtime import OVERTIME_S, wait_for_plan
from harness.scenario import GUEST_PATIENCE, Request
from harness.stage.make import make_stage
from harness.topology.model import Topology
from harness.toxiproxy.proxies import Proxies
from harness.usermode.machine import inside
from harness.zookeeper.ensemble import Ensemble
from harness.zookeeper.monitor import Monitor

#: Free space that a run asks for before it begins, bytes: logs, transactions and history of a short run.
LEAST_FREE = 64 * 1024 * 1024
#: Below this a failure is told as what it is: the disk is full.
_FULL = 1024 * 1024

Observer = Callable[[Event], None]


class Recorder:
    """Writes each event to the run folder, then shows it to whoever watches."""

    def __init__(self, folder: RunFolder, observer: Observer | None = None) -> None:
        self._folder = folder
        self._writer = LineWriter(folder.events_file)
        self._observer = observer
        #: The first failure to write, from whatever thread.
        self.problem: ZkChaosError | None = None

    def __call__(self, event: Event) -> None:
        """Record one event."""
        try:
            self._writer.write(event)
        except (StorageFull, RunFolderError) as problem:
            self.problem = self.problem or problem
            raise
        if self._observer:
            self._observer(event)

    def phase(self, name: str, detail: str = "") -> None:
        """Record that a phase begins, and force all that came before to the disk."""
        self(Phase(time.monotonic_ns(), name, detail))
        self._writer.sync()
        self._folder.sync()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._writer.close()


class Run:
    """A run that is being performed. Use it in a `with` block: it heals, stops and closes whatever happens.

    Args:
        scenario: what is asked for; written to the folder first.
        topology: the scenario's, with its overrides.
        root: the run folder to make.
        observer: sees each event after it was written.
        schedule: what will be carried out; refused before anything is started where this kernel cannot do it.
        with_load: start the client processes of the scenario's load at once, while the servers come up.
        tell: called with a line of text before anything that may take seconds, such as a download.

    Raises:
        ZkChaosError: whatever prevents the run; where something was started, it is gone by then.
    """

    def __init__(
        self,
        scenario: Scenario,
        topology: Topology,
        root: Path,
        observer: Observer | None = None,
        *,
        schedule: Sequence[Step] = (),
        with_load: bool = True,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.scenario, self.topology = scenario, topology
        self._patience = GUEST_PATIENCE if inside() else 1.0
        self._stack = contextlib.ExitStack()
        self._stage = make_stage(
            scenario.testbed, topology, root, tell, attached=scenario.attached, prepared=scenario.prepared
        )
        self._stack.callback(self._stage.close)
        self.testbed = self._stage.testbed
        try:
            refuse_steps(schedule, topology, self.testbed.lacking)
            partition_fault.refuse_steps(schedule, topology, self.testbed.lacking)
            limit_fault.refuse_steps(schedule, self.testbed.limit_refusals)
            split_fault.refuse_steps(schedule, self.testbed.lacking)
            # Only now is anything made that outlives this process: testbed, Java and jars are all there.
            self.folder = _make_folder(root)
            self.folder.write_json(self.folder.scenario_file, scenario, sync=False)
            self.record = Recorder(self.folder, observer)
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self.record.close)
        try:
            self._build(with_load=with_load)
        except BaseException as problem:
            self._abort(problem)
            raise

    def _build(self, *, with_load: bool) -> None:
        self.record(Phase(time.monotonic_ns(), "bring-up"))
        self.folder.write_json(self.folder.environment_file, self._stage.environment(), sync=False)
        self.ensemble = Ensemble(self.testbed, self.topology, self.folder, self._stage.starter, self.record)
        self.monitor = Monitor(self.ensemble, self.record)
        self.proxies = self._make_proxies()
        self.nemesis = Nemesis(
            self.ensemble, self.record, seed=self.scenario.seed, proxies=self.proxies, patience=self._patience
        )
        self.load = self.new_load(self.scenario, 1)
        if with_load:
            self.load.launch()
        self.ensemble.start()
        self.monitor.start()
        self._stack.callback(self.monitor.stop)

    def _make_proxies(self) -> Proxies | None:
        """Let the proxies of the topology listen, before anybody connects through them."""
        if self._stage.toxiproxy is None:
            return None
        proxies = Proxies(self.testbed, self.topology, self._stage.toxiproxy, self.folder.proxies_folder)
        proxies.start()
        return proxies

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if problem is not None:
            self._abort(problem)
        else:
            self.close()

    def new_load(self, scenario: Scenario, round_number: int) -> RegisterLoad:
        """A load of this run, not yet launched; it ends with the run at the latest."""
        self.scenario = scenario
        load = RegisterLoad(
            self.testbed, self.topology, self.folder, scenario.load, seed=scenario.seed, round_number=round_number
        )
        self._stack.callback(load.kill)
        return load

    def carry_out(self, request: Request) -> None:
        """Load, faults and the end of both, as a plan says.

        Raises:
            ZkChaosError: the nemesis, the load or the disk failed; KeyboardInterrupt passes through.
        """
        self.load.start()
        self.load.settle()  # whoever was never served cannot be seen to recover
        start = time.monotonic_ns()
        self.record.phase("load", f"{request.scenario.load.clients} clients, {request.scenario.load.rate:g} per second")
        deadline = start / 1e9 + request.scenario.duration_s
        executor = ThreadPoolExecutor(1, thread_name_prefix="zkchaos-nemesis")
        plan = executor.submit(self.nemesis.carry_out, request.schedule, start=start)
        try:
            wait_for_plan(plan, deadline, OVERTIME_S * self._patience, lambda: self.record.problem is not None)
            late = time.monotonic() > deadline + 1
        finally:
            self.nemesis.stop()
            # not Thread.join: one that Ctrl-C interrupts takes its thread for ended (CPython issue 90882)
            wait([plan])
            executor.shutdown(wait=False)
        plan.result()
        if late:
            self.load.settle()  # the end of the plan, in which clients come back, is over already
        if self.record.problem is not None:
            raise self.record.problem
        self.finish()

    def finish(self) -> None:
        """End the load, and collect the last evidence from the healed ensemble."""
        self.record.phase("quiesce")
        self.load.stop()
        self.collect()

    def collect(self) -> None:
        """Collect the last evidence from the healed ensemble, whose load has ended."""
        self.record.phase("collect")
        collect(self.ensemble, register_paths(self.scenario.load), self.record)
        self._stage.fetch(self.folder)
        if self._stage.foreign:
            sweep(self.ensemble, self.scenario.load.root)

    def close(self) -> None:
        """Heal, stop, and say that the run is done. Idempotent."""
        try:
            self.nemesis.heal_all()
            self.monitor.stop()
            if not self._stage.foreign:
                self.ensemble.stop()
            self.record.phase("done")
        finally:
            self._stack.close()

    def _abort(self, problem: BaseException) -> None:
        """Heal and leave; keep what was seen, and say that the run did not end as it should have."""
        with contextlib.suppress(ZkChaosError):
            if hasattr(self, "nemesis"):
                self.nemesis.heal_all()
        if hasattr(self, "monitor"):
            self.monitor.stop()
        with contextlib.suppress(ZkChaosError):
            text = str(problem) or type(problem).__name__
            interrupted = isinstance(problem, KeyboardInterrupt)
            reason = "the run was interrupted" if interrupted else f"the run was aborted: {text}"
            self.record(Note(time.monotonic_ns(), reason, broken=True))
            self.record.phase("aborted", "interrupted" if interrupted else text)
        self._stack.close()


def perform(
    request: Request, root: Path, observer: Observer | None = None, *, tell: Callable[[str], None] | None = None
) -> RunFolder:
    """Perform a whole scenario into a new run folder.

    Args:
        request: what to perform.
        root: the run folder to make.
        observer: sees each event after it was written.
        tell: called with a line of text before anything that may take seconds, such as a download.

    Raises:
        ZkChaosError: the run could not be made, or was aborted; the folder keeps what was seen.
        KeyboardInterrupt: the same.
    """
    try:
        with Run(request.scenario, request.topology, root, observer, schedule=request.schedule, tell=tell) as run:
            run.carry_out(request)
        return run.folder
    except StorageFull:
        raise
    except OSError as problem:
        if problem.errno in NO_SPACE:  # whichever file was the first to suffer, the disk is what ails
            raise storage_error(problem, root) from problem
        raise
    except ZkChaosError as problem:
        if root.exists() and shutil.disk_usage(root).free < _FULL:
            raise StorageFull(
                f"the disk is full; the first that suffered: {problem}",
                where=str(root),
                next_step="free space or choose another place with --runs; what was written is kept",
            ) from problem
        raise


def _make_folder(root: Path) -> RunFolder:
    existing = next((p for p in (root, *root.parents) if p.exists()), root)
    try:
        free = shutil.disk_usage(existing).free
    except OSError as problem:
        raise storage_error(problem, existing) from problem
    if free < LEAST_FREE:
        raise StorageFull(
            f"{free // 2**20} MB are free, and a run asks for {LEAST_FREE // 2**20} MB before it begins",
            where=str(existing),
            next_step="free space or choose another place with --runs; nothing was started",
        )
    folder = RunFolder.create(root)
    _link_latest(folder.root)
    return folder


def _link_latest(root: Path) -> None:
    """Point `latest` at the run; two runs that begin at the same time must not fall over each other."""
    scratch = root.parent / f".latest-{os.getpid()}-{threading.get_ident()}"
    with contextlib.suppress(OSError):
        scratch.symlink_to(root.name)
        scratch.replace(root.parent / "latest")

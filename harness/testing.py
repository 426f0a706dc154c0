"""What a test works with: an ensemble, a nemesis, a load, and a verdict on all three.

Used by the pytest plugin, and just as well without it::

    with ChaosTest(scenario, topology, root) as chaos:
        with chaos.load.registers(clients=8), chaos.nemesis.switch_down("net1"):
            chaos.ensemble.wait_for_quorum(within=10)
        chaos.load.verify()
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

from harness.check.verdict import Finding, Judgement, Overall
from harness.errors import EnsembleError, GuaranteeNotProven, GuaranteeViolated, UsageError
from harness.history.records import FaultEvent
from harness.history.scenario import LoadSpec, Scenario, Service
from harness.judge_and_tell import judge_and_tell
from harness.load.hosted import hosted_client, server_client
from harness.load.registers import ROOT, RegisterLoad
from harness.load.traced_client import TracedClient
from harness.nemesis.nemesis import Nemesis
from harness.run import Run
from harness.scenario import check_load
from harness.topology.model import ClientHost, Topology
from harness.zookeeper.admin import ServerStatus


class ChaosTest:
    """One run, steered by hand. Use it in a `with` block.

    Args:
        scenario: its name, seed and how to repeat it; the load is filled in by `load.registers`.
        topology: what to build.
        root: the run folder to make.
    """

    def __init__(self, scenario: Scenario, topology: Topology, root: Path) -> None:
        self.run = Run(scenario, topology, root, with_load=False)
        self.ensemble = EnsembleUnderTest(self.run)
        self.nemesis: Nemesis = self.run.nemesis
        self.load = LoadUnderTest(self.run)

    def __enter__(self) -> ChaosTest:
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        self.run.__exit__(kind, problem, trace)


class EnsembleUnderTest:
    """The ensemble as a test sees it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        #: Start, stop, kill and ask single servers.
        self.servers = run.ensemble

    @property
    def topology(self) -> Topology:
        """What was built."""
        return self._run.topology

    def leader(self) -> int | None:
        """The id of the server that says it leads, or None."""
        return self.servers.leader()

    def status(self) -> dict[int, ServerStatus]:
        """What every server says of itself."""
        return self.servers.status()

    def word(self, server_id: int, word: str) -> str:
        """One server's answer to an admin word (`srvr mntr conf cons ...`)."""
        return self.servers.word(server_id, word)

    def connection_string(self, host: str | None = None) -> str:
        """The addresses of all servers that a client host (None: the first) shares a switch with."""
        return self.topology.connection_string(host=self._client_host(host))

    def client(self, host: str | None = None) -> contextlib.AbstractContextManager[TracedClient]:
        """A kazoo session of this process that stands on a client host (None: the first)."""
        place = self._client_host(host)
        return hosted_client(self._run.testbed, place.name, self.connection_string(place.name))

    def wait_for_quorum(self, *, within: float = 30.0) -> int:
        """Wait until an acknowledged write, begun after the call, proves a quorum; returns the leader's id.

        A leader may believe in a quorum that it has lost already, so its word alone proves nothing.

        Raises:
            EnsembleError: not within so many seconds.
        """
        deadline = time.monotonic() + within
        while True:
            left = deadline - time.monotonic()
            leader = self.servers.wait_for_quorum(within=max(0.0, left))
            host = self.topology.server(leader).host
            try:
                with server_client(self._run.testbed, host, within=max(0.1, left)) as client:
                    path = f"{ROOT}/quorum"
                    client.ensure_path(path)
                    client.set_async(path, b"").get(timeout=max(0.1, deadline - time.monotonic()))
                return leader
            except (KazooException, EnsembleError, KazooTimeoutError) as problem:
                if time.monotonic() >= deadline:
                    raise EnsembleError(
                        f"no write was acknowledged within {within:g} s",
                        where=f"server {leader}, which leads",
                        cause="its followers cannot be reached",
                    ) from problem

    def _client_host(self, name: str | None) -> ClientHost:
        hosts = {host.name: host for host in self.topology.client_hosts}
        name = name or next(iter(hosts))
        if name not in hosts:
            raise UsageError("there is no such client host", where=name, next_step=f"allowed: {', '.join(hosts)}")
        return hosts[name]


class LoadUnderTest:
    """The load as a test sees it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rounds = 0
        #: The verdicts, once `verify` has been called; and the page.
        self.judgement: Judgement | None = None
        self.page: Path | None = None

    @property
    def used(self) -> bool:
        """Whether there was any load."""
        return self._rounds > 0

    @contextlib.contextmanager
    def registers(
        self, *, clients: int = 8, rate: float = 200.0, paths: int = 16, session_timeout_ms: int = 4000
    ) -> Iterator[RegisterLoad]:
        """The register workload for the length of a `with` block.

        The block begins when every session has been served, so that it is seen what a fault takes away; the load ends
        when every session has been served once more after the block's last line, so that recovery is seen.

        Args:
            clients: sessions, spread over the client hosts.
            rate: operations per second of all sessions together.
            paths: number of znodes.
            session_timeout_ms: as requested from the servers.
        """
        spec = LoadSpec(clients, rate, paths, session_timeout_ms)
        check_load(spec, self._run.topology)
        self._rounds += 1
        scenario = msgspec.structs.replace(self._run.scenario, load=spec)
        load = self._run.new_load(scenario, self._rounds)
        self._run.folder.write_json(self._run.folder.scenario_file, scenario)
        load.launch()
        load.start()
        load.settle()
        self._run.record.phase("load", f"{clients} clients, {rate:g} per second")
        try:
            yield load
            load.settle()
        finally:
            self._run.record.phase("quiesce")
            load.stop()

    def verify(
        self, *, recovery_within: float | None = None, service: Literal["survives", "stops"] | None = None
    ) -> Judgement:
        """Collect the last evidence, judge every guarantee and write the page.

        Args:
            recovery_within: budget for the recovery after each fault, seconds; None promises nothing.
            service: what is expected of it while each fault is on; `survives` needs a budget.

        Raises:
            GuaranteeViolated: with the witness and the page's path.
            GuaranteeNotProven: some verdict is unknown, or the run is broken; with the reason.
            UsageError: there was no load, or it is not said when the service survives.
        """
        run = self._run
        if not self.used:
            raise UsageError("there was no load, so there is nothing to verify", where="load.verify()")
        if service == "survives" and recovery_within is None:
            raise UsageError(
                "it is not said after how long", where="load.verify(service=)", next_step="recovery_within=8"
            )
        faults = {event.id for event in run.folder.events() if isinstance(event, FaultEvent)} if service else set()
        expected = {fault: Service(service) for fault in sorted(faults) if service}
        scenario = msgspec.structs.replace(run.scenario, recovery_within_s=recovery_within, expected=expected)
        run.folder.write_json(run.folder.scenario_file, scenario)
        run.collect()
        run.record.phase("done")
        self.judgement, self.page = judge_and_tell(run.folder)
        raise_unless_valid(self.judgement, self.page, run.scenario.repeat)
        return self.judgement


def raise_unless_valid(judgement: Judgement, page: Path, repeat: str) -> None:
    """Raise what a test shall fail with.

    Raises:
        GuaranteeViolated, GuaranteeNotProven: as `LoadUnderTest.verify` says.
    """
    if judgement.overall is Overall.VALID:
        return
    if violated := judgement.violated():
        lines = [f"{violated[0].promise}: {violated[0].summary}"]
        lines += [f"  - {witness.text}" for witness in violated[0].witnesses]
        lines += [f"also violated: {verdict.promise}" for verdict in violated[1:]]
        text = "\n".join([*lines, f"page:   {page}", f"repeat: {repeat}"])
        raise GuaranteeViolated(text)
    reasons = [*judgement.broken]
    reasons += [f"{v.guarantee}: {v.summary}" for v in judgement.verdicts if v.finding is Finding.UNKNOWN]
    text = "\n".join([f"the run is {judgement.overall.value}", *(f"  - {r}" for r in reasons), f"page:   {page}"])
    raise GuaranteeNotProven(text)

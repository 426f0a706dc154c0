"""Works by hand on an ensemble of containers that runs already: look at it, break it once, heal it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import EngineUnavailable, FaultError, RunFolderError, UsageError
from harness.history.folder import RunFolder
from harness.history.records import Event, FaultAction, FaultEvent, ProbeEvent
from harness.nemesis.kinds import KINDS
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.offers import Guest, refusal
from harness.nemesis.targets import check_target
from harness.stage.make import make_stage
from harness.stage.stage import Stage
from harness.testbed.handles import Link
from harness.topology.model import Topology
from harness.topology.toml_document import allowed_words, nearest, value_text
from harness.zookeeper import admin
from harness.zookeeper.cache import cache_folder
from harness.zookeeper.ensemble import Ensemble

try:
    from docker.models.containers import Container

    from harness.testbed.engine import connect_engine
    from harness.testbed.refusals import refusals
    from harness.zookeeper.found import FoundEnsemble, containers_of, find_ensemble
except ModuleNotFoundError as missing:
    raise EngineUnavailable(
        f"the package {missing.name} is not installed", next_step="pip install 'zk-chaos-harness[docker]'"
    ) from missing

#: How long one look at the paths of a network takes at most, milliseconds.
_REACH_MS = 300


class _Remembered(msgspec.Struct, frozen=True):
    """What was attached last; `zkchaos fault` is aimed at it."""

    name: str


def _memory() -> Path:
    return cache_folder(os.environ) / "attached.json"


def remember(name: str) -> None:
    """Let `zkchaos fault` be aimed at this ensemble from now on."""
    _memory().parent.mkdir(parents=True, exist_ok=True)
    _memory().write_bytes(msgspec.json.encode(_Remembered(name)))


def remembered() -> str:
    """What was attached last.

    Raises:
        UsageError: nothing was.
    """
    try:
        return msgspec.json.decode(_memory().read_bytes(), type=_Remembered).name
    except (FileNotFoundError, msgspec.DecodeError):
        raise UsageError(
            "nothing was attached yet", where="zkchaos fault", next_step="`zkchaos attach NAME` first, or --on NAME"
        ) from None


def look_at(name: str) -> FoundEnsemble:
    """Find an ensemble, without touching it.

    Raises:
        UsageError: there is none.
    """
    with contextlib.closing(connect_engine()) as client:
        return find_ensemble(client, name)


def guests(found: FoundEnsemble) -> tuple[Guest, ...]:
    """What decides which faults are offered of its servers."""
    return tuple(Guest(f"zk{i}", s.first_process, s.removed_at_end) for i, s in found.servers.items())


@contextlib.contextmanager
def _attached(name: str, topology: Topology, *, helper: bool) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="zkchaos-") as scratch:
        kind = "docker-helper" if helper else "docker"
        stage = make_stage(kind, topology, Path(scratch) / "run", attached=name)
        with contextlib.closing(stage):
            yield stage


# --- attach -------------------------------------------------------------------------------------------------


def show(console: Console, name: str, *, heal: bool = False) -> None:
    """Print what an ensemble looks like: servers, addresses, roles, and which paths answer.

    Args:
        console: where to.
        name: as `find_ensemble` takes it.
        heal: restore every link, continue and start every server first.

    Raises:
        UsageError, TestbedError: as `find_ensemble` says.
    """
    if heal:
        _start_all(name)
    found = look_at(name)
    topology = found.topology
    with _attached(name, topology, helper=False) as stage:
        for server in topology.servers:
            stage.starter.start(server, RunFolder(Path(os.devnull)).server(server.id))
        if heal:
            stage.testbed.set_links([Link(switch) for switch in topology.switch_names], up=True)
        statuses = admin.statuses(stage.testbed, [s.host for s in topology.servers])
        table = Table("server", "container", *topology.switch_names, "role", box=None)
        for server in topology.servers:
            addresses = {nic.switch: str(nic.address) for nic in server.nics}
            cells = [addresses.get(switch, "-") for switch in topology.switch_names]
            container = str(found.servers[server.id].container.name)
            table.add_row(server.host, container, *cells, statuses[server.host].role)
        console.print(table)
        for switch in topology.switch_names:
            paths = stage.testbed.reach([switch], timeout_ms=_REACH_MS)
            answered = sum(path.micros is not None for path in paths)
            console.print(Text(f"{switch}: bridge {found.bridges[switch]}, {answered} of {len(paths)} paths answer"))
        way = "through a helper container" if stage.testbed.rootless else "by an agent beside the engine"
        console.print(Text(f"attached to {name}, {way}; clients connect to {topology.connection_string()}"))
    first = topology.switch_names[0]
    console.print(Text(f"break it:  zkchaos fault switch-down {first} --for 10s"))
    console.print(Text(f"or whole:  zkchaos run switch-failure --attach {name}"))


def _start_all(name: str) -> None:
    """Start and continue every container of an ensemble."""
    with contextlib.closing(connect_engine()) as client, refusals(name):
        for container in containers_of(client, name):
            revive(container)


def revive(container: Container) -> None:
    """Start a container if it has ended, and let it go on if it was stopped."""
    container.start()
    container.kill(signal="SIGCONT")


# --- fault --------------------------------------------------------------------------------------------------


def break_once(console: Console, name: str, kind: str, target: str, seconds: float, *, helper: bool = False) -> None:
    """Inject one fault, prove it, wait, heal it, and prove that it is gone. Ctrl-C heals at once.

    Args:
        console: where the proof is printed.
        name: the ensemble.
        kind: one of `KINDS`.
        target: as in a plan.
        seconds: how long it lasts; a kind that does not last heals at once.
        helper: insist on the helper container.

    Raises:
        UsageError: no such kind, target or ensemble; nothing was touched.
        FaultError: it did not bite, or did not heal.
    """
    if kind not in KINDS:
        raise UsageError(
            f"there is no kind of fault {value_text(kind)}",
            where="zkchaos fault",
            next_step=f"{nearest(kind, KINDS)}allowed: {allowed_words(KINDS)}",
        )
    found = look_at(name)
    topology = found.topology
    try:
        check_target(KINDS[kind].aim, target, topology)
    except ValueError as problem:
        raise UsageError(str(problem), where=f"zkchaos fault {kind}") from problem
    if reason := refusal(kind, target, guests(found)):
        raise UsageError(f"it is not offered of {reason}", where=f"zkchaos fault {kind}")
    with _attached(name, topology, helper=helper) as stage, tempfile.TemporaryDirectory(prefix="zkchaos-") as scratch:
        try:
            folder = RunFolder.create(Path(scratch) / "run")
        except RunFolderError as problem:
            raise FaultError("no scratch folder can be made", where=scratch) from problem
        ensemble = Ensemble(stage.testbed, topology, folder, stage.starter, lambda event: _tell(console, event))
        for server in topology.servers:
            ensemble.start_server(server.id)
        nemesis = Nemesis(ensemble, lambda event: _tell(console, event), seed=0)
        with nemesis.fault(kind, target):
            if KINDS[kind].lasts:
                threading.Event().wait(seconds)


def _tell(console: Console, event: Event) -> None:
    match event:
        case ProbeEvent():
            console.print(Text(f"{event.stage:>8}: {event.summary}"), soft_wrap=True)
        case FaultEvent(action=FaultAction.INJECT):
            console.print(Text(f"✗ {event.fault} {event.target}", style="red"))
        case FaultEvent(action=FaultAction.HEALED):
            console.print(Text(f"✓ {event.fault} {event.target} healed", style="green"))
        case FaultEvent(action=FaultAction.FAILED):
            console.print(Text(f"! {event.fault} {event.target}: {event.detail}", style="magenta"))

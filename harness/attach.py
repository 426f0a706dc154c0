"""Works by hand on an ensemble of containers that runs already: look at it, break it once, heal it."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from harness.errors import EnsembleError, FaultError, UsageError
from harness.history.folder import RunFolder
from harness.history.records import Event, FaultAction, FaultEvent, ProbeEvent
from harness.nemesis.kinds import KINDS, Aim
from harness.nemesis.nemesis import Nemesis
from harness.nemesis.offers import Guest, refusal
from harness.nemesis.targets import check_target
from harness.stage.make import docker_missing, make_stage
from harness.stage.stage import Stage
from harness.testbed.handles import Link
from harness.testbed.wire import Path as Reached
from harness.topology.toml_document import allowed_words, nearest, one_line, value_text
from harness.zookeeper import admin
from harness.zookeeper.admin import ServerStatus
from harness.zookeeper.cache import cache_folder
from harness.zookeeper.ensemble import Ensemble

try:
    from harness.testbed.engine import connect_engine
    from harness.zookeeper.found import FoundEnsemble, find_ensemble, start_all
except ModuleNotFoundError as missing:
    raise docker_missing(missing) from missing

#: How long one look at the paths of a network takes at most, milliseconds.
_REACH_MS = 300
#: How long an ensemble may take until it is whole after everything was healed, seconds: the start of its servers, an
#: election, and carriers that the kernel announces.
_HEAL_TIMEOUT = 30.0
_POLL = 0.1
#: How long a fault by hand lasts if nobody says, seconds.
SECONDS = 10.0
#: Nothing of a fault by hand is kept, so its servers have no folders.
_NO_FOLDER = RunFolder(Path(os.devnull))


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


def look_at(name: str, *, patience: float | None = None) -> FoundEnsemble:
    """Find an ensemble, without touching it.

    Raises:
        UsageError, TestbedError: as `find_ensemble` says.
    """
    with contextlib.closing(connect_engine()) as client:
        return find_ensemble(client, name) if patience is None else find_ensemble(client, name, patience=patience)


def guests(found: FoundEnsemble) -> tuple[Guest, ...]:
    """What decides which faults are offered of its servers."""
    return tuple(Guest(f"zk{i}", s.first_process, s.removed_at_end) for i, s in found.servers.items())


@contextlib.contextmanager
def _attached(
    console: Console, found: FoundEnsemble, record: Callable[[Event], None], *, helper: bool = False
) -> Iterator[tuple[Stage, Ensemble]]:
    kind = "docker-helper" if helper else "docker"
    stage = make_stage(kind, found.topology, None, lambda line: _say(console, line), attached=found.name)
    with contextlib.closing(stage):
        ensemble = Ensemble(stage.testbed, found.topology, _NO_FOLDER, stage.starter, record)
        for server in found.topology.servers:
            ensemble.start_server(server.id)
        yield stage, ensemble


def _say(console: Console, line: str, style: str = "") -> None:
    """One line, never broken in the middle: somebody may want to copy it."""
    console.print(Text(line, style=style), soft_wrap=True)


# --- attach -------------------------------------------------------------------------------------------------


def show(console: Console, name: str, *, heal: bool = False) -> None:
    """Print what an ensemble looks like: servers, addresses, roles, and which paths answer.

    Args:
        console: where to.
        name: as `find_ensemble` takes it.
        heal: restore every link, continue and start every server first.

    Raises:
        UsageError, TestbedError: as `find_ensemble` says.
        EnsembleError: it was to be healed, and is not whole.
    """
    if heal:
        with contextlib.closing(connect_engine()) as client:
            start_all(client, name)
    found = look_at(name, patience=_HEAL_TIMEOUT if heal else None)
    with _attached(console, found, lambda _event: None) as (stage, ensemble):
        if heal:
            stage.testbed.set_links([Link(switch) for switch in found.topology.switch_names], up=True)
            stage.testbed.set_nics([Link(nic.switch, nic.host) for nic in found.topology.nics()], up=True)
        deadline = time.monotonic() + _HEAL_TIMEOUT
        while (sight := _Sight(stage, ensemble)).ailing and heal and time.monotonic() < deadline:
            time.sleep(_POLL)
        for line in (*_table(found, sight), *_networks(found, sight), *_what_next(found, stage, sight)):
            _say(console, line)
    if heal and sight.ailing:
        raise EnsembleError(
            f"it is not whole {_HEAL_TIMEOUT:g} s after everything was healed: {sight.ailing}", where=one_line(name)
        )


class _Sight:
    """What can be seen of an ensemble at one moment."""

    def __init__(self, stage: Stage, ensemble: Ensemble) -> None:
        topology = ensemble.topology
        self.paths: dict[str, tuple[Reached, ...]] = {
            switch: stage.testbed.reach([switch], timeout_ms=_REACH_MS) for switch in topology.switch_names
        }
        self.statuses: dict[str, ServerStatus] = admin.statuses(stage.testbed, [s.host for s in topology.servers])
        self.ailing = "; ".join([*self._silent_paths(), *self._idle_servers()])

    def _silent_paths(self) -> list[str]:
        return [
            f"{answered} of {len(paths)} paths over {switch} answer"
            for switch, paths in self.paths.items()
            if (answered := sum(path.micros is not None for path in paths)) < len(paths)
        ]

    def _idle_servers(self) -> list[str]:
        return [f"{host} is {status.role}" for host, status in self.statuses.items() if not status.serving]


def _table(found: FoundEnsemble, sight: _Sight) -> list[str]:
    switches = found.topology.switch_names
    rows: list[tuple[str, ...]] = [("server", "role", *switches, "container")]
    for server in found.topology.servers:
        addresses = {nic.switch: str(nic.address) for nic in server.nics}
        cells = [addresses.get(switch, "-") for switch in switches]
        rows.append((server.host, sight.statuses[server.host].role, *cells, found.servers[server.id].name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _networks(found: FoundEnsemble, sight: _Sight) -> Iterator[str]:
    yield ""
    for switch, paths in sight.paths.items():
        answered = sum(path.micros is not None for path in paths)
        said = f"{switch}: {answered} of {len(paths)} paths answer"
        said += f"; network {found.networks[switch]}, bridge {found.bridges[switch]}"
        if others := found.neighbours[switch]:
            said += f"; its death is also that of {', '.join(others[:5])}{' and others' if len(others) > 5 else ''}"
        yield said


def _what_next(found: FoundEnsemble, stage: Stage, sight: _Sight) -> Iterator[str]:
    topology, name = found.topology, shlex.quote(found.name)
    way = "through a helper container" if stage.testbed.rootless else "by an agent beside the engine"
    yield ""
    yield f"attached to {found.name} {way}"
    if sight.ailing:
        yield f"it is not whole: {sight.ailing}"
        yield f"  mend it     zkchaos attach {name} --heal"
    yield f"  connect to  {topology.connection_string()}"
    yield f"  break it    zkchaos fault switch-down {topology.switch_names[0]} --for 10s"
    # of a single switch nobody survives the death; that is the control experiment
    plan = "switch-failure" if len(topology.switches) > 1 else "leader-kill"
    yield f"  try it      zkchaos run {plan} --attach {name}"


# --- fault --------------------------------------------------------------------------------------------------


def break_once(
    console: Console, name: str, kind: str, target: str, seconds: float | None = None, *, helper: bool = False
) -> None:
    """Inject one fault, prove it, wait, heal it, and prove that it is gone. Ctrl-C heals at once.

    Args:
        console: where the proof is printed.
        name: the ensemble.
        kind: one of `KINDS`.
        target: as in a plan; a switch may also be called as its network is.
        seconds: how long it lasts; None: `SECONDS`. A kind that does not last heals at once, and takes none.
        helper: insist on the helper container.

    Raises:
        UsageError: no such kind, target or ensemble; nothing was touched.
        FaultError: it was broken already, did not bite, or did not heal.
    """
    if kind not in KINDS:
        raise UsageError(
            f"there is no kind of fault {value_text(kind)}",
            where="zkchaos fault",
            next_step=f"{nearest(kind, KINDS)}allowed: {allowed_words(KINDS)}",
        )
    if seconds is not None and not KINDS[kind].lasts:
        raise UsageError(f"a {kind} does not last", where="--for", next_step="leave it out")
    if seconds == 0:
        raise UsageError("a fault of no length proves nothing", where="--for")
    found = look_at(name)
    target = _translated(KINDS[kind].aim, target, found)
    try:
        check_target(KINDS[kind].aim, target, found.topology)
    except ValueError as problem:
        raise UsageError(str(problem), where=f"zkchaos fault {kind}") from problem
    if reason := refusal(kind, target, guests(found)):
        raise UsageError(f"it is not offered of {reason}", where=f"zkchaos fault {kind}")
    teller = _Teller(console, name)
    with _attached(console, found, teller, helper=helper) as (stage, ensemble):
        nemesis = Nemesis(ensemble, teller, seed=time.monotonic_ns())
        try:
            with nemesis.fault(kind, target):
                if KINDS[kind].lasts:
                    threading.Event().wait(SECONDS if seconds is None else seconds)
        finally:
            nemesis.heal_all()  # nothing, unless the injection was interrupted
        if remark := stage.remark():
            _say(console, f"note: {remark}")


def _translated(aim: Aim, target: str, found: FoundEnsemble) -> str:
    """The target, with a network's own name replaced by that of the switch."""
    if aim is Aim.SWITCH:
        return found.aliases.get(target, target)
    if aim is Aim.LINK:
        host, colon, switch = target.partition(":")
        return f"{host}{colon}{found.aliases.get(switch, switch)}"
    return target


class _Teller:
    """Prints the life of one fault, and stops it before it begins where it could prove nothing."""

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        #: When it was injected and healed, monotonic nanoseconds.
        self._times: dict[FaultAction, int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case ProbeEvent():
                _say(self._console, f"{event.stage:>8}: {event.summary}")
                if event.stage == "before" and event.bites is not False:
                    raise FaultError(
                        "it is broken already, so a fault would prove nothing",
                        where=one_line(self._name),
                        next_step=f"`zkchaos attach {shlex.quote(one_line(self._name))} --heal` mends it",
                    )
                if event.stage == "after":
                    _say(self._console, self._how_long())
            case FaultEvent():
                self._times[event.action] = event.at
                self._tell(event)

    def _tell(self, event: FaultEvent) -> None:
        role = f" ({event.asked})" if event.asked not in {event.target, event.target.removeprefix("zk")} else ""
        what = f"{event.fault} {event.target}{role}"
        match event.action:
            case FaultAction.INJECT:
                _say(self._console, f"✗ {what}", "red")
            case FaultAction.HEALED:
                _say(self._console, f"✓ {what} healed", "green")
            case FaultAction.FAILED:
                _say(self._console, f"! {what}: {event.detail}", "magenta")

    def _how_long(self) -> str:
        injected, heal, healed = (
            self._times.get(a, 0) / 1e9 for a in (FaultAction.INJECT, FaultAction.HEAL, FaultAction.HEALED)
        )
        return f"it lasted {heal - injected:.1f} s, and was gone {healed - heal:.1f} s after that"

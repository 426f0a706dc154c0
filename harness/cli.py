"""The command line, `zkchaos`. Exit codes: 0 valid, 1 violated, 2 unknown, 3 broken, 64 usage, 130 interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import __version__
from harness.errors import RunFolderError, UsageError, ZkChaosError
from harness.history.folder import RunFolder, run_folders

if TYPE_CHECKING:
    from harness.nemesis.offers import Guest
    from harness.topology.model import Topology

EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="zkchaos",
    help="Break a ZooKeeper ensemble on purpose, and prove which of its promises held.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console()
_errors = Console(stderr=True)

RunsOption = Annotated[Path, typer.Option("--runs", envvar="ZKCHAOS_RUNS", help="Where the run folders are kept.")]
#: As `stage.make.TESTBEDS`, which is not imported for this.
Testbeds = Literal["namespaces", "docker", "docker-helper"]
#: The machine's own kernel, or one with netem that runs as an ordinary process.
Kernels = Literal["host", "usermode"]
RunArgument = Annotated[str, typer.Argument(help="A run folder, its name below --runs, or `latest`.")]
MemoryOption = Annotated[int, typer.Option("--memory", help="The guest's memory in MB; its files are in it too.")]


@app.command()
def run(
    plan: Annotated[str, typer.Argument(help="A fault plan: a name (see `zkchaos plans`) or a TOML file.")],
    topology: Annotated[str | None, typer.Option(help="A name (see `zkchaos topologies`) or a TOML file.")] = None,
    seed: Annotated[int, typer.Option(help="Decides everything that is left to chance.")] = 0,
    duration: Annotated[str | None, typer.Option(help="How long the load runs, as 30s or 2m.")] = None,
    zookeeper: Annotated[str | None, typer.Option(help="Version: 3.9, 3.8.6, directory:PATH, debian.")] = None,
    single_address: Annotated[
        bool, typer.Option("--single-address", help="Multi-address off: the control experiment.")
    ] = False,
    clients: Annotated[int | None, typer.Option(help="Number of sessions.")] = None,
    rate: Annotated[float | None, typer.Option(help="Operations per second, all sessions together.")] = None,
    testbed: Annotated[
        Testbeds, typer.Option(help="`docker-helper`: on Docker through the helper container, also as root.")
    ] = "namespaces",
    attach_to: Annotated[
        str | None, typer.Option("--attach", help="An ensemble that runs already: a Compose project, or a label.")
    ] = None,
    kernel: Annotated[
        Kernels, typer.Option(help="`usermode`: in a kernel with netem that needs no privileges (`zkchaos usermode`).")
    ] = "host",
    runs: RunsOption = Path("runs"),
) -> None:
    """Perform a scenario, judge it, and write its page."""
    from harness.scenario import make_request, new_run_path
    from harness.topology.duration import parse_duration
    from harness.usermode.machine import inside

    try:
        duration_s = parse_duration(duration) if duration is not None else None
    except ValueError as problem:
        raise UsageError(str(problem), where="--duration") from problem
    if attach_to is not None:
        _refuse_beside_attach({"--topology": topology, "--zookeeper": zookeeper, "--single-address": single_address})
    if kernel == "usermode" and attach_to is not None:
        raise UsageError("what runs outside is out of the guest's reach", where="--attach with --kernel usermode")
    testbed, found, guests = _attached(testbed, attach_to)
    request = make_request(
        plan,
        attached=attach_to,
        attached_topology=found,
        guests=guests,
        topology_name=topology,
        seed=seed,
        duration_s=duration_s,
        version=zookeeper,
        multi_address=False if single_address else None,
        clients=clients,
        rate=rate,
        testbed=testbed,
        kernel="usermode" if inside() else kernel,
    )
    if kernel == "usermode" and not inside():
        from harness.usermode_command import run_again_inside

        # everything has been read and checked; it is read again where it is performed
        raise typer.Exit(run_again_inside(request, runs, _console.print))
    root = new_run_path(runs.absolute(), request.scenario)

    from harness.testbed.client import warm_up

    if testbed != "docker-helper":
        warm_up()  # the agent starts while the rest of the harness is loaded
    from harness.cli_view import LiveView, show_judgement, show_overall
    from harness.judge_and_tell import judge_and_tell
    from harness.run import perform

    failure: ZkChaosError | None = None
    interrupted = False
    try:
        with LiveView(_console, request.scenario.duration_s) as view:
            perform(request, root, view, tell=view.tell)
    except UsageError:
        raise
    except ZkChaosError as problem:
        failure = problem
    except KeyboardInterrupt:
        interrupted = True
    if not (root / "scenario.json").exists():
        raise failure or KeyboardInterrupt
    with _after(failure):
        judgement, page = judge_and_tell(RunFolder.open(root))
        show_judgement(_console, judgement)
        show_overall(_console, judgement, str(page), request.scenario.repeat)
        if failure is None:
            raise typer.Exit(EXIT_INTERRUPTED if interrupted else judgement.overall.exit_code)


def _refuse_beside_attach(options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise UsageError("an ensemble that runs already is what it is", where=option, next_step="leave it out")


def _attached(testbed: Testbeds, name: str | None) -> tuple[Testbeds, Topology | None, tuple[Guest, ...]]:
    """The testbed, topology and servers of an ensemble that runs already; nothing changes where there is no name."""
    if name is None:
        return testbed, None, ()
    from harness.attach import guests, look_at

    found = look_at(name)
    return ("docker" if testbed == "namespaces" else testbed), found.topology, guests(found)


@contextlib.contextmanager
def _after(failure: ZkChaosError | None) -> Iterator[None]:
    """Let the run's own failure be the one that is told, whatever judging what is left of it comes to."""
    try:
        yield
    except ZkChaosError as problem:
        raise failure or problem from None
    if failure is not None:
        raise failure


@app.command()
def check(folder: RunArgument = "latest", runs: RunsOption = Path("runs")) -> None:
    """Judge a run again: pure, repeatable, from its folder alone."""
    from harness.cli_view import show_judgement
    from harness.judge_and_tell import judge_run

    judgement = judge_run(_find(folder, runs))
    show_judgement(_console, judgement)
    _console.print(judgement.overall.value)
    raise typer.Exit(judgement.overall.exit_code)


@app.command()
def report(folder: RunArgument = "latest", runs: RunsOption = Path("runs")) -> None:
    """Write a run's page again, and print where it is."""
    from harness.judge_and_tell import judge_and_tell

    _judgement, page = judge_and_tell(_find(folder, runs))
    print(page)  # noqa: T201  # one plain path for scripts, never wrapped


@app.command("runs")
def list_runs(
    runs: RunsOption = Path("runs"), limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50
) -> None:
    """List the runs, newest first."""
    from harness.check.verdict import load_judgement

    if runs.exists() and not runs.is_dir():
        raise RunFolderError("this is not a folder of runs", where=str(runs), next_step="name one with --runs")
    table = Table("run", "topology", "seed", "verdict", box=None)
    for number, folder in enumerate(run_folders(runs)):
        if number == limit:
            break
        try:
            scenario = folder.scenario()
            verdict = load_judgement(folder).overall.value if folder.verdicts_file.exists() else "not judged"
            table.add_row(folder.root.name, scenario.topology, str(scenario.seed), verdict)
        except RunFolderError as problem:
            table.add_row(folder.root.name, "", "", f"unreadable: {problem.what}")
    if not table.row_count:
        _console.print(f"no runs in {runs}; `zkchaos run switch-failure` makes one", highlight=False)
        return
    _console.print(table)


@app.command()
def topologies() -> None:
    """List the topologies that come with the harness."""
    from harness.topology.drawing import describe
    from harness.topology.loader import library_topologies, load_topology

    for name in library_topologies():
        _console.print(Text(f"{name:18} {describe(load_topology(name))}"), soft_wrap=True)


@app.command()
def show(topology: Annotated[str, typer.Argument(help="A topology's name or file.")]) -> None:
    """Draw a topology: its switches, hosts and addresses."""
    from harness.topology.drawing import draw
    from harness.topology.loader import load_topology

    print(draw(load_topology(topology)))  # noqa: T201  # a drawing must not be wrapped


@app.command()
def compose(
    topology: Annotated[str, typer.Argument(help="A topology's name or file.")],
    write: Annotated[bool, typer.Option("--write", help="Write compose/NAME.yml instead of printing it.")] = False,
) -> None:
    """Print a topology's Compose file."""
    from harness.compose import compose_file
    from harness.topology.loader import load_topology

    loaded = load_topology(topology)
    text = compose_file(loaded)
    if not write:
        print(text, end="")  # noqa: T201  # for a file or a pipe
        return
    path = Path("compose", f"{loaded.name}.yml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path)  # noqa: T201  # as `report` does


@app.command()
def up(topology: Annotated[str, typer.Argument(help="A topology's name or file.")]) -> None:
    """Bring a topology up with Docker Compose; say who leads, how to reach it and how to break it."""
    import time

    from harness.testbed.engine import connect_engine
    from harness.topology.drawing import draw
    from harness.topology.loader import load_topology

    loaded = load_topology(topology)
    with contextlib.closing(connect_engine()) as client:
        from harness.compose_project import ComposeProject, wait_until_serving
        from harness.compose_view import how_to_use

        project = ComposeProject(loaded.name, client)
        print(draw(loaded))  # noqa: T201  # a drawing must not be wrapped
        begun = time.monotonic()
        project.up(loaded, lambda line: _console.print(Text(line), soft_wrap=True))
        took = time.monotonic() - begun
        print(how_to_use(loaded, wait_until_serving(project), took), end="")  # noqa: T201  # a table, likewise


@app.command()
def down(topology: Annotated[str, typer.Argument(help="A topology's name or file.")]) -> None:
    """Remove what `zkchaos up` made: containers, networks and data."""
    from harness.testbed.engine import connect_engine
    from harness.topology.loader import load_topology

    with contextlib.closing(connect_engine()) as client:
        from harness.compose_project import ComposeProject

        project = ComposeProject(topology, client)
        if not project.exists():  # then it must be a topology at least, and may be a file
            project = ComposeProject(load_topology(topology).name, client)
        project.down()
    _console.print(f"{project.topology_name} is down", highlight=False)


@app.command()
def image(
    zookeeper: Annotated[
        list[str] | None, typer.Option(help="A server of this version; may be said several times.")
    ] = None,
    helper: Annotated[bool, typer.Option("--helper", help="The helper container, for users without root.")] = False,
    toxiproxy: Annotated[bool, typer.Option("--toxiproxy", help="A TCP proxy that delays and cuts.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Of the newest Debian packages.")] = False,
) -> None:
    """Make images on the Docker engine, without any registry; all three if none is named."""
    from harness.testbed.engine import connect_engine

    def tell(line: str) -> None:
        _console.print(Text(line), soft_wrap=True)

    with contextlib.closing(connect_engine()) as client:
        from harness.images.make import make_images

        for made in make_images(client, zookeeper or (), tell, helper=helper, toxiproxy=toxiproxy, fresh=fresh):
            tell(str(made))


@app.command()
def plans() -> None:
    """List the fault plans that come with the harness, and the kinds of fault."""
    from harness.nemesis.kinds import KINDS
    from harness.nemesis.plan_loader import library_plans, load_plan

    for name in library_plans():
        _console.print(Text(f"{name:24} {load_plan(name).title}"), soft_wrap=True)
    _console.print("\nkinds of fault:")
    for kind in KINDS.values():
        _console.print(Text(f"{kind.name:24} {kind.summary}"), soft_wrap=True)


@app.command()
def faults() -> None:
    """List the kinds of fault: how a plan says them, what they need, and whether this machine has it."""
    from harness.faults_view import show_faults

    show_faults(_console)


@app.command()
def attach(
    name: Annotated[str, typer.Argument(help="A Compose project, a topology that is up, or a label as key=value.")],
    heal: Annotated[bool, typer.Option(help="Restore every link and start every server first.")] = False,
) -> None:
    """Look at an ensemble of containers that runs already, and let `zkchaos fault` break it."""
    from harness.attach import remember, show

    show(_console, name, heal=heal)
    remember(name)


@app.command()
def fault(
    kind: Annotated[str, typer.Argument(help="A kind of fault, as `zkchaos plans` lists them.")],
    target: Annotated[str, typer.Argument(help="As in a plan: net1, zk2, zk2:net1, leader, `a follower`, minority.")],
    for_: Annotated[str | None, typer.Option("--for", help="How long; 10s if not said.")] = None,
    name: Annotated[str | None, typer.Option("--on", help="What to break; else what was attached last.")] = None,
    helper: Annotated[bool, typer.Option("--helper", help="Through the helper container, also as root.")] = False,
) -> None:
    """Break an attached ensemble once, prove it, and heal it."""
    from harness.attach import break_once, remembered
    from harness.topology.duration import parse_duration

    try:
        seconds = parse_duration(for_) if for_ is not None else None
    except ValueError as problem:
        raise UsageError(str(problem), where="--for") from problem
    break_once(_console, remembered() if name is None else name, kind, target, seconds, helper=helper)


@app.command()
def doctor(runs: RunsOption = Path("runs")) -> None:
    """Say what this machine can do, and what to do about the rest."""
    from harness.doctor import examine, show_findings
    from harness.doctor_finding import possible

    findings = examine(runs)
    show_findings(_console, findings)
    raise typer.Exit(0 if possible(findings) else 3)


@app.command()
def usermode(
    command: Annotated[list[str], typer.Argument(help="After `--`: a command and its arguments, as `pytest tests`.")],
    memory: MemoryOption = 4096,
    deadline: Annotated[str, typer.Option(help="The command is told to end after so long, as 30s or 10m.")] = "1h",
    writable: Annotated[
        list[Path] | None, typer.Option(help="A folder that it may write to, beside --runs; may be said several times.")
    ] = None,
    docker: Annotated[bool, typer.Option("--docker", help="With a Docker engine of its own.")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """Run any command in a user-mode Linux kernel with netem, on this machine's files, without any privileges.

    Its output, its exit code and its run folders come out; whatever else it writes is gone with the kernel.
    """
    from harness.topology.duration import parse_duration
    from harness.usermode_command import run_inside

    try:
        deadline_s = parse_duration(deadline)
    except ValueError as problem:
        raise UsageError(str(problem), where="--deadline") from problem
    raise typer.Exit(run_inside(command, runs, writable or (), memory_mb=memory, deadline_s=deadline_s, docker=docker))


@app.command()
def clean() -> None:
    """Remove what dead runs left on the Docker engine, and nothing else."""
    from harness.testbed.engine import connect_engine

    with contextlib.closing(connect_engine()) as client:
        from harness.testbed.leftovers import Leftover, remove_leftovers

        removed: list[Leftover] = []

        def tell(thing: Leftover) -> None:
            removed.append(thing)
            _console.print(Text(f"removed {thing}"), soft_wrap=True)

        for kept in remove_leftovers(client, tell):
            _console.print(Text(f"kept {kept}"), soft_wrap=True)
    if not removed:
        _console.print("dead runs have left nothing")


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Break a ZooKeeper ensemble on purpose, and prove which of its promises held."""
    if version:
        print(__version__)  # noqa: T201  # for scripts
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201  # as typer formats it
        raise typer.Exit(EXIT_USAGE)  # a script whose command is empty must not take this for a pass


def _find(name: str, runs: Path) -> RunFolder:
    for path in (Path(name), runs / name):
        if _exists(path / "scenario.json"):
            return RunFolder.open(path)
    for path in (runs / name, Path(name)):
        if _exists(path):
            return RunFolder.open(path)  # says what is wrong with it
    where = name if len(name) < 200 else f"{name[:200]}…"
    raise RunFolderError(
        "there is no such run", where=where, next_step=f"`zkchaos runs --runs {runs}` lists those there are"
    )


def _exists(path: Path) -> bool:
    """Whether it exists; no error for a path that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


#: The base of typer's complaints about options and arguments, wherever this version of typer keeps it.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_run(sys.argv[1:]))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does: healed, judged, told."""
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    try:
        result = app(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ZkChaosError as problem:
        _complain(str(problem))
        return problem.exit_code
    except _UsageProblem as problem:
        _complain(_usage_words(problem))
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `zkchaos runs | head`: nobody reads on; keep Python from complaining when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        # a file that may not be read, a disk that is gone: not a mistake of the harness, and no reason for a traceback
        _complain(f"{problem.filename or 'the system'}: {problem.strerror or problem}")
        return ZkChaosError.exit_code


def _complain(text: str) -> None:
    """One line on stderr, whatever characters a file's name may have."""
    from harness.topology.toml_document import one_line

    _errors.print(Text(f"zkchaos: {one_line(text)}"), soft_wrap=True)


def _usage_words(problem: Exception) -> str:
    """What typer has to say, with the option it is about and where to read on."""
    describe = getattr(problem, "format_message", None)
    said = str(describe()) if callable(describe) else str(problem)
    context: typer.Context | None = getattr(problem, "ctx", None)
    command = f"zkchaos {context.info_name}" if context is not None and context.parent is not None else "zkchaos"
    return f"{said.rstrip('.')}; see `{command} --help`"


if __name__ == "__main__":
    main()

"""Commands that perform, judge, tell and list runs, or run anything in a kernel of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from harness.cli_options import EXIT_INTERRUPTED, RunsOption, console
from harness.errors import RunFolderError, UsageError, ZkChaosError
from harness.history.folder import RunFolder, run_folders

if TYPE_CHECKING:
    from harness.nemesis.offers import Guest
    from harness.topology.model import Topology

#: As `stage.make.TESTBEDS`, which is not imported for this.
Testbeds = Literal["namespaces", "docker", "docker-helper"]
#: The machine's own kernel, or one with netem that runs as an ordinary process.
Kernels = Literal["host", "usermode"]
RunArgument = Annotated[str, typer.Argument(help="A run folder, its name below --runs, or `latest`.")]
MemoryOption = Annotated[int, typer.Option("--memory", help="The guest's memory in MB; its files are in it too.")]

commands = typer.Typer()


@commands.command()
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
        raise typer.Exit(run_again_inside(request, runs, console.print))
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
        with LiveView(console, request.scenario.duration_s) as view:
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
        show_judgement(console, judgement)
        show_overall(console, judgement, str(page), request.scenario.repeat)
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


@commands.command()
def check(folder: RunArgument = "latest", runs: RunsOption = Path("runs")) -> None:
    """Judge a run again: pure, repeatable, from its folder alone."""
    from harness.cli_view import show_judgement
    from harness.judge_and_tell import judge_run

    judgement = judge_run(_find(folder, runs))
    show_judgement(console, judgement)
    console.print(judgement.overall.value)
    raise typer.Exit(judgement.overall.exit_code)


@commands.command()
def report(folder: RunArgument = "latest", runs: RunsOption = Path("runs")) -> None:
    """Write a run's page again, and print where it is."""
    from harness.judge_and_tell import judge_and_tell

    _judgement, page = judge_and_tell(_find(folder, runs))
    print(page)  # noqa: T201  # one plain path for scripts, never wrapped


@commands.command("runs")
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
        console.print(f"no runs in {runs}; `zkchaos run switch-failure` makes one", highlight=False)
        return
    console.print(table)


@commands.command()
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

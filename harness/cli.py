"""The command line, `zkchaos`. Exit codes: 0 valid, 1 violated, 2 unknown, 3 broken, 64 usage, 130 interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import __version__
from harness.errors import RunFolderError, UsageError, ZkChaosError
from harness.history.folder import RunFolder, run_folders

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
RunArgument = Annotated[str, typer.Argument(help="A run folder, its name below --runs, or `latest`.")]


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
    runs: RunsOption = Path("runs"),
) -> None:
    """Perform a scenario, judge it, and write its page."""
    from harness.scenario import make_request, new_run_path
    from harness.topology.duration import parse_duration

    try:
        duration_s = parse_duration(duration) if duration is not None else None
    except ValueError as problem:
        raise UsageError(str(problem), where="--duration") from problem
    request = make_request(
        plan,
        topology_name=topology,
        seed=seed,
        duration_s=duration_s,
        version=zookeeper,
        multi_address=False if single_address else None,
        clients=clients,
        rate=rate,
    )
    root = new_run_path(runs.absolute(), request.scenario)

    from harness.testbed.client import warm_up

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
def doctor(runs: RunsOption = Path("runs")) -> None:
    """Say what this machine can do, and what to do about the rest."""
    from harness.doctor import examine, show_findings

    findings = examine(runs)
    show_findings(_console, findings)
    raise typer.Exit(0 if all(f.ok or not f.needed for f in findings) else 3)


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

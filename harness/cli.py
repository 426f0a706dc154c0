"""The command line, `zkchaos`. Exit codes: 0 valid, 1 violated, 2 unknown, 3 broken, 64 usage, 130 interrupted."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from harness import __version__, cli_docker, cli_lists, cli_runs
from harness.cli_options import EXIT_INTERRUPTED, EXIT_USAGE
from harness.errors import ZkChaosError

app = typer.Typer(
    name="zkchaos",
    help="Break a ZooKeeper ensemble on purpose, and prove which of its promises held.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (cli_runs, cli_lists, cli_docker):
    app.add_typer(part.commands)

_errors = Console(stderr=True)


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

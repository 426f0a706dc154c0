"""What the commands share: the terminal, their exit codes, and the options that several have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

console = Console()

RunsOption = Annotated[Path, typer.Option("--runs", envvar="ZKCHAOS_RUNS", help="Where the run folders are kept.")]
TopologyArgument = Annotated[str, typer.Argument(help="A topology's name or file.")]

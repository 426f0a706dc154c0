"""What the command line shows: live progress of a run, and its verdicts at the end."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from harness.check.verdict import Finding, Judgement, Overall
from harness.history.records import Event, FaultAction, FaultEvent, Note, Phase, ProbeEvent, Sample

_STYLES = {
    Finding.VALID: "green",
    Finding.VIOLATED: "bold red",
    Finding.UNKNOWN: "yellow",
}
_OVERALL = {
    Overall.VALID: "bold green",
    Overall.VIOLATED: "bold red",
    Overall.UNKNOWN: "bold yellow",
    Overall.BROKEN: "bold magenta",
}


class LiveView:
    """Prints what happens as it happens; an observer of events. Quiet where the output is not a terminal's."""

    def __init__(self, console: Console, duration_s: float) -> None:
        self._console, self._duration = console, duration_s
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._start: int | None = None
        self._roles: dict[int, str] = {}
        self._ticking = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> LiveView:
        self._progress.start()
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ticking.set()
        self._ticker.join()
        self._progress.stop()

    def _tick(self) -> None:
        while not self._ticking.wait(0.2):
            if self._start is not None:
                done = (time.monotonic_ns() - self._start) / 1e9
                self._progress.update(self._task, completed=min(done, self._duration))

    def tell(self, line: str) -> None:
        """Show what is being waited for before the run begins."""
        self._progress.update(self._task, description=line)
        self._progress.console.print(line, highlight=False, markup=False)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Phase(name="load"):
                self._start = event.at
                self._say(f"load: {event.detail}", event.at)
                self._progress.update(self._task, description="under load", total=self._duration)
            case Phase():
                self._progress.update(self._task, description=event.name)
            case FaultEvent(action=FaultAction.INJECT):
                asked = f" ({event.asked})" if event.asked not in ("", event.target) else ""
                self._say(f"[red]✗ {event.fault} {event.target}[/red]{asked}", event.at)
            case FaultEvent(action=FaultAction.HEALED):
                self._say(f"[green]✓ {event.fault} {event.target} healed[/green]", event.at)
            case FaultEvent(action=FaultAction.FAILED):
                self._say(f"[magenta]! {event.fault} {event.target}: {event.detail}[/magenta]", event.at)
            case ProbeEvent(stage="during", bites=True):
                self._say(f"  proved: {event.summary}", event.at)
            case Sample():
                self._role(event)
            case Note():
                self._say(f"[magenta]{event.text}[/magenta]", event.at)

    def _role(self, sample: Sample) -> None:
        before = self._roles.get(sample.server)
        self._roles[sample.server] = sample.role
        if before is not None and before != sample.role:
            self._say(f"  server {sample.server}: {before} -> {sample.role}", sample.at)

    def _say(self, text: str, at: int) -> None:
        seconds = (at - self._start) / 1e9 if self._start is not None else 0.0
        self._progress.console.print(f"{seconds:7.2f} s  {text}", highlight=False, soft_wrap=True)


def show_judgement(console: Console, judgement: Judgement) -> None:
    """The verdicts as a table, and the witnesses of what was violated."""
    table = Table(show_header=True, header_style="bold", expand=False)
    table.add_column("guarantee", no_wrap=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("why")
    for verdict in judgement.verdicts:
        finding = Text(verdict.finding.value, style=_STYLES[verdict.finding])
        table.add_row(verdict.guarantee, finding, Text(verdict.summary))
    console.print(table)
    for verdict in judgement.violated():
        console.print(Text(f"{verdict.guarantee}: {verdict.promise}", style="bold red"), soft_wrap=True)
        for witness in verdict.witnesses:
            console.print(Text(f"  - {witness.text}"), soft_wrap=True)
        for note in verdict.notes:
            console.print(Text(f"  {note}", style="yellow"), soft_wrap=True)
    for reason in judgement.broken:
        console.print(Text(f"broken: {reason}", style="magenta"), soft_wrap=True)


def show_overall(console: Console, judgement: Judgement, page: str, repeat: str) -> None:
    """The last three lines: what it comes to, where the page is, how to repeat it."""
    console.print(Text(judgement.overall.value.upper(), style=_OVERALL[judgement.overall]))
    console.print(Text(f"page:   {page}"), soft_wrap=True)
    console.print(Text(f"repeat: {repeat}"), soft_wrap=True)

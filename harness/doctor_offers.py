"""Shows which kinds of fault each testbed offers here, and every difference with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.doctor_finding import CapabilityFinding, missing
from harness.nemesis.kinds import KINDS
from harness.nemesis.offers import Offer, offers
from harness.stage.make import TESTBEDS

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Column:
    """What the table says of a testbed, or of an ensemble that runs already on one."""

    name: str
    testbed: str
    offers: tuple[Offer, ...]


_COLUMNS = (
    *(_Column(testbed, testbed, offers(testbed)) for testbed in TESTBEDS),
    _Column("--attach", "docker", offers("docker", attached=True)),
)


def show_offers(console: Console, findings: Sequence[CapabilityFinding]) -> None:
    """The table; below it what is not offered or is not quite the same, and why."""
    lacking = {column.name: missing(findings, column.testbed) for column in _COLUMNS}
    table = Table("fault", *(column.name for column in _COLUMNS), box=None)
    for number, kind in enumerate(KINDS):
        table.add_row(kind, *(_word(column.offers[number], here=not lacking[column.name]) for column in _COLUMNS))
    console.print(table)
    for finding, columns in _grouped((f, column.name) for column in _COLUMNS for f in lacking[column.name]):
        _say(console, f"{columns}: not here, for want of {finding.what}: {finding.found}")
    here = [column for column in _COLUMNS if not lacking[column.name]]
    reasons = [(o.unless, column.name, o.kind) for column in here for o in column.offers if o.unless]
    reasons += [(f"differs: {why}", column.name, o.kind) for column in here for o in column.offers for why in o.differs]
    for reason, columns in _grouped((reason, column) for reason, column, _kind in reasons):
        kinds = dict.fromkeys(kind for one, _column, kind in reasons if one == reason)
        _say(console, f"{columns}: {', '.join(kinds)}: {reason}")


def _word(offer: Offer, *, here: bool) -> str:
    if not here or offer.never:
        return "[yellow]no[/yellow]"
    if offer.unless:
        return "not of all"
    return "differs" if offer.differs else "yes"


def _grouped(pairs: Iterable[tuple[_T, str]]) -> list[tuple[_T, str]]:
    """Each first with all its seconds, in order and without repetition."""
    groups: dict[_T, dict[str, None]] = {}
    for first, second in pairs:
        groups.setdefault(first, {})[second] = None
    return [(first, ", ".join(seconds)) for first, seconds in groups.items()]


def _say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)

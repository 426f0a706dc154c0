"""Writes the page: one HTML file that needs no network, no server and no script to be read."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.check.evidence import Evidence
from harness.check.verdict import Judgement
from harness.history.folder import RunFolder, storage_error
from harness.report import words
from harness.report.material import gather
from harness.report.view import Page, assemble

#: No page is larger, whatever the run.
MAX_PAGE_BYTES = 1_500_000


def write_report(folder: RunFolder, evidence: Evidence | None, judgement: Judgement) -> Path:
    """Write `report.html` into a run folder, and return its path.

    A broken, aborted or empty run gets its page too: what cannot be read is named on it.

    Args:
        folder: the run folder.
        evidence: what was judged; None to read it from the folder, as far as that is possible.
        judgement: what the page says first.

    Raises:
        StorageFull: no space for the page.
        RunFolderError: the folder cannot be written.
    """
    text = render(assemble(folder, gather(folder, evidence), judgement))
    scratch = folder.report_file.with_suffix(".tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(folder.report_file)
    except OSError as problem:
        raise storage_error(problem, folder.report_file) from problem
    return folder.report_file


def render(page: Page) -> str:
    """Fill in the templates."""
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # What is marked as safe here is our own, and the numbers, which hold no "<"; all else is escaped.
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            page=page,
            style=Markup(_asset("page.css")),
            script=Markup(script),
            series=Markup(page.timeline.data),
            script_hash=digest,
        )
    )


def _asset(name: str) -> str:
    return resources.files("harness.report").joinpath("templates", name).read_text(encoding="utf-8").strip()


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "duration": words.duration,
            "count": words.count,
            "figure": words.figure,
            "plural": words.plural,
            "size": words.size,
            "shorten": words.shorten,
        }
    )
    return environment

"""The second half of the way through the house: run folder -> verdicts -> page."""

from __future__ import annotations

from pathlib import Path

from harness.check.evidence import Evidence, load_evidence
from harness.check.judge import judge
from harness.check.verdict import Judgement
from harness.history.folder import RunFolder
from harness.report.page import write_report


def judge_run(folder: RunFolder) -> Judgement:
    """Judge what is in a run folder, and write `verdicts.json`.

    Raises:
        UsageError: it is not a run folder, or its evidence is damaged.
    """
    return _judge(folder)[1]


def judge_and_tell(folder: RunFolder) -> tuple[Judgement, Path]:
    """Judge a run and write its page; returns the verdicts and the page's path."""
    evidence, judgement = _judge(folder)
    return judgement, write_report(folder, evidence, judgement)


def _judge(folder: RunFolder) -> tuple[Evidence, Judgement]:
    evidence = load_evidence(folder)
    judgement = judge(evidence)
    folder.write_json(folder.verdicts_file, judgement)
    return evidence, judgement

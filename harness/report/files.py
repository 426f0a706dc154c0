"""The raw files of a run folder, as relative links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.history.damaged import asides
from harness.history.folder import RunFolder

#: Most files that are listed; the folder itself has them all.
MAX_FILES = 60


@dataclass(frozen=True)
class RawFile:
    """One file, or a folder of them."""

    #: Relative to the run folder, with a slash at the end of a folder.
    path: str
    href: str
    #: Bytes; None for a folder.
    size: int | None
    what: str


def raw_files(folder: RunFolder) -> tuple[tuple[RawFile, ...], int]:
    """Those that are there, in the order in which a reader wants them, and how many are not listed."""
    found = [f for f in (_file(folder.root, path, what) for path, what in _candidates(folder)) if f]
    return tuple(found[:MAX_FILES]), max(0, len(found) - MAX_FILES)


def _candidates(folder: RunFolder) -> Iterator[tuple[Path, str]]:
    yield folder.scenario_file, "what was asked for"
    yield folder.environment_file, "machine and software"
    yield folder.verdicts_file, "verdicts, with every witness"
    yield folder.events_file, "faults, probes, samples of the servers, phases"
    for path in _sorted(folder.clients_folder, "*.jsonl"):
        yield path, "every operation of one client process"
    for server in folder.server_ids():
        part = folder.server(server)
        for path in (*_sorted(part.config, "*"), *_sorted(part.logs, "*")):
            yield path, f"zk{server}: {path.parent.name}"
        yield part.txnlog, f"zk{server}: transaction log"
        yield part.snapshot, f"zk{server}: snapshots"
        for aside in asides(part):
            yield aside.root, f"zk{server}: what a fault took away or damaged, as it was before"


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _file(root: Path, path: Path, what: str) -> RawFile | None:
    try:
        relative = path.relative_to(root).as_posix()
        if path.is_dir():
            return RawFile(f"{relative}/", f"{quote(relative)}/", None, what)
        return RawFile(relative, quote(relative), path.stat().st_size, what)
    except (OSError, ValueError):
        return None

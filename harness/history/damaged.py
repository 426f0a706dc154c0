"""What was put aside before a server's data was damaged on purpose, so that no evidence is lost by it.

::

    servers/<id>/damaged/<n>/damage.json      what was done, and what the files were like that were left in place
    servers/<id>/damaged/<n>/txnlog/...       the files as they were before, below the same names
    servers/<id>/damaged/<n>/snapshot/...

Whoever reads a server's log reads what was put aside as well, and passes over a file that is as the damage left it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.history.folder import RunFolder, ServerFolder, read_json, storage_error

_FOLDER = "damaged"
_RECORD = "damage.json"
#: Bytes that are hashed at a time.
_CHUNK = 1024 * 1024


class DamageRecord(msgspec.Struct, frozen=True):
    """What was done to some files."""

    #: The fault's place in the schedule.
    fault: int
    #: In words: `truncate log`.
    what: str
    #: The SHA-256 of each file that was left damaged, by its path below the server's folder.
    left: dict[str, str]


@dataclass(frozen=True)
class Aside:
    """Files that were put aside at one time."""

    root: Path

    @property
    def txnlog(self) -> Path:
        """As the server's own folder of that name."""
        return self.root / "txnlog"

    @property
    def snapshot(self) -> Path:
        """As the server's own folder of that name."""
        return self.root / "snapshot"

    def record(self) -> DamageRecord:
        """What was done.

        Raises:
            RunFolderError: it is not there, or not what it should be.
        """
        return read_json(self.root / _RECORD, DamageRecord)


def asides(server: ServerFolder) -> tuple[Aside, ...]:
    """Whatever was put aside of a server's data, oldest first."""
    folder = server.root / _FOLDER
    numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
    return tuple(Aside(folder / str(number)) for number in numbers)


def left_damaged(server: ServerFolder) -> frozenset[str]:
    """The SHA-256 of every file that was left damaged.

    Raises:
        RunFolderError: a record of it cannot be read.
    """
    return frozenset(digest for aside in asides(server) for digest in aside.record().left.values())


def put_aside(server: ServerFolder, files: Iterable[Path], *, keep: bool) -> Aside:
    """Put files aside that lie below a server's folder; `keep`: leave them in their place as well.

    Raises:
        StorageFull: no space.
        RunFolderError: it cannot be written there.
    """
    earlier = asides(server)
    aside = Aside(server.root / _FOLDER / str(int(earlier[-1].root.name) + 1 if earlier else 1))
    try:
        for file in files:
            place = aside.root / file.relative_to(server.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            if keep:
                shutil.copyfile(file, place)
            else:
                shutil.move(file, place)
        aside.root.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise storage_error(problem, aside.root) from problem
    return aside


def write_record(server: ServerFolder, aside: Aside, fault: int, what: str, damaged: Iterable[Path]) -> None:
    """Say what was done, now that it is done.

    Raises:
        StorageFull: no space.
        RunFolderError: it cannot be written there.
    """
    left = {str(file.relative_to(server.root)): sha256_of(file) for file in damaged}
    RunFolder(server.root).write_json(aside.root / _RECORD, DamageRecord(fault, what, left))


def sha256_of(file: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

"""A server's data on disk, while it is down: what is there, whether it is whole, and how it is damaged.

A transaction log is as `txnlog` says. A snapshot ends with the Adler-32 of all that is before, as a number of eight
bytes, and the text "/" with its length; it may be followed by another part that ends in the same way.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import FaultError, HistoryError
from harness.history.folder import ServerFolder
from harness.zookeeper.txnlog import read_log

_FILE_HEADER, _RECORD_HEADER = 16, struct.Struct(">qi")
_SNAPSHOT_MAGIC = b"ZKSN"
_SEAL = struct.Struct(">qi1s")
#: What is turned over of a byte.
_ALL_BITS = 0xFF
_NAME = re.compile(r"(log|snapshot)\.([0-9a-f]{1,16})", re.ASCII)
#: Where both kinds of file are, below `dataLogDir` and `dataDir`.
_VERSION = "version-2"


@dataclass(frozen=True)
class LastRecord:
    """Where the last whole record of a log is."""

    file: Path
    #: Of its first byte, and of the first one behind it.
    start: int
    end: int
    zxid: int

    @property
    def middle(self) -> int:
        """An offset within its payload."""
        return (self.start + _RECORD_HEADER.size + self.end) // 2


def data_files(server: ServerFolder) -> tuple[Path, ...]:
    """All that a server has learnt: its logs, its snapshots, its epochs. What it was given, as `myid`, is not."""
    folders = (server.txnlog / _VERSION, server.snapshot / _VERSION)
    return tuple(path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_file())


def logs_and_snapshots(server: ServerFolder) -> tuple[Path, ...]:
    """Those of them that hold transactions or state."""
    return tuple(path for path in data_files(server) if _NAME.fullmatch(path.name))


def last_record(server: ServerFolder) -> LastRecord | None:
    """The last record of its last log that has any; None where it has logged nothing.

    Raises:
        HistoryError: a log is damaged.
    """
    for file in reversed(_numbered(server.txnlog / _VERSION, "log")):
        txns = read_log(file).txns
        if not txns:
            continue
        data, start = file.read_bytes(), _FILE_HEADER
        for number in range(len(txns)):
            end = start + _RECORD_HEADER.size + int(_RECORD_HEADER.unpack_from(data, start)[1]) + 1
            if number + 1 < len(txns):
                start = end
        return LastRecord(file, start, end, txns[-1].zxid)
    return None


def last_snapshot(server: ServerFolder) -> Path | None:
    """Its newest snapshot that is whole; one that is just being written is not."""
    return next((f for f in reversed(_numbered(server.snapshot / _VERSION, "snapshot")) if snapshot_is_whole(f)), None)


def snapshot_is_whole(file: Path) -> bool:
    """Whether a snapshot ends with the right checksum."""
    data = file.read_bytes()
    if not data.startswith(_SNAPSHOT_MAGIC) or len(data) < _SEAL.size:
        return False
    checksum, length, mark = _SEAL.unpack_from(data, len(data) - _SEAL.size)
    return (length, mark) == (1, b"/") and checksum == zlib.adler32(memoryview(data)[: -_SEAL.size])


def trouble_with(file: Path) -> str:
    """What is wrong with a log or a snapshot, in a few words; empty where nothing is."""
    try:
        if not file.name.startswith("log."):
            return "" if snapshot_is_whole(file) else "its checksum is wrong"
        torn = read_log(file).torn
        return f"its last record is torn, at offset {torn[0].offset}" if torn else ""
    except HistoryError as problem:
        return problem.what


def tear(record: LastRecord) -> None:
    """Cut the file off in the middle of the record.

    Raises:
        FaultError: the file cannot be written.
    """
    try:
        with record.file.open("r+b") as stream:
            stream.truncate(record.middle)
    except OSError as problem:
        raise FaultError(f"cannot be cut off: {problem.strerror}", where=str(record.file)) from problem


def turn_over(file: Path, offset: int) -> None:
    """Turn over every bit of one byte.

    Raises:
        FaultError: the file cannot be written.
    """
    try:
        with file.open("r+b") as stream:
            stream.seek(offset)
            byte = stream.read(1)[0]
            stream.seek(offset)
            stream.write(bytes([byte ^ _ALL_BITS]))
    except OSError as problem:
        raise FaultError(f"cannot be changed: {problem.strerror}", where=str(file)) from problem


def _numbered(folder: Path, kind: str) -> list[Path]:
    """The files of one kind, by ascending zxid."""
    found = [(m, path) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))] if folder.is_dir() else []
    return [path for _zxid, path in sorted((int(m[2], 16), path) for m, path in found if m[1] == kind)]

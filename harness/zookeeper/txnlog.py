"""ZooKeeper's transaction log on disk (`FileTxnLog`), 3.4 to 3.9: reads it, and writes it for tests.

A file `log.<zxid in hex>` in `<dataLogDir>/version-2` is::

    "ZKLG"  int version = 2  long dbid                              file header, 16 bytes
    long adler32(payload)  int length  payload  0x42 'B'            one record, any number of times
    zeros                                                           preallocated space, to the end

A server that is killed may leave the first bytes of one more record before the zeros: a *torn* record, which the
server itself ignores when it starts again (and then writes to a new file, so a torn record may end any file, not
only the last). Torn means that what is there is a true prefix of a record, followed by zeros only. Everything else
that is not as above is damage, and is refused: a reader that skips over damage would call a lost write `not
happened`.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HistoryError
from harness.zookeeper.txn import CREATES, DELETES, ERROR_CODES, ERROR_NAMES, SETS, Txn, TxnKind
from harness.zookeeper.txn_codec import HEADER_LENGTH, decode_txn, encode_txn

__all__ = [
    "CREATES",
    "DELETES",
    "ERROR_CODES",
    "ERROR_NAMES",
    "SETS",
    "Replicas",
    "Torn",
    "Txn",
    "TxnKind",
    "TxnLog",
    "encode_log",
    "log_files",
    "read_log",
    "read_logs",
    "snapshot_zxids",
    "write_log",
]

_FILE_HEADER = struct.Struct(">4siq")
_RECORD_HEADER = struct.Struct(">qi")
_MAGIC = b"ZKLG"
_VERSION = 2
_END_OF_RECORD = 0x42
#: Largest record that is believed. jute.maxbuffer, 1 MB by default, bounds what a client can send.
_MAX_RECORD = 64 * 1024**2
#: Most bytes of one file that are read; preallocated space that was never written does not count.
_MAX_FILE = 2 * 1024**3
#: Most files that a new one is compared with.
_MAX_REPLICAS = 32
#: Bytes that are compared at a time.
_CHUNK = 64 * 1024
_ZEROS = bytes(_CHUNK)
_LOG_NAME = re.compile(r"log\.([0-9a-f]{1,16})", re.ASCII)
#: A snapshot may be compressed: `snapshot.100000003.gz`.
_SNAPSHOT_NAME = re.compile(r"snapshot\.([0-9a-f]{1,16})(?:\.(?:gz|snappy))?", re.ASCII)


@dataclass(frozen=True)
class Torn:
    """An incomplete last record of a file: its server was killed while it wrote."""

    file: Path
    offset: int


@dataclass(frozen=True)
class TxnLog:
    """What one file, or one server's whole log, says; in the order that it was written."""

    txns: list[Txn]
    files: tuple[Path, ...] = ()
    torn: tuple[Torn, ...] = ()


class Replicas:
    """What was read so far of the logs of an ensemble, so that reading a replica costs little.

    Replicas hold equal records. Each is decoded once, and equal ones are one object. The bytes that a file has in
    common with the begin of one read before are not even looked at again: their checksums have been verified.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, Txn] = {}
        self._files: list[tuple[bytes, list[int], list[Txn]]] = []

    def begin_of(self, data: bytes) -> tuple[int, list[int], list[Txn]]:
        """Where to go on reading, and the ends of the records before and their transactions, from a file like it."""
        best: tuple[int, list[int], list[Txn]] = (0, [], [])
        for other, ends, txns in self._files[-_MAX_REPLICAS:]:
            whole = bisect_right(ends, _common_prefix(data, other))
            if whole > len(best[1]):
                best = (ends[whole - 1], ends[:whole], txns[:whole])
        return best

    def add(self, data: bytes, ends: list[int], txns: list[Txn]) -> None:
        """Remember a file: its bytes, where its records end, and its transactions."""
        self._files.append((data, ends, txns))


def _common_prefix(one: bytes, other: bytes) -> int:
    """How many bytes two files have in common at their begin; a multiple of the chunk where they are long."""
    shorter = min(len(one), len(other))
    at = 0
    while at < shorter and one[at : at + _CHUNK] == other[at : at + _CHUNK]:
        at += _CHUNK
    return min(at, shorter)


def read_log(path: Path, replicas: Replicas | None = None) -> TxnLog:
    """Read one file.

    Args:
        path: the file.
        replicas: shared between the logs of an ensemble, so that equal transactions are one object.

    Raises:
        HistoryError: the file is damaged, unreadable or no transaction log; `where` has the file and the offset.
    """
    try:
        with path.open("rb") as stream:
            data = _written(stream.fileno())
            return _Reader(path, data, stream.fileno(), replicas or Replicas()).read()
    except OSError as problem:
        raise HistoryError(f"cannot be read: {problem.strerror}", where=str(path)) from problem


def read_logs(
    directory: Path, replicas: Replicas | None = None, *, aside: Sequence[Path] = (), but: Collection[Path] = ()
) -> TxnLog:
    """Read a server's whole log.

    Args:
        directory: `dataLogDir`, or its `version-2`.
        replicas: as in `read_log`.
        aside: more such directories, with what the server wrote earlier; oldest first.
        but: files that are passed over.

    Returns:
        The transactions of all files, oldest file first; nothing if the server never logged.

    Raises:
        HistoryError: as `read_log`.
    """
    replicas = replicas or Replicas()
    txns: list[Txn] = []
    torn: list[Torn] = []
    places = (*aside, directory)
    found = sorted((zxid, age, path) for age, place in enumerate(places) for zxid, path in _numbered(place, _LOG_NAME))
    files = tuple(path for _zxid, _age, path in found if path not in but)
    for path in files:
        part = read_log(path, replicas)
        txns.extend(part.txns)
        torn.extend(part.torn)
    return TxnLog(txns, files, tuple(torn))


def log_files(directory: Path) -> tuple[Path, ...]:
    """A server's log files, oldest first.

    Args:
        directory: `dataLogDir`, or its `version-2`.
    """
    return tuple(path for _zxid, path in _numbered(directory, _LOG_NAME))


def snapshot_zxids(directory: Path) -> tuple[int, ...]:
    """The zxids in the names of a server's snapshots, ascending: the state up to that zxid is in the snapshot.

    Args:
        directory: `dataDir`, or its `version-2`.
    """
    return tuple(zxid for zxid, _path in _numbered(directory, _SNAPSHOT_NAME))


def _numbered(directory: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    folder = directory / "version-2" if (directory / "version-2").is_dir() else directory
    if not folder.is_dir():
        return []
    found = ((name.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1], 16), path) for match, path in found if match is not None)


def _written(descriptor: int) -> bytes:
    """A file's bytes up to the first hole: ZooKeeper preallocates 64 MB at a time by writing one byte at the end."""
    size = os.fstat(descriptor).st_size
    try:
        end = os.lseek(descriptor, 0, os.SEEK_HOLE) if size else 0
    except OSError:  # a file system without holes
        end = size
    if end > _MAX_FILE:
        raise HistoryError(f"{end} bytes are more than the {_MAX_FILE} that are read", where=f"descriptor {descriptor}")
    os.lseek(descriptor, 0, os.SEEK_SET)
    pieces: list[bytes] = []
    left = end
    while left and (piece := os.read(descriptor, left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


class _Reader:
    """Reads the records of one file.

    Args:
        path: for errors.
        data: what is written, up to the first hole.
        descriptor: the open file, to look at what is behind the hole.
        replicas: as in `read_log`.
    """

    def __init__(self, path: Path, data: bytes, descriptor: int, replicas: Replicas) -> None:
        self._path, self._data, self._descriptor, self._replicas = path, data, descriptor, replicas

    def read(self) -> TxnLog:
        if not self._header_is_whole():
            return TxnLog([], (self._path,), (Torn(self._path, 0),))
        data, known = self._data, self._replicas.known
        at, ends, txns = self._replicas.begin_of(data)
        at = at or _FILE_HEADER.size
        unpack, adler32, size = _RECORD_HEADER.unpack_from, zlib.adler32, len(data)
        while size - at >= _RECORD_HEADER.size:
            checksum, length = unpack(data, at)
            start = at + 12
            end = start + length
            if not (HEADER_LENGTH <= length <= _MAX_RECORD and end < size and data[end] == _END_OF_RECORD):
                break
            payload = data[start:end]
            if adler32(payload) != checksum:
                raise self._damaged("the checksum of this record is wrong", at)
            txn = known.get(payload)
            if txn is None:
                txn = known[payload] = self._decode(payload, at)
            txns.append(txn)
            at = end + 1
            ends.append(at)
        torn = self._tail(at)
        self._replicas.add(data, ends, txns)
        return TxnLog(txns, (self._path,), torn)

    def _header_is_whole(self) -> bool:
        """Whether there is a file header. A server killed at once leaves none, or the first bytes of one."""
        data = self._data
        if len(data) >= _FILE_HEADER.size:
            magic, version, _dbid = _FILE_HEADER.unpack_from(data, 0)
            if magic == _MAGIC and version == _VERSION:
                return True
            if magic == _MAGIC and version != 0:
                raise self._damaged(f"this is version {version} of the log format, and only {_VERSION} is known", 4)
        expected = _FILE_HEADER.pack(_MAGIC, _VERSION, 0)
        last = self._last_written(0)
        if last < _FILE_HEADER.size - 8 and data[: last + 1] == expected[: last + 1]:
            return False
        raise self._damaged("this is no transaction log: it does not begin with ZKLG", 0)

    def _decode(self, payload: bytes, at: int) -> Txn:
        try:
            return decode_txn(payload)
        except HistoryError as problem:
            raise HistoryError(problem.what, where=f"{self._path}, offset {at}", cause=problem.cause) from problem

    def _tail(self, at: int) -> tuple[Torn, ...]:
        """Judge what follows the last whole record: nothing but zeros, a torn record, or damage."""
        data = self._data
        last = self._last_written(at)
        if last < at:
            return ()
        if last < at + _RECORD_HEADER.size:
            return (Torn(self._path, at),)
        if last >= len(data) or len(data) - at < _RECORD_HEADER.size:
            raise self._damaged("there is data after a stretch of unwritten space", at)
        checksum, length = _RECORD_HEADER.unpack_from(data, at)
        end = at + 12 + length
        if not HEADER_LENGTH <= length <= _MAX_RECORD:
            raise self._damaged(f"a record's length is {length}", at)
        if last >= end:
            raise self._damaged("a record does not end with its end mark", at)
        if self._is_whole_by_another_length(at + 12, last, checksum):
            raise self._damaged("the length of this record is wrong", at)
        return (Torn(self._path, at),)

    def _is_whole_by_another_length(self, start: int, last: int, checksum: int) -> bool:
        """Whether a whole record begins here whose length field is wrong, so that it only looks torn."""
        data, running = self._data, 1
        done = start
        at = data.find(b"B", start)
        while at != -1 and at <= last:
            running = zlib.adler32(data[done:at], running)
            if running == checksum:
                return True
            done = at
            at = data.find(b"B", at + 1)
        return False

    def _last_written(self, start: int) -> int:
        """The offset of the last byte from `start` on that is not zero; `start` - 1 if all are."""
        size = os.fstat(self._descriptor).st_size
        last, at = start - 1, start
        while at < size:
            try:
                at = os.lseek(self._descriptor, at, os.SEEK_DATA)
            except OSError:  # only a hole is left (ENXIO), or the file system knows no holes (EINVAL)
                if at >= len(self._data):
                    break
            chunk = os.pread(self._descriptor, _CHUNK, at)
            if not chunk:
                break
            if chunk != _ZEROS[: len(chunk)]:
                last = at + len(chunk.rstrip(b"\0")) - 1
            at += len(chunk)
        return last

    def _damaged(self, what: str, offset: int) -> HistoryError:
        return HistoryError(
            what,
            where=f"{self._path}, offset {offset}",
            cause="the file was changed after the server wrote it, or its disk is failing",
            next_step="the other servers' logs can still be read",
        )


def encode_log(txns: Iterable[Txn], padding: int = 0) -> bytes:
    """The bytes of a file with these transactions, and `padding` zeros at its end."""
    pieces = [_FILE_HEADER.pack(_MAGIC, _VERSION, 0)]
    for txn in txns:
        payload = encode_txn(txn)
        pieces += (_RECORD_HEADER.pack(zlib.adler32(payload), len(payload)), payload, b"B")
    pieces.append(bytes(padding))
    return b"".join(pieces)


def write_log(directory: Path, txns: list[Txn], padding: int = 4096) -> Path:
    """Write one file as a server would, into `directory`/version-2. For tests and benchmarks.

    Raises:
        ValueError: there is no transaction, so the file has no name.
    """
    if not txns:
        raise ValueError("a log file is named after its first transaction, and there is none")
    folder = directory / "version-2"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"log.{txns[0].zxid:x}"
    path.write_bytes(encode_log(txns, padding))
    return path

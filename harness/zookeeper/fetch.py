"""Copies what servers keep in their containers into a run folder: configuration, transactions, snapshots, logs.

What comes out of a container is its own word. It decides on no place in which anything is written, nor on how much.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from docker.errors import NotFound

from harness.errors import TestbedError
from harness.history.folder import RunFolder, storage_error
from harness.testbed.refusals import refusals
from harness.zookeeper.found_config import without_secrets
from harness.zookeeper.found_container import FoundServer
from harness.zookeeper.server_log import LOG_NAME

#: Most that is fetched of one server, bytes: logs of transactions that were made long before the run are among it.
_MOST = 4 * 1024**3
#: Lines of a server's own output that are kept.
_LOG_LINES = 20_000
_BLOCK = 1024 * 1024
#: So many zeros end an archive. Without them a part of the logs would be taken for all of them.
_MARK = 1024
#: Where a server keeps its files below `dataDir` and `dataLogDir`, and what they are called.
_VERSION = "version-2"
_FILE = re.compile(r"(log|snapshot)\.[0-9a-f]{1,16}(\.[a-z]{1,10})?", re.ASCII)


def fetch_evidence(servers: Mapping[int, FoundServer], folder: RunFolder) -> None:
    """Copy what the servers keep in their containers into the run folder: configuration, transactions, snapshots, logs.

    Raises:
        TestbedError: the engine does not give it, or it is too large.
    """
    for server_id, server in servers.items():
        ours = folder.server(server_id)
        data, log = server.data_folders
        with refusals(f"server {server_id}"):
            settings = without_secrets(server.config)
            text = "".join(f"{key}={value}\n" for key, value in settings.items())
            _write(ours.config / "zoo.cfg", text.encode())
            _fetch(server, log, "log.", ours.txnlog)
            _fetch(server, data, "snapshot.", ours.snapshot)
            _write(ours.logs / LOG_NAME, server.container.logs(tail=_LOG_LINES))


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as problem:
        raise storage_error(problem, file) from problem


def _fetch(server: FoundServer, folder: PurePosixPath, prefix: str, target: Path) -> None:
    """Copy the files of a data folder whose names begin so. One that the engine does not see is packed by `tar`."""
    path = folder / _VERSION
    try:
        stream, _stat = server.container.get_archive(str(path))
    except NotFound:  # such as a tmpfs
        result = server.container.exec_run(["tar", "-C", str(folder), "-cf", "-", _VERSION], stderr=False, stream=True)
        stream = result.output
    unpack(stream, prefix, target / _VERSION, f"server {server.id}:{path}")


def unpack(pieces: Iterable[bytes], prefix: str, target: Path, where: str) -> None:
    """Write those files of a tar archive into one folder that are logs of transactions, or snapshots.

    Args:
        pieces: the archive.
        prefix: of the names, without folders, of the files to take: `log.` or `snapshot.`.
        target: the folder; made if it is not there.
        where: it comes from, for errors.

    Raises:
        TestbedError: it is no archive, or a larger one than is fetched.
    """
    raw = _Pieces(iter(pieces))
    reader = io.BufferedReader(raw, _BLOCK)
    total = end = 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                name = member.name.rpartition("/")[2]
                if not member.isfile() or not name.startswith(prefix) or not _FILE.fullmatch(name):
                    continue
                total += member.size
                if total > _MOST:
                    raise TestbedError(f"more than {_MOST // 2**30} GB of transactions or snapshots", where=where)
                source = archive.extractfile(member)
                if source is not None:
                    _copy_sparsely(source, target / name)
        while reader.read(_BLOCK):
            pass
        if raw.count < end + _MARK or raw.end != bytes(_MARK):
            raise tarfile.ReadError("the archive has no end")
    except tarfile.TarError as problem:
        raise TestbedError(
            f"its files cannot be fetched: {problem}",
            where=where,
            cause="the folder is not there, or the engine lost a part of it",
        ) from problem
    except OSError as problem:
        if problem.errno is None:
            raise  # of the HTTP library
        raise storage_error(problem, target) from problem


def _copy_sparsely(source: IO[bytes], place: Path) -> None:
    """Copy a file, and leave blocks of zeros out: a transaction log is preallocated with 64 MB of them."""
    with place.open("wb") as target:
        while block := source.read(_BLOCK):
            if block.count(0) == len(block):
                target.seek(len(block), io.SEEK_CUR)
            else:
                target.write(block)
        target.truncate()


class _Pieces(io.RawIOBase):
    """The pieces that the engine sends, as a file that is read once from its beginning."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = b""
        #: How much came, and the last of it.
        self.count, self.end = 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # narrower than any buffer
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
            self.count += len(piece)
            self.end = (self.end + piece[-_MARK:])[-_MARK:]
        taken = self._left[: len(buffer)]
        self._left = self._left[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

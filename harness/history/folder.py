"""The run folder: where each piece of evidence lies, how it is written and read back.

::

    runs/<utc-time>-<scenario>-<seed>/
      scenario.json environment.json events.jsonl verdicts.json report.html
      clients/<host>.jsonl
      proxies/<host>.log
      servers/<id>/{admin,config,logs,txnlog,snapshot}/
      servers/<id>/damaged/<n>/     what a fault took away or damaged, as it was before; see `damaged`

Lines are written whole and at once, so a run that died at any moment leaves at most one torn last line, which
readers drop. Files are synced at phase ends.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.errors import HistoryError, RunFolderError, StorageFull
from harness.history.records import ClientRecord, Event
from harness.history.scenario import Environment, Scenario

T = TypeVar("T")

#: Largest file that is read back, bytes. A run of a million operations has about 400 MB.
MAX_FILE_BYTES = 2 * 1024**3
#: What a write says on a full disk: the disk's own word, and that of a quota.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class ServerFolder:
    """One server's evidence; also where the server itself keeps it, so nothing needs to be copied."""

    root: Path

    @property
    def config(self) -> Path:
        """zoo.cfg, its dynamic part, logback.xml."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """server.log and the JVM's own output."""
        return self.root / "logs"

    @property
    def txnlog(self) -> Path:
        """`dataLogDir`."""
        return self.root / "txnlog"

    @property
    def admin(self) -> Path:
        """The server's answers to the admin words at the end of the run, a file each."""
        return self.root / "admin"

    @property
    def snapshot(self) -> Path:
        """`dataDir`."""
        return self.root / "snapshot"

    def create(self) -> None:
        """Make all five folders."""
        for folder in (self.admin, self.config, self.logs, self.txnlog, self.snapshot):
            folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class RunFolder:
    """Paths and (de)serialisation of one run; holds no state, so any process may open the same folder."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """Make a new one.

        Raises:
            RunFolderError: the folder exists and is not empty, or its parent cannot be written.
            StorageFull: no space.
        """
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise RunFolderError(
                "the run folder exists already and is not empty",
                where=str(root),
                next_step="choose another folder; nothing was changed in this one",
            )
        try:
            root.mkdir(parents=True, exist_ok=True)
            (root / "clients").mkdir()
        except OSError as problem:
            raise storage_error(problem, root) from problem
        return cls(root)

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Open an existing one.

        Raises:
            RunFolderError: it is not a run folder.
        """
        if not (root / "scenario.json").is_file():
            raise RunFolderError(
                "this is not a run folder: it has no scenario.json",
                where=str(root),
                next_step="`zkchaos runs` lists the run folders",
            )
        return cls(root.resolve())

    @property
    def scenario_file(self) -> Path:
        """scenario.json."""
        return self.root / "scenario.json"

    @property
    def environment_file(self) -> Path:
        """environment.json."""
        return self.root / "environment.json"

    @property
    def events_file(self) -> Path:
        """events.jsonl."""
        return self.root / "events.jsonl"

    @property
    def clients_folder(self) -> Path:
        """One file of operations for each client process."""
        return self.root / "clients"

    @property
    def proxies_folder(self) -> Path:
        """What the toxiproxy of each host said, where the topology has proxies."""
        return self.root / "proxies"

    @property
    def verdicts_file(self) -> Path:
        """verdicts.json."""
        return self.root / "verdicts.json"

    @property
    def report_file(self) -> Path:
        """report.html."""
        return self.root / "report.html"

    def server(self, server_id: int) -> ServerFolder:
        """One server's part."""
        return ServerFolder(self.root / "servers" / str(server_id))

    def server_ids(self) -> tuple[int, ...]:
        """The servers that left evidence, ascending."""
        folder = self.root / "servers"
        if not folder.is_dir():
            return ()
        return tuple(sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()))

    def write_json(self, path: Path, value: msgspec.Struct, *, sync: bool = True) -> None:
        """Write one record as an indented JSON file, atomically.

        Args:
            path: one of this folder's files.
            value: the record.
            sync: force it to the disk now; else `sync` does so later.

        Raises:
            StorageFull: no space.
        """
        scratch = path.with_suffix(".tmp")
        try:
            with scratch.open("wb") as stream:
                stream.write(msgspec.json.format(msgspec.json.encode(value), indent=2))
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            scratch.replace(path)
        except OSError as problem:
            raise storage_error(problem, path) from problem

    def sync(self) -> None:
        """Force scenario.json and environment.json to the disk.

        Raises:
            StorageFull: no space.
        """
        for path in (self.scenario_file, self.environment_file):
            if path.exists():
                with path.open("rb") as stream:
                    try:
                        os.fsync(stream.fileno())
                    except OSError as problem:
                        raise storage_error(problem, path) from problem

    def scenario(self) -> Scenario:
        """What was asked for."""
        return read_json(self.scenario_file, Scenario)

    def environment(self) -> Environment:
        """On what it was done."""
        return read_json(self.environment_file, Environment)

    def events(self) -> list[Event]:
        """All events, in the order they were written."""
        return read_lines(self.events_file, _EVENTS) if self.events_file.exists() else []

    def client_records(self) -> list[ClientRecord]:
        """All client records, file by file, each file in the order it was written."""
        records: list[ClientRecord] = []
        for path in sorted(self.clients_folder.glob("*.jsonl")):
            records.extend(read_lines(path, _CLIENT_RECORDS))
        return records


_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_CLIENT_RECORDS: msgspec.json.Decoder[ClientRecord] = msgspec.json.Decoder(ClientRecord)


def read_lines(path: Path, decoder: msgspec.json.Decoder[T]) -> list[T]:
    """Decode a file of JSON lines. A torn last line (no newline at its end) is dropped.

    Raises:
        HistoryError: a line is not what it should be; `where` has the file and the line's number.
    """
    _refuse_huge(path)
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    try:
        return decoder.decode_lines(complete)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _first_bad_line(path, complete, decoder) from None


def _first_bad_line(path: Path, data: bytes, decoder: msgspec.json.Decoder[T]) -> HistoryError:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            return HistoryError(
                f"this line is not a record of a run: {problem}",
                where=f"{path}:{number}",
                cause="the file was edited, or written by a newer version",
                next_step="restore the file; the others are untouched",
            )
    return HistoryError("the file cannot be decoded", where=str(path))


def read_json(path: Path, kind: type[T]) -> T:
    """Read one record from a JSON file of a run folder.

    Raises:
        RunFolderError: it is missing or not what it should be.
    """
    if not path.is_file():
        raise RunFolderError(
            f"{path.name} is missing",
            where=str(path.parent),
            cause="the run ended before it was written",
            next_step="`zkchaos check` judges what is there",
        )
    _refuse_huge(path)
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise RunFolderError(
            f"the file is not valid: {problem}",
            where=str(path),
            cause="it was edited, or written by another version of the harness",
        ) from problem


def _refuse_huge(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise HistoryError(f"{size} bytes are more than the {MAX_FILE_BYTES} that are read", where=str(path))


def storage_error(problem: OSError, path: Path) -> StorageFull | RunFolderError:
    """The error to raise for an OSError while evidence was written."""
    if problem.errno in NO_SPACE:
        return StorageFull(
            "no space is left for the evidence",
            where=str(path),
            next_step="free space or choose another place with --runs; what was written is kept",
        )
    return RunFolderError(
        f"cannot write here: {problem.strerror}", where=str(path), next_step="choose another place with --runs"
    )


class LineWriter:
    """Appends records to a file of JSON lines, each with one write(2), from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as problem:
            raise storage_error(problem, path) from problem

    def write(self, *records: msgspec.Struct) -> None:
        """Append records.

        Raises:
            StorageFull: no space; a torn line may be left, which readers drop.
        """
        data = b"".join(self._encoder.encode(record) + b"\n" for record in records)
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as problem:
                raise storage_error(problem, self._path) from problem

    def sync(self) -> None:
        """Force what was written to the disk."""
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            raise storage_error(problem, self._path) from problem

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def run_folders(root: Path) -> Iterable[RunFolder]:
    """The run folders below `root`, newest first; the `latest` link is not one of them."""
    if not root.is_dir():
        return
    for path in sorted(root.iterdir(), reverse=True):
        if not path.is_symlink() and (path / "scenario.json").is_file():
            yield RunFolder(path)

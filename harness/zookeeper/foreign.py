"""Servers that somebody else started, as an ensemble of ours: adopted, started again, their evidence fetched."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from docker.errors import NotFound

from harness.errors import TestbedError
from harness.history.folder import RunFolder, ServerFolder
from harness.testbed import wire
from harness.testbed.agent_testbed import host_spec
from harness.testbed.client import AgentClient
from harness.testbed.container_hosts import ContainerHosts, client_tag
from harness.testbed.handles import Process
from harness.testbed.refusals import refusals
from harness.topology.model import Server
from harness.zookeeper.found import FoundEnsemble, FoundServer
from harness.zookeeper.server_log import LOG_NAME

#: Most that is fetched of one server, bytes: logs of transactions that were made long before the run are among it.
_MOST = 4 * 1024**3
#: Lines of a server's own output that are kept.
_LOG_LINES = 20_000
_BLOCK = 1024 * 1024


class ForeignTestbed(ContainerHosts):
    """A testbed around containers that somebody else started. Closing it leaves them as they are.

    Args:
        found: the ensemble.
        agent: an agent that can reach the engine's network namespace; it is closed with the testbed.
        run_id: see `engine.new_run_id`.
        engine_pid: as `wire.EngineSpec.pid`.
        kind: `docker`, or `docker-helper` where the agent is in a helper container.

    Raises:
        TestbedError: the agent cannot reach the bridges.
    """

    def __init__(
        self, found: FoundEnsemble, agent: AgentClient, *, run_id: str, engine_pid: int | None, kind: str
    ) -> None:
        super().__init__(found.topology, agent, kind=kind)
        self.containers = {f"zk{i}": server.container for i, server in found.servers.items()}
        hosts = tuple(host_spec(h, container=isinstance(h, Server)) for h in found.topology.hosts)
        engine = wire.EngineSpec(dict(found.bridges), engine_pid, client_tag(run_id))
        try:
            agent.ask(wire.Build(found.topology.switch_names, hosts, engine), wire.Done)
        except BaseException:
            agent.close()
            raise


@dataclass(frozen=True)
class ForeignStarter:
    """Takes servers that run, and starts again what the nemesis ended."""

    testbed: ForeignTestbed

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Make the folders for what will be fetched."""
        del server
        folder.create()

    def start(self, server: Server, folder: ServerFolder) -> Process:
        """Take it, and start its container if that does not run."""
        del folder
        return self.testbed.start_host(server.host)


def fetch_evidence(servers: Mapping[int, FoundServer], folder: RunFolder) -> None:
    """Copy what the servers keep in their containers into the run folder: configuration, transactions, snapshots, logs.

    Raises:
        TestbedError: the engine does not give it, or it is too large.
    """
    for server_id, server in servers.items():
        ours = folder.server(server_id)
        data, log = server.data_folders
        with refusals(f"server {server_id}"):
            text = "".join(f"{key}={value}\n" for key, value in server.config.items())
            (ours.config / "zoo.cfg").write_text(text, encoding="utf-8")
            _fetch(server, data / "version-2", ours.snapshot)
            _fetch(server, log / "version-2", ours.txnlog)
            output = server.container.logs(tail=_LOG_LINES)
            (ours.logs / LOG_NAME).write_bytes(output)


def _fetch(server: FoundServer, path: PurePosixPath, target: Path) -> None:
    """Copy a folder of a container. One that the engine's copy does not see, such as a tmpfs, is packed by `tar`."""
    try:
        stream, _stat = server.container.get_archive(str(path))
    except NotFound:
        result = server.container.exec_run(["tar", "-C", str(path.parent), "-cf", "-", path.name], stream=True)
        stream = result.output
    reader = io.BufferedReader(_Pieces(iter(stream)), _BLOCK)
    total = 0
    try:
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for member in archive:
                if not member.isfile() or ".." in PurePosixPath(member.name).parts:
                    continue
                total += member.size
                if total > _MOST:
                    raise TestbedError(
                        f"more than {_MOST // 2**30} GB of transactions and snapshots",
                        where=f"server {server.id}:{path}",
                    )
                source = archive.extractfile(member)
                if source is not None:
                    place = target / member.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    _copy_sparsely(source, place)
    except tarfile.TarError as problem:
        raise TestbedError(
            f"its files cannot be fetched: {problem}",
            where=f"server {server.id}:{path}",
            cause="the folder is not there",
        ) from problem


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

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # narrower than any buffer
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        taken = self._left[: len(buffer)]
        self._left = self._left[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

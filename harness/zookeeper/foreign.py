"""Servers that somebody else started, as an ensemble of ours: adopted, started again, their evidence fetched."""

from __future__ import annotations

import io
import re
import signal
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
from harness.topology.model import Server, Topology
from harness.zookeeper.found import FoundEnsemble, revive
from harness.zookeeper.found_config import without_secrets
from harness.zookeeper.found_container import FoundServer
from harness.zookeeper.server_log import LOG_NAME

#: Most that is fetched of one server, bytes: logs of transactions that were made long before the run are among it.
_MOST = 4 * 1024**3
#: Lines of a server's own output that are kept.
_LOG_LINES = 20_000
_BLOCK = 1024 * 1024
#: Where a server keeps its files below `dataDir` and `dataLogDir`, and what they are called.
_VERSION = "version-2"
_FILE = re.compile(r"(log|snapshot)\.[0-9a-f]{1,16}(\.[a-z]{1,10})?", re.ASCII)


class ForeignTestbed(ContainerHosts):
    """A testbed around containers that somebody else started. Closing it leaves them as they are.

    Args:
        found: the ensemble.
        topology: as it is known to who asks; it has the servers' addresses of `found`.
        agent: an agent that can reach the engine's network namespace; it is closed with the testbed.
        run_id: see `engine.new_run_id`.
        engine_pid: as `wire.EngineSpec.pid`.
        kind: `docker`, or `docker-helper` where the agent is in a helper container.

    Raises:
        TestbedError: the agent cannot reach the bridges, or the ensemble is another by now.
    """

    def __init__(
        self,
        found: FoundEnsemble,
        topology: Topology,
        agent: AgentClient,
        *,
        run_id: str,
        engine_pid: int | None,
        kind: str,
    ) -> None:
        super().__init__(topology, agent, kind=kind)
        self._found = found
        self.containers = {f"zk{i}": server.container for i, server in found.servers.items()}
        #: What was ended or stopped here and does not run again yet.
        self._disturbed: set[str] = set()
        #: By host, the addresses that its container has now, where they are others than the topology's.
        self.moved: dict[str, list[str]] = {}
        hosts = tuple(host_spec(h, container=isinstance(h, Server)) for h in topology.hosts)
        engine = wire.EngineSpec(dict(found.bridges), engine_pid, client_tag(run_id))
        agent.advice = f"`zkchaos attach {found.name} --heal` mends what it had broken"
        try:
            if found.topology != topology:
                raise TestbedError(
                    "the ensemble has changed since it was looked at", where=found.name, next_step="try again"
                )
            agent.ask(wire.Build(topology.switch_names, hosts, engine), wire.Done)
        except BaseException:
            agent.close()
            raise

    def start_host(self, host: str) -> Process:
        """As its base's; notes where the engine gave a container another address than it had."""
        process = super().start_host(host)
        self._disturbed.discard(host)
        networks = self.containers[host].attrs["NetworkSettings"]["Networks"].values()
        addresses = sorted(str(network["IPAddress"]) for network in networks)
        if not {str(nic.address) for nic in self.servers[host].nics} <= set(addresses):
            self.moved[host] = addresses
        else:
            self.moved.pop(host, None)
        return process

    def signal(self, process: Process, number: signal.Signals) -> None:
        """As its base's."""
        if process.host in self.containers:
            self._disturbed.add(process.host)
        super().signal(process, number)
        if number is signal.SIGCONT:
            self._disturbed.discard(process.host)

    def leave_running(self) -> None:
        """Have every server run again that was ended or stopped here, whatever kept others from it. Idempotent.

        Raises:
            TestbedError: the engine refused.
        """
        for host in sorted(self._disturbed):
            with refusals(host):
                revive(self.containers[host])
            self._disturbed.discard(host)

    def explain_moves(self) -> str:
        """What to say where the engine gave containers other addresses; empty where it did not."""
        if not self.moved:
            return ""
        who = "; ".join(f"{host} has {', '.join(addresses)} now" for host, addresses in sorted(self.moved.items()))
        return f"containers came back with other addresses: {who}"


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
            settings = without_secrets(server.config)
            text = "".join(f"{key}={value}\n" for key, value in settings.items())
            (ours.config / "zoo.cfg").write_text(text, encoding="utf-8")
            _fetch(server, log, "log.", ours.txnlog)
            _fetch(server, data, "snapshot.", ours.snapshot)
            output = server.container.logs(tail=_LOG_LINES)
            (ours.logs / LOG_NAME).write_bytes(output)


def _fetch(server: FoundServer, folder: PurePosixPath, prefix: str, target: Path) -> None:
    """Copy the files of a data folder whose names begin so. One that the engine does not see is packed by `tar`."""
    path = folder / _VERSION
    try:
        stream, _stat = server.container.get_archive(str(path))
    except NotFound:  # such as a tmpfs
        result = server.container.exec_run(["tar", "-C", str(folder), "-cf", "-", _VERSION], stderr=False, stream=True)
        stream = result.output
    reader = io.BufferedReader(_Pieces(iter(stream)), _BLOCK)
    place = target / _VERSION
    place.mkdir(parents=True, exist_ok=True)
    total = 0
    try:
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for member in archive:
                # The archive is the container's word: it decides on no place in which anything is written.
                name = member.name.rpartition("/")[2]
                if not member.isfile() or not name.startswith(prefix) or not _FILE.fullmatch(name):
                    continue
                total += member.size
                if total > _MOST:
                    raise TestbedError(
                        f"more than {_MOST // 2**30} GB of transactions or snapshots",
                        where=f"server {server.id}:{path}",
                    )
                source = archive.extractfile(member)
                if source is not None:
                    _copy_sparsely(source, place / name)
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

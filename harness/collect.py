"""The end of a run: prove that every server has applied everything, and read what each of them has.

Without this, a lagging server would look like a forked one, and a lost write like a slow one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.serialization import GetData, Sync

from harness.errors import EnsembleError
from harness.history.folder import storage_error
from harness.history.records import Barrier, Event, FinalRead, Note
from harness.load.hosted import server_client
from harness.load.registers import ROOT
from harness.load.traced_client import TracedClient
from harness.load.worker import stat_of
from harness.zookeeper import admin
from harness.zookeeper.ensemble import Ensemble

Record = Callable[[Event], None]

#: How long the ensemble may take to serve again after the last fault has healed, seconds.
_QUORUM_TIMEOUT = 30.0
#: How long the slowest server may take to apply the barrier, seconds.
_APPLY_TIMEOUT = 30.0
#: How long one read may take, seconds.
_READ_TIMEOUT = 10.0
_POLL = 0.02
#: The admin words whose answers are kept.
_WORDS = ("srvr", "mntr", "conf", "cons")
#: The last write of a run.
_BARRIER_PATH = f"{ROOT}/barrier"


def collect(ensemble: Ensemble, paths: Sequence[str], record: Record) -> None:
    """Write the barrier, wait until every server has applied it, and read all paths from each server.

    What cannot be had is a `Note`, and the judges say `unknown` where they needed it.
    """
    try:
        leader = ensemble.wait_for_quorum(within=_QUORUM_TIMEOUT)
        zxid = _write_barrier(ensemble, leader)
        applied = _wait_until_applied(ensemble, zxid)
    except (EnsembleError, KazooException, KazooTimeoutError) as problem:
        record(Note(time.monotonic_ns(), f"the ensemble does not serve after all faults have healed: {problem}"))
        return
    record(Barrier(time.monotonic_ns(), zxid, applied))
    _keep_admin_words(ensemble)
    with ThreadPoolExecutor(max_workers=len(applied) or 1) as pool:
        for reads in pool.map(lambda server: _read_all(ensemble, server, paths), applied):
            for event in reads:
                record(event)


def sweep(ensemble: Ensemble, root: str) -> None:
    """Remove the load's znodes from an ensemble that is somebody else's; what cannot be removed stays."""
    with contextlib.suppress(EnsembleError, KazooException, KazooTimeoutError):
        leader = ensemble.wait_for_quorum(within=_QUORUM_TIMEOUT)
        with server_client(ensemble.testbed, ensemble.topology.server(leader).host) as client:
            for path in (root, _BARRIER_PATH):
                client.delete(path, recursive=True)
            client.delete(ROOT)  # unless another run has something there


def _keep_admin_words(ensemble: Ensemble) -> None:
    """Keep each server's own account of itself beside its logs."""
    hosts = {server.host: ensemble.server_folder(server.id).admin for server in ensemble.topology.servers}
    for word in _WORDS:
        for host, answer in admin.ask(ensemble.testbed, list(hosts), word).items():
            path = hosts[host] / f"{word}.txt"
            try:
                path.write_text(answer, encoding="utf-8")
            except OSError as problem:
                raise storage_error(problem, path) from problem


def _write_barrier(ensemble: Ensemble, leader: int) -> int:
    with server_client(ensemble.testbed, ensemble.topology.server(leader).host) as client:
        client.ensure_path(_BARRIER_PATH)
        stat = client.set(_BARRIER_PATH, b"barrier")
        return int(stat.mzxid)


def _wait_until_applied(ensemble: Ensemble, zxid: int) -> tuple[int, ...]:
    """The servers that have applied it; all of them, unless the time runs out."""
    deadline = time.monotonic() + _APPLY_TIMEOUT
    while True:
        status = ensemble.status()
        applied = tuple(i for i, s in sorted(status.items()) if s.serving and s.zxid >= zxid)
        if len(applied) == len(status) or time.monotonic() > deadline:
            return applied
        time.sleep(_POLL)


def _read_all(ensemble: Ensemble, server: int, paths: Sequence[str]) -> list[Event]:
    try:
        with server_client(ensemble.testbed, ensemble.topology.server(server).host) as client:
            return [_read(client, server, path) for path in paths]
    except (EnsembleError, KazooException, KazooTimeoutError) as problem:
        text = f"server {server} could not be read after healing: {type(problem).__name__} {problem}"
        return [Note(time.monotonic_ns(), text)]


def _read(client: TracedClient, server: int, path: str) -> FinalRead:
    client.submit(Sync(path)).get(timeout=_READ_TIMEOUT)
    result = client.submit(GetData(path, None))
    try:
        data, stat = result.get(timeout=_READ_TIMEOUT)
    except NoNodeError:
        data, stat = None, None
    zxid = result.reply.zxid if result.reply else 0
    value = None if data is None else bytes(data).decode(errors="replace")
    return FinalRead(time.monotonic_ns(), server, path, zxid, value, stat_of(stat))

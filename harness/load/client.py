"""A client process: ``python -m harness.load.client CONFIG.json``, started by the agent on a client host.

It speaks one word a line with the process that started it, over descriptor 3: ``ready`` after it has loaded its
libraries; on ``start`` it opens its sessions and begins, and says ``started`` when each session is connected;
on ``settle`` it waits until every session has had a write answered since then, and says ``settled``;
on ``stop`` it ends what is in flight and says ``stopped``. When the descriptor is closed it ends at once.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import time
from pathlib import Path

import msgspec

from harness.errors import LoadError
from harness.history.folder import LineWriter
from harness.load.generator import RegisterGenerator
from harness.load.traced_client import TracedClient
from harness.load.worker import Worker

CHANNEL = 3
#: How long the sessions may take to connect at the start, seconds.
_CONNECT_TIMEOUT = 30.0
#: How long they may take to be served again after the last fault, seconds.
_SETTLE_TIMEOUT = 20.0


class ClientConfig(msgspec.Struct, frozen=True):
    """What one client process does."""

    #: The names of its logical processes, one session each.
    processes: tuple[str, ...]
    hosts: str
    session_timeout_s: float
    #: Operations per second of each session.
    rate: float
    window: int
    paths: tuple[str, ...]
    seed: int
    #: The file of JSON lines that it appends to.
    output: str
    #: Path of the znode that all paths lie under; created if it is missing.
    root: str


def main() -> int:
    """Run until told to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ClientConfig)
    channel = socket.socket(fileno=CHANNEL)
    words = channel.makefile("r", encoding="ascii")
    writer = LineWriter(Path(config.output))
    random.seed(f"{config.seed}/{config.processes[0]}/hosts")  # the order in which kazoo tries the addresses
    _say(channel, "ready")
    workers: list[Worker] = []
    clients: list[TracedClient] = []
    for word in words:
        if word.strip() == "start":
            try:
                clients = _connect(config)
            except LoadError as problem:
                _say(channel, f"failed {problem}")
                return 1
            workers = [_worker(config, n, client, writer) for n, client in enumerate(clients)]
            for worker in workers:
                worker.start()
            _say(channel, "started")
        elif word.strip() == "settle":
            _say(channel, "settled" if _settle(workers) else "unsettled")
        elif word.strip() == "stop":
            _finish(workers, clients)
            writer.sync()
            _say(channel, "stopped")
            return 0
    # Whoever started this process is gone.
    os._exit(1)


def _connect(config: ClientConfig) -> list[TracedClient]:
    clients = [TracedClient(config.hosts, session_timeout=config.session_timeout_s) for _ in config.processes]
    connected = [client.start_async() for client in clients]
    deadline = time.monotonic() + _CONNECT_TIMEOUT
    for event in connected:
        if not event.wait(max(0.0, deadline - time.monotonic())):
            raise LoadError(
                f"a session did not connect within {_CONNECT_TIMEOUT:.0f} s",
                where=config.hosts,
                next_step="look at the servers' logs in the run folder",
            )
    clients[0].ensure_path(config.root)
    return clients


def _worker(config: ClientConfig, number: int, client: TracedClient, writer: LineWriter) -> Worker:
    process = config.processes[number]
    return Worker(
        RegisterGenerator(process, config.paths, config.seed),
        client,
        writer,
        process=process,
        rate=config.rate,
        window=config.window,
        session_timeout=config.session_timeout_s,
    )


def _settle(workers: list[Worker]) -> bool:
    """Whether every session is served again, within the time that a session has to come back."""
    before = [worker.answered_writes for worker in workers]
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    while time.monotonic() < deadline:
        if all(worker.answered_writes > count for worker, count in zip(workers, before, strict=True)):
            return True
        time.sleep(0.01)
    return False


def _finish(workers: list[Worker], clients: list[TracedClient]) -> None:
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join()
    for client in clients:
        client.stop()
        client.close()


def _say(channel: socket.socket, word: str) -> None:
    channel.sendall(f"{word}\n".encode())


if __name__ == "__main__":
    sys.exit(main())

"""What a real leader leaves in its log when it loses its quorum, and what the other logs say of it."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from harness.check.committed import CommittedLog, ServerLog, counter, epoch, merge_logs
from harness.errors import EnvironmentLacking
from harness.zookeeper.distribution import Distribution, resolve
from harness.zookeeper.java import find_java
from harness.zookeeper.server_log import write_log_config
from harness.zookeeper.txnlog import Replicas, TxnKind, read_logs, snapshot_zxids
from tests.integration.conftest import require

SERVERS = (1, 2, 3)


def had(spec: str) -> Distribution:
    try:
        return resolve(spec)
    except EnvironmentLacking as lacking:
        require("distributions", str(lacking))
        raise


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Loopback:
    """Three servers on this machine's loopback; a network of its own is of no use here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        distribution = had("3.9")
        ports = free_ports(9)
        self.client_ports = dict(zip(SERVERS, ports, strict=False))
        lines = [f"server.{s}=127.0.0.1:{ports[3 * 1 + s - 1]}:{ports[3 * 2 + s - 1]}" for s in SERVERS]
        self._commands: dict[int, list[str]] = {}
        for server in SERVERS:
            home = folder / str(server)
            (home / "data").mkdir(parents=True)
            (home / "data" / "myid").write_text(f"{server}\n")
            config = home / "zoo.cfg"
            config.write_text(
                f"dataDir={home}/data\ndataLogDir={home}/log\nclientPort={self.client_ports[server]}\n"
                "clientPortAddress=127.0.0.1\ntickTime=500\ninitLimit=10\nsyncLimit=4\nadmin.enableServer=false\n"
                "4lw.commands.whitelist=*\n" + "\n".join(lines) + "\n"
            )
            command = [str(find_java().executable), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
            command += write_log_config(distribution.logging, home, home / "server.log")
            command += [
                "-cp",
                distribution.class_path,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                str(config),
            ]
            self._commands[server] = command

    def start(self, *servers: int) -> None:
        for server in servers:
            with (self.folder / str(server) / "out").open("ab") as out:
                self.processes[server] = subprocess.Popen(self._commands[server], stdout=out, stderr=out)

    def kill(self, *servers: int) -> None:
        for server in servers:
            self.processes[server].send_signal(signal.SIGKILL)
        for server in servers:
            self.processes[server].wait(10)

    def role(self, server: int) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.client_ports[server]), 1) as admin:
                admin.sendall(b"srvr")
                answer = b""
                while piece := admin.recv(4096):
                    answer += piece
        except OSError:
            return ""
        return answer.rpartition(b"Mode: ")[2].split(b"\n")[0].decode() if b"Mode: " in answer else ""

    def wait_for(self, *servers: int) -> int:
        """The leader, once these servers all have a role."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            roles = {server: self.role(server) for server in servers}
            if all(roles.values()) and "leader" in roles.values():
                return next(server for server, role in roles.items() if role == "leader")
            time.sleep(0.05)
        raise AssertionError(f"no quorum of {servers}")

    def client(self, *servers: int) -> KazooClient:
        client = KazooClient(",".join(f"127.0.0.1:{self.client_ports[s]}" for s in servers), timeout=5)
        client.start(timeout=30)
        return client

    def merged(self) -> CommittedLog:
        return merge_logs(self.logs(), frozenset(SERVERS), 2)

    def logs(self) -> dict[int, ServerLog]:
        replicas = Replicas()
        return {
            server: ServerLog(
                read_logs(self.folder / str(server) / "log", replicas).txns,
                snapshot_zxids(self.folder / str(server) / "data"),
            )
            for server in SERVERS
        }


@pytest.fixture
def ensemble(tmp_path: Path, java: None) -> Iterator[Loopback]:
    running = Loopback(tmp_path)
    yield running
    for process in running.processes.values():
        process.kill()
        process.wait(10)


def close(client: KazooClient) -> None:
    client.stop()
    client.close()


def test_a_deposed_leader_keeps_its_proposals_and_the_other_logs_refute_them(ensemble: Loopback) -> None:
    """ZooKeeper truncates nothing across an epoch. Whoever believed this log would call lost writes done."""
    ensemble.start(*SERVERS)
    leader = ensemble.wait_for(*SERVERS)
    followers = [server for server in SERVERS if server != leader]
    client = ensemble.client(leader)
    client.create("/committed", b"")

    ensemble.kill(*followers)
    pending = [client.create_async(f"/overwritten{number}", b"x") for number in range(10)]
    deadline = time.monotonic() + 30
    while ensemble.role(leader) and time.monotonic() < deadline:
        time.sleep(0.05)
    ensemble.kill(leader)
    close(client)
    assert not any(result.ready() and result.successful() for result in pending)

    ensemble.start(*followers)
    ensemble.wait_for(*followers)
    client = ensemble.client(*followers)
    for number in range(5):
        client.create(f"/new{number}", b"")
    ensemble.start(leader)
    ensemble.wait_for(*SERVERS)
    client.create("/last", b"")
    assert client.exists("/overwritten0") is None
    close(client)
    ensemble.kill(*SERVERS)

    history, logs = ensemble.merged(), ensemble.logs()
    overwritten = [txn for txn in logs[leader].txns if (txn.path or "").startswith("/overwritten")]
    assert overwritten, "the leader had logged proposals that it could not commit, and its log still has them"
    assert {txn.zxid for txn in overwritten} <= set(history.discarded)
    paths = [txn.path for txn in history.txns if txn.kind is TxnKind.CREATE]
    assert paths == ["/committed", *(f"/new{number}" for number in range(5)), "/last"]
    assert not (history.undecided or history.skipped or history.forks or history.missing)
    # What the reasoning rests on: the old leader came back by a snapshot, and the others' logs have no gap there.
    assert any(snapshot > max(txn.zxid for txn in overwritten) for snapshot in logs[leader].snapshots)
    assert all(logs[server].refutes(txn.zxid) for server in followers for txn in overwritten)


def test_proposals_of_the_last_leader_are_committed_by_the_next_one(ensemble: Loopback) -> None:
    """The same, but the old leader takes part in the election: what it has logged becomes history."""
    ensemble.start(*SERVERS)
    leader = ensemble.wait_for(*SERVERS)
    followers = [server for server in SERVERS if server != leader]
    client = ensemble.client(leader)
    client.create("/committed", b"")
    ensemble.kill(*followers)
    for number in range(10):
        client.create_async(f"/pending{number}", b"x")
    deadline = time.monotonic() + 30
    while ensemble.role(leader) and time.monotonic() < deadline:
        time.sleep(0.05)
    close(client)
    ensemble.start(followers[0])
    ensemble.wait_for(leader, followers[0])
    client = ensemble.client(leader, followers[0])
    client.create("/last", b"")
    found = client.exists("/pending0") is not None
    close(client)
    ensemble.kill(leader, followers[0])

    history = ensemble.merged()
    paths = [txn.path for txn in history.txns if txn.kind is TxnKind.CREATE]
    assert ("/pending0" in paths) == found
    assert found, "the leader had logged proposals that it could not commit"
    assert paths[0] == "/committed" and paths[-1] == "/last"
    assert not (history.discarded or history.skipped or history.forks or history.missing)
    assert next(counter(txn.zxid) for txn in history.txns if epoch(txn.zxid) > 1) == 1

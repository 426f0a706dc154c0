"""The transaction log of a real server, read back and compared with what its client was told."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError, NotEmptyError

from harness.check.replay import replay
from harness.errors import EnvironmentLacking
from harness.zookeeper.distribution import Distribution, resolve
from harness.zookeeper.java import find_java
from harness.zookeeper.server_log import write_log_config
from harness.zookeeper.txnlog import Txn, TxnKind, read_logs, snapshot_zxids
from tests.integration.conftest import require

VERSIONS = ("3.9.5", "3.8.6", "3.5.10")


def had(spec: str) -> Distribution:
    try:
        return resolve(spec)
    except EnvironmentLacking as lacking:
        require("distributions", str(lacking))
        raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as admin:
                admin.sendall(b"srvr")
                if b"Mode: standalone" in admin.recv(4096):
                    return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not come up")


class Server:
    """A standalone server on loopback."""

    def __init__(self, version: str, folder: Path) -> None:
        distribution = had(version)
        self.folder, self.port = folder, free_port()
        config = folder / "zoo.cfg"
        config.write_text(
            f"dataDir={folder}/data\ndataLogDir={folder}/log\nclientPort={self.port}\n"
            "clientPortAddress=127.0.0.1\ntickTime=500\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
        )
        command = [str(find_java().executable), "-Xmx256m", "-XX:TieredStopAtLevel=1"]
        command += write_log_config(distribution.logging, folder, folder / "server.log")
        command += ["-cp", distribution.class_path, "org.apache.zookeeper.server.ZooKeeperServerMain", str(config)]
        with (folder / "out").open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        wait_until_it_answers(self.port, self.process)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path, java: None) -> Iterator[Server]:
    running = Server(request.param, tmp_path)
    yield running
    running.kill()


def refused(call: Callable[[], object], error: type[KazooException]) -> None:
    with pytest.raises(error):
        call()


def test_a_real_log_says_what_its_client_was_told(server: Server) -> None:
    client = KazooClient(f"127.0.0.1:{server.port}")
    client.start(timeout=30)
    session = client.client_id[0]
    try:
        client.create("/r", b"")
        _path, created = client.create("/r/a", b"one", include_data=True)
        changed = client.set("/r/a", b"two")
        refused(lambda: client.set("/r/a", b"x", version=7), BadVersionError)
        refused(lambda: client.set("/r/none", b"x"), NoNodeError)
        refused(lambda: client.create("/r/a", b""), NodeExistsError)
        refused(lambda: client.delete("/r"), NotEmptyError)
        sequential = client.create("/r/s-", b"", sequence=True)
        client.create("/r/e", b"e", ephemeral=True)
        transaction = client.transaction()
        transaction.create("/r/m", b"m")
        transaction.set_data("/r/a", b"three")
        transaction.check("/r/a", 2)
        assert not any(isinstance(result, Exception) for result in transaction.commit())
        transaction = client.transaction()
        transaction.delete("/r/m")
        transaction.check("/r/a", 99)
        assert isinstance(transaction.commit()[1], BadVersionError)
        _data, last = client.get("/r/a")
        client.delete("/r/m")
        client.set_acls("/r/a", client.get_acls("/r/a")[0])
    finally:
        client.stop()
        client.close()
    server.kill()

    log = read_logs(server.folder / "log")
    ours = [txn for txn in log.txns if txn.session == session]
    assert [txn.zxid for txn in log.txns] == list(range(1, len(log.txns) + 1)), "refused requests take a zxid too"
    assert [_shape(txn) for txn in ours] == [
        (TxnKind.CREATE_SESSION, None, None, None, None),
        (TxnKind.CREATE, "/r", b"", None, None),
        (TxnKind.CREATE2, "/r/a", b"one", None, None),
        (TxnKind.SET_DATA, "/r/a", b"two", 1, None),
        (TxnKind.ERROR, None, None, None, "BadVersion"),
        (TxnKind.ERROR, None, None, None, "NoNode"),
        (TxnKind.ERROR, None, None, None, "NodeExists"),
        (TxnKind.ERROR, None, None, None, "NotEmpty"),
        (TxnKind.CREATE, sequential, b"", None, None),
        (TxnKind.CREATE, "/r/e", b"e", None, None),
        (TxnKind.MULTI, None, None, None, None),
        (TxnKind.MULTI, None, None, None, None),
        (TxnKind.DELETE, "/r/m", None, None, None),
        (TxnKind.SET_ACL, "/r/a", None, 1, None),
        (TxnKind.CLOSE_SESSION, None, None, None, None),
    ]
    assert [txn.cxid for txn in ours[1:9]] == list(range(1, 9))
    assert (ours[2].zxid, ours[3].zxid) == (created.czxid, changed.mzxid)
    assert ours[9].ephemeral and not ours[8].ephemeral
    done, undone = ours[10], ours[11]
    assert [part.kind for part in done.parts] == [TxnKind.CREATE, TxnKind.SET_DATA, TxnKind.CHECK]
    assert undone.failed_multi and not done.failed_multi

    history = replay(log.txns)
    assert history.contradictions == ()
    state = history.at("/r/a", ours[12].zxid)
    assert state is not None
    assert (state.value, state.version, state.czxid, state.mzxid) == ("three", last.version, last.czxid, last.mzxid)
    assert history.at("/r/m", done.zxid) is not None
    assert history.at("/r/m", ours[12].zxid) is None
    assert history.at("/r/e", ours[13].zxid) is not None
    assert history.at("/r/e", ours[14].zxid) is None, "an ephemeral znode goes with its session"
    assert 0 in snapshot_zxids(server.folder / "data")


def _shape(txn: Txn) -> tuple[TxnKind, str | None, bytes | None, int | None, str | None]:
    return txn.kind, txn.path, txn.data, txn.version, txn.error_name


def test_the_log_of_a_server_that_is_killed_while_it_writes_is_read(tmp_path: Path, java: None) -> None:
    server = Server(VERSIONS[0], tmp_path)
    client = KazooClient(f"127.0.0.1:{server.port}")
    client.start(timeout=30)
    try:
        pending = [client.create_async(f"/n{number}", b"x" * 2000) for number in range(300)]
        pending[50].get(timeout=30)
    finally:
        server.kill()
        client.stop()
        client.close()
    acknowledged = sum(1 for result in pending if result.ready() and result.successful())
    log = read_logs(tmp_path / "log")
    created = [txn.path for txn in log.txns if txn.kind is TxnKind.CREATE]
    assert created == [f"/n{number}" for number in range(len(created))]
    assert len(created) >= acknowledged > 50

"""A small ensemble on loopback whose only purpose is to leave a class-data archive behind.

When a JVM ends, it can write an archive of the classes that it has loaded. To be of use to a member of a quorum it has
to come from one: a standalone server never loads the election. Two members are enough, each with two addresses; the
leader writes it, after a client has had a session.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

from harness.zookeeper.distribution import Distribution
from harness.zookeeper.java import JVM_FLAGS, PROPERTIES, Java
from harness.zookeeper.lock import version_key
from harness.zookeeper.server_log import LOG_NAME, write_log_config

#: A quorum forms in 2 s; writing the archive takes 1 to 3 s more. On a loaded machine several times that.
_QUORUM_TIMEOUT_S = 30
_DUMP_TIMEOUT_S = 60
_POLL_S = 0.05

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
#: With equal histories the highest id leads.
_LEADER = 2
_MEMBERS = (1, _LEADER)

#: Runs a command that the kernel kills when its parent dies (PR_SET_PDEATHSIG), however that happens. Set before exec,
#: in a process of its own, because Python code after a fork is not safe in a process with threads.
_TETHERED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class _Ports:
    client: int
    quorum: tuple[int, int]
    election: tuple[int, int]


@dataclass(frozen=True)
class _Ensemble:
    java: Java
    distribution: Distribution
    folder: Path
    ports: dict[int, _Ports]

    def command(self, member: int, extra: tuple[str, ...]) -> list[str]:
        """What starts one member, whose files it writes first."""
        home = self.folder / str(member)
        data = home / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(str(member), encoding="utf-8")
        config = home / "zoo.cfg"
        config.write_text(self._config(data), encoding="utf-8")
        return [
            *(sys.executable, "-I", "-S", "-c", _TETHERED, str(os.getpid())),
            str(self.java.executable),
            *JVM_FLAGS,
            *PROPERTIES,
            *extra,
            *write_log_config(self.distribution.logging, home, home / LOG_NAME),
            "-Dzookeeper.multiAddress.enabled=true",
            *("-cp", self.distribution.class_path, _MAIN, str(config)),
        ]

    def _config(self, data: Path) -> str:
        lines = [
            *("tickTime=500", "initLimit=20", "syncLimit=10", f"dataDir={data}"),
            *("admin.enableServer=false", "standaloneEnabled=false", "4lw.commands.whitelist=*"),
        ]
        for member, own in self.ports.items():
            address = f"127.0.0.1:{own.quorum[0]}:{own.election[0]}"
            if version_key(self.distribution.version) >= (3, 6):
                address += f"|127.0.0.2:{own.quorum[1]}:{own.election[1]}"
            lines.append(f"server.{member}={address}:participant;127.0.0.1:{own.client}")
        return "\n".join(lines) + "\n"


def train(java: Java, distribution: Distribution, dump_flag: str, folder: Path) -> bool:
    """Run the ensemble; its leader gets `dump_flag` and is ended in order, so that it writes its archive.

    Args:
        java: the runtime that the archive is for.
        distribution: the server that it is for.
        dump_flag: a JVM argument that names the file.
        folder: an existing folder for everything the ensemble writes; it may be removed afterwards.

    Returns:
        Whether the ensemble formed and the leader ended in time. Whether the file is of use is not looked at.
    """
    ensemble = _Ensemble(java, distribution, folder, dict(zip(_MEMBERS, _free_ports(), strict=True)))
    with ExitStack() as stack:
        servers = {}
        for member in _MEMBERS:
            command = ensemble.command(member, (dump_flag,) if member == _LEADER else ())
            output = stack.enter_context((folder / f"{member}.out").open("wb"))
            server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            stack.callback(_end, server)
            servers[member] = server
        if not _quorum_formed(servers, ensemble.ports):
            return False
        _have_a_session(ensemble.ports[_LEADER].client)
        servers[_LEADER].send_signal(signal.SIGTERM)
        try:
            servers[_LEADER].wait(_DUMP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False
    return True


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.kill()
    server.wait()


def _free_ports() -> list[_Ports]:
    """Ports that were free a moment ago; should one be taken since, there is no quorum, and so no archive this time."""
    with ExitStack() as stack:
        numbers = []
        for _ in range(5 * len(_MEMBERS)):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            numbers.append(listener.getsockname()[1])
    return [
        _Ports(client, (quorum1, quorum2), (election1, election2))
        for client, quorum1, quorum2, election1, election2 in zip(*[iter(numbers)] * 5, strict=True)
    ]


def _quorum_formed(servers: dict[int, subprocess.Popen[bytes]], ports: dict[int, _Ports]) -> bool:
    deadline = time.monotonic() + _QUORUM_TIMEOUT_S
    while time.monotonic() < deadline and all(server.poll() is None for server in servers.values()):
        if all(b"Mode: " in _admin_word(b"srvr", own.client) for own in ports.values()):
            return True
        time.sleep(_POLL_S)  # between two polls of the condition above
    return False


def _admin_word(word: bytes, port: int) -> bytes:
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(word)
            while chunk := connection.recv(65536):
                answer += chunk
    except OSError:
        return b""
    return answer


def _have_a_session(port: int) -> None:
    """Make the leader load what a client's requests need, too. It does no harm if this fails."""
    for word in (b"mntr", b"conf", b"cons"):
        _admin_word(word, port)
    client = KazooClient(hosts=f"127.0.0.1:{port}", timeout=5)
    try:
        client.start(timeout=5)
        client.create("/training", b"1")
        client.set("/training", b"2")
        client.get("/training", watch=lambda _event: None)
        client.exists("/training")
        client.sync("/training")
        client.delete("/training")
    except (KazooException, KazooTimeoutError):
        return
    finally:
        client.stop()
        client.close()

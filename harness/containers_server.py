"""One ZooKeeper server in a container, in the style of the modules of testcontainers; see `harness.containers`."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Any, Self

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from testcontainers.core.config import ConnectionMode
from testcontainers.core.container import DockerContainer

from harness.containers_ready import ServingWaitStrategy, ask_command
from harness.containers_reaping import Watch
from harness.errors import EngineUnavailable, UsageError
from harness.images.server import find_server_image
from harness.testbed.engine import connect_engine, new_run_id, run_labels
from harness.testbed.refusals import refusals, said
from harness.topology.model import CLIENT_PORT, Setting
from harness.zookeeper.admin import ServerStatus, parse_srvr
from harness.zookeeper.config import setting_text
from harness.zookeeper.java import JVM_FLAGS, PROPERTIES

_log = logging.getLogger("harness.containers")

#: The user that the image has for the server. As root its entry point would only change to it, which takes privileges.
_USER = "1000:1000"
#: What a server needs of the machine: nothing. A test may say otherwise with `with_kwargs`, except for `privileged`.
_CONFINED: Mapping[str, object] = {"user": _USER, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
_LOOPBACK = "127.0.0.1"

#: A server for tests: small, soon there, and open to all admin words. `with_env` overrides.
_ENVIRONMENT: Mapping[str, str] = {
    "ZK_SERVER_HEAP": "256",
    "JMXDISABLE": "true",
    "JVMFLAGS": " ".join((*JVM_FLAGS, *PROPERTIES)),
    "ZOO_ADMINSERVER_ENABLED": "false",
    "ZOO_4LW_COMMANDS_WHITELIST": "*",
}

#: Attempts within one request to the engine: about a second.
_ATTEMPTS = 10
_LOG_LINES = 3
_WORD = re.compile(r"[a-z]{4}")
#: Seconds that the engine may take until a killed container counts as ended.
_END_TIMEOUT = 10


class ZooKeeperContainer(DockerContainer):  # type: ignore[misc]  # mypy is told not to follow testcontainers
    """A ZooKeeper server that stands alone, in a container.

    It has no privileges and its port is published on the loopback of the engine's machine only. `start` returns when it
    serves. What a test leaves behind is removed when the test's process has died.

    Example::

        with ZooKeeperContainer(version="3.8") as zookeeper:
            client = KazooClient(hosts=zookeeper.connection_string())

    Args:
        image: None: the image of `version`, the official one or the one that `zkchaos image` made.
        version: of ZooKeeper, a release (`3.9.5`) or a line (`3.9`); only read where there is no `image`.
        port: that the server listens on for clients, in the container.
        **kwargs: as `DockerContainer` takes them.

    Raises:
        EngineUnavailable: no Docker engine answers.
    """

    # what this class changes of its base's
    image: str
    env: dict[str, str]
    ports: dict[str, Any]
    _kwargs: dict[str, Any]
    _container: Container | None

    def __init__(
        self,
        image: str | None = None,
        version: str = "3.9",
        port: int = CLIENT_PORT,
        **kwargs: Any,  # whatever testcontainers takes, in whatever version
    ) -> None:
        try:
            super().__init__(image or "", **kwargs)
        except DockerException:
            connect_engine().close()  # says what is wrong, and what to do
            raise
        if not image:
            self.image = ""  # a prefix for a registry belongs to a name that is looked for there
        self.version, self.port = version, port
        self._labels: dict[str, str] = {}
        self._watch: Watch | None = None
        self.env = {**_ENVIRONMENT, **self.env}
        if port != CLIENT_PORT:
            self.with_env("ZOO_SERVERS", f"server.1=localhost:2888:3888;{port}")
        self.with_exposed_ports(port)
        self.waiting_for(ServingWaitStrategy())

    # --- before the start ------------------------------------------------------------------------------------

    def with_setting(self, key: str, value: Setting) -> Self:
        """Add a line to zoo.cfg; a later one with the same key counts.

        Raises:
            UsageError: the entry point cannot take it, because it has white space.
        """
        return self._with_words("ZOO_CFG_EXTRA", f"{key}={setting_text(value)}")

    def with_jvm_flags(self, *flags: str) -> Self:
        """Add arguments of the JVM, such as `-Dzookeeper.extendedTypesEnabled=true`; of two alike the later counts.

        Raises:
            UsageError: zkServer.sh cannot take it, because it has white space.
        """
        return self._with_words("JVMFLAGS", *flags)

    def with_labels(self, **labels: str) -> Self:
        """Add labels to the container; a dot in a name is written as in `with_labels(**{"my.label": "1"})`."""
        self._labels.update(labels)
        return self

    def _with_words(self, variable: str, *words: str) -> Self:
        for word in words:
            if not word or word.split() != [word]:
                raise UsageError("this has white space, or is empty", where=f"{variable}: {word!r}")
        self.with_env(variable, " ".join((self.env.get(variable, ""), *words)).strip())
        return self

    # --- running ---------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, and return when it serves.

        Raises:
            EngineUnavailable: there is no engine, or no image.
            TestbedError: the engine refused.
            EnsembleError: the server ended by itself, or did not serve in time.
        """
        if self._container is not None:
            return self
        run_id = new_run_id()
        try:
            with refusals("container"):
                self.image = server_image(self.get_docker_client().client, self.image, self.version)
                self._watch = Watch(run_id)
                self._labels |= run_labels(run_id)
                super().start()
        except BaseException:
            self.stop()
            raise
        return self

    def _configure(self) -> None:
        given = dict(self._kwargs)
        if given.get("privileged"):
            raise UsageError("a server is never privileged", where="ZooKeeperContainer", next_step="leave it out")
        labels = {**given.get("labels", {}), **self._labels}
        self._kwargs = {**_CONFINED, **given, "labels": labels}
        self.ports = {port: host if isinstance(host, tuple) else (_LOOPBACK, host) for port, host in self.ports.items()}

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        """Remove the container with all that is in it. Idempotent, and without effect before `start`."""
        try:
            with refusals("container"), contextlib.suppress(NotFound):
                super().stop(force=force, delete_volume=delete_volume)
        finally:
            self._container = None
            self._cached_container_info = None
            watch, self._watch = self._watch, None
            self.get_docker_client().client.close()
            if watch is not None:
                watch.close()

    def kill(self) -> None:
        """End the server by SIGKILL, as a power cut does; its data stays. Returns when it is gone."""
        with refusals("container"):
            container = self.get_wrapped_container()
            try:
                container.kill()
            except APIError:
                if self._is_running():  # else it had ended already
                    raise
            container.wait(timeout=_END_TIMEOUT)

    def exit_code(self) -> int | None:
        """How the server's process ended; None while it runs, or before it was started."""
        with refusals("container"):
            self.reload()
            if self.status not in ("exited", "dead"):
                return None
            return int(self.get_wrapped_container().attrs["State"]["ExitCode"])

    # --- asking ----------------------------------------------------------------------------------------------

    def connection_string(self) -> str:
        """What a client on the engine's machine gives to its library, as `127.0.0.1:32768`."""
        return f"{self.client_host()}:{self.get_exposed_port(self.port)}"

    def client_host(self) -> str:
        """Where a client finds the port: the container itself if this process is in one beside it, else loopback."""
        client = self.get_docker_client()
        mode = client.get_connection_mode()
        if mode is ConnectionMode.bridge_ip:
            return str(client.bridge_ip(self.get_container_id()))
        host = str(client.host()) if mode is ConnectionMode.docker_host else _LOOPBACK
        # The port is published for IPv4 alone, and `localhost` may mean ::1 first. An engine's gateway, which
        # testcontainers would take inside of a container, has no published port of ours.
        return _LOOPBACK if host == "localhost" else host

    def word(self, word: str) -> str:
        """The server's answer to an admin word (`srvr mntr conf cons ...`); empty where it does not answer.

        Raises:
            UsageError: not a word of four letters.
        """
        if not _WORD.fullmatch(word):
            raise UsageError("an admin word has four letters", where=repr(word))
        return self._ask(word, attempts=1, awaited="")

    def server_status(self) -> ServerStatus:
        """What `srvr` says: the role, the last zxid, and how many are connected; `down` where nothing answers."""
        return parse_srvr(self.word("srvr"))

    def await_serving(self) -> ServerStatus:
        """As `server_status`, but for about a second it is asked again while it does not serve."""
        return parse_srvr(self._ask("srvr", attempts=_ATTEMPTS, awaited="Mode: "))

    def _ask(self, word: str, *, attempts: int, awaited: str) -> str:
        with refusals("container"):
            try:
                answer = self.exec(ask_command(self.port, word, attempts=attempts, awaited=awaited))
            except APIError:
                if self._is_running():  # else the engine refused because it has just ended, or is paused
                    raise
                return ""
        text = bytes(answer.output).decode(errors="replace")
        return text if text.strip() else ""

    def _is_running(self) -> bool:
        self.reload()
        return bool(self.status == "running")

    def last_lines(self) -> str:
        """The end of the server's log, in one line."""
        with contextlib.suppress(DockerException, OSError):
            lines = self.get_wrapped_container().logs(tail=_LOG_LINES).decode(errors="replace").splitlines()
            return " / ".join(line.strip()[:200] for line in lines if line.strip())
        return ""


def server_image(client: docker.DockerClient, image: str | None, version: str) -> str:
    """The image that was asked for, or else that of a version; it is in the engine afterwards.

    Raises:
        EngineUnavailable: it could not be had.
    """
    if not image:
        return find_server_image(client, version, _log.info)
    try:
        client.images.get(image)
    except ImageNotFound:
        try:
            client.images.pull(image)
        except DockerException as problem:
            raise EngineUnavailable(
                f"the Docker engine does not have the image {image}, and the registry did not give it",
                cause=said(problem),
                next_step="build or load it, or name a version instead",
            ) from problem
    return image

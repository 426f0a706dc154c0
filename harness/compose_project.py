"""Brings a topology up with Docker Compose, asks its servers who they are, and takes it down again.

The Compose file is what `harness.compose` writes; `docker compose` reads it from its standard input. The engine is
asked for what Compose does not say: who holds a subnet, and what a server answers to `srvr`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import docker
from docker.errors import DockerException
from docker.models.containers import Container

from harness.compose import PRINT_STATUS, compose_file, image_variables, project_name
from harness.errors import EnsembleError, EnvironmentLacking, TestbedError
from harness.images.server import find_server_image
from harness.testbed.engine import LABEL_HOST
from harness.testbed.refusals import refusals
from harness.testbed.subnets import taken_subnet
from harness.topology.model import Topology
from harness.topology.toml_document import one_line
from harness.zookeeper.admin import DOWN, ServerStatus, parse_srvr

#: Compose's own label.
_LABEL_PROJECT = "com.docker.compose.project"

#: How long the servers may take until all of them serve, seconds; a quorum takes two.
_UP_TIMEOUT = 120
#: For Compose to create and start everything before, and to say how it went after it.
_CREATE_TIMEOUT = 120
_DOWN_TIMEOUT = 120
_VERSION_TIMEOUT = 20

#: In what Compose says when the engine refused something, as a port that is taken; else a server did not come up.
_BY_THE_ENGINE = "Error response from daemon"
#: How much is repeated of what others say: characters, and lines of a log.
_LONGEST = 500
_LAST_LINES = 5

_INSTALL = "install the plugin: `apt install docker-compose-plugin` from Docker's packages, or Docker Desktop"


@dataclass(frozen=True)
class ServerThere:
    """One server of a project, as the engine sees it."""

    host: str
    container: str
    #: What it answers on its own loopback, so that no fault on a network hides it.
    status: ServerStatus


class ComposeProject:
    """A topology on a Docker engine, by Compose; known by the project's name, so that no file is needed to end it.

    Raises:
        EnvironmentLacking: there is no Compose v2.
    """

    def __init__(self, topology_name: str, engine: docker.DockerClient) -> None:
        self.topology_name = topology_name
        self.name = project_name(topology_name)
        self._engine = engine
        self._command = compose_command()
        self._ours = {"label": f"{_LABEL_PROJECT}={self.name}"}

    def up(self, topology: Topology, tell: Callable[[str], None]) -> None:
        """Create what is missing, and wait until every server serves.

        Args:
            topology: the one of that name.
            tell: called with one short line before what may take seconds.

        Raises:
            TopologyError: the official image cannot do what the topology asks for.
            EngineUnavailable: there is no image of the servers, and none can be had.
            TestbedError: a subnet is taken, or Compose refused for another reason; what it had made is gone again.
            EnsembleError: a server did not serve in time. All is left as it is, so that its log can be read.
        """
        file = compose_file(topology)
        with refusals(self.name):
            for switch in topology.switches:
                if taken := taken_subnet(self._engine, switch, but_by=self.name):
                    raise taken
        new = not self.exists()
        versions = image_variables(topology)
        images = {name: find_server_image(self._engine, version, tell) for name, version in versions.items()}
        tell(f"docker compose --project-name {self.name} up --wait, with {', '.join(sorted(set(images.values())))}")
        try:
            self._start(file, images)
        except (TestbedError, KeyboardInterrupt):
            if new:
                self.down()
            raise

    def _start(self, file: str, images: Mapping[str, str]) -> None:
        words = ("up", "--wait", "--wait-timeout", str(_UP_TIMEOUT), "--remove-orphans")
        done = self._run(_CREATE_TIMEOUT + _UP_TIMEOUT, words, file, images)
        if done.returncode == 0:
            return
        reason = _reason(done.stderr)
        silent = [s for s in self.servers() if not s.status.serving]
        if _BY_THE_ENGINE in reason or not silent:
            raise TestbedError(f"Compose gave up: {reason}", where=self.name)
        raise EnsembleError(
            f"not all servers serve: {reason}",
            where=", ".join(server.host for server in silent),
            cause=self._last_words(silent[0]),
            next_step=f"`docker compose --project-name {self.name} logs` has all they said, "
            f"`zkchaos down {self.topology_name}` removes them",
        )

    def _last_words(self, server: ServerThere) -> str:
        with refusals(server.container):
            log: bytes = self._engine.containers.get(server.container).logs(tail=_LAST_LINES)
        lines = log.decode("utf-8", errors="replace").splitlines()
        return one_line(" / ".join(line.strip() for line in lines))[-_LONGEST:]

    def down(self) -> None:
        """Remove its containers, networks and volumes; does nothing where there are none.

        Raises:
            TestbedError: Compose could not.
        """
        done = self._run(_DOWN_TIMEOUT, ("down", "--volumes", "--remove-orphans", "--timeout", "5"))
        if done.returncode:
            raise TestbedError(f"Compose could not remove it: {_reason(done.stderr)}", where=self.name)

    def exists(self) -> bool:
        """Whether there is anything of it: a container, a network or a volume.

        Raises:
            TestbedError: the engine refused to say.
        """
        with refusals(self.name):
            kinds = (self._engine.networks, self._engine.volumes)
            return bool(self._containers()) or any(kind.list(filters=self._ours) for kind in kinds)

    def servers(self) -> tuple[ServerThere, ...]:
        """Every server that has a container, asked now, in the order of their ids.

        Raises:
            TestbedError: the engine refused to say.
        """
        with refusals(self.name):
            found = {str(c.labels[LABEL_HOST]): c for c in self._containers() if LABEL_HOST in c.labels}
        by_id = sorted(found, key=lambda host: (len(host), host))
        return tuple(ServerThere(host, str(found[host].name), _ask(found[host])) for host in by_id)

    def _containers(self) -> list[Container]:
        return list(self._engine.containers.list(all=True, filters=self._ours))

    def _run(
        self, timeout: float, words: Sequence[str], file: str = "", images: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
        # The command line might take another engine than the SDK, by its own settings; a variable settles it for both.
        environ = {"DOCKER_HOST": "unix:///var/run/docker.sock", **environ, **(images or {})}
        command = [*self._command, "--project-name", self.name, *(["--file", "-"] if file else []), *words]
        try:
            return subprocess.run(
                command,
                input=file,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                cwd="/",  # a Compose file or an .env in the user's folder has nothing to do with this
                env=environ,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as problem:
            raise TestbedError(f"Compose did not end within {timeout:.0f} s", where=self.name) from problem


def compose_command() -> list[str]:
    """The command line of Compose v2.

    Raises:
        EnvironmentLacking: it is not there.
    """
    program = shutil.which("docker")
    if program is None:
        raise EnvironmentLacking("the command `docker` is not installed", next_step=_INSTALL)
    command = [program, "compose"]
    done = subprocess.run(
        [*command, "version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_VERSION_TIMEOUT, check=False
    )
    if done.returncode:
        raise EnvironmentLacking("`docker` has no Compose v2", next_step=_INSTALL)
    return command


def wait_until_serving(project: ComposeProject, timeout: float = 10.0) -> tuple[ServerThere, ...]:
    """The servers as soon as all of them have a role, or as they are after this time, in seconds."""
    deadline = time.monotonic() + timeout
    while True:
        servers = project.servers()
        if all(s.status.serving for s in servers) or time.monotonic() > deadline:
            return servers
        time.sleep(0.1)


def _ask(container: Container) -> ServerStatus:
    try:
        code, output = container.exec_run(["bash", "-c", PRINT_STATUS])
    except (DockerException, OSError):  # it is stopped or paused
        return DOWN
    return parse_srvr(output.decode("utf-8", errors="replace")) if code == 0 else DOWN


def _reason(stderr: str) -> str:
    """What Compose complained of: its last line, which is the error; the lines before it are progress."""
    lines = [one_line(line).strip() for line in stderr.splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing")[:_LONGEST]

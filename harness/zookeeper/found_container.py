"""Looks into a container: is there a ZooKeeper server in it, which one, and how is it set up?"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import AddressValueError, IPv4Address
from pathlib import PurePosixPath

from docker.errors import APIError, NotFound
from docker.models.containers import Container

from harness.errors import TestbedError
from harness.testbed.engine import LABEL_HOST
from harness.topology.toml_document import one_line
from harness.zookeeper.found_config import config_path, id_of, members_of, settings_of, version_of

#: Compose's own labels: the project, and whether it is a container of `docker compose run`.
LABEL_PROJECT = "com.docker.compose.project"
_LABEL_ONE_OFF = "com.docker.compose.oneoff"
#: Where the images keep it that do not say otherwise.
_FOLDER = "/conf"
_DATA = "/data"
#: What the images start a server with, before it becomes a server.
_START_SCRIPT = "zkServer.sh"
_HOST = re.compile(r"zk(\d{1,3})", re.ASCII)
#: Longest file that is read, bytes.
_MOST = 256 * 1024
#: How often a command is run in a container until it says the same twice.
_ATTEMPTS = 5
#: How docker-inspect calls a container that neither runs nor will run by itself.
_ENDED = ("exited", "dead")
#: What the engine answers to a command for a container that is gone, or does not run.
_NOT_RUNNING = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


@dataclass(frozen=True)
class FoundServer:
    """A server in a container that runs."""

    id: int
    container: Container
    #: Its zoo.cfg with the dynamic part.
    config: Mapping[str, str]
    #: By the id of the network.
    addresses: Mapping[str, IPv4Address]
    #: Empty where nobody says it.
    version: str
    #: The name of its container's first process, which is the one that the engine sends signals to; empty where the
    #: engine cannot tell.
    first_process: str

    @property
    def name(self) -> str:
        """The container's."""
        return str(self.container.name)

    @property
    def labels(self) -> Mapping[str, str]:
        """The container's."""
        return self.container.labels or {}

    @property
    def removed_at_end(self) -> bool:
        """Whether the engine removes its container when it ends."""
        return bool(self.container.attrs["HostConfig"].get("AutoRemove"))

    @property
    def data_folders(self) -> tuple[PurePosixPath, PurePosixPath]:
        """`dataDir` and `dataLogDir`, in the container."""
        data = self.config.get("dataDir", _DATA)
        return PurePosixPath(data), PurePosixPath(self.config.get("dataLogDir", data))


@dataclass(frozen=True)
class Absent:
    """A server's container in which no server runs."""

    container: Container
    #: None where nobody says it.
    id: int | None
    #: The rest of a sentence that begins with the container.
    why: str
    #: Whether it may be there in a moment.
    starting: bool = False

    @property
    def name(self) -> str:
        """The container's."""
        return str(self.container.name)


def look_into(container: Container) -> FoundServer | Absent | None:
    """The server in a container; None if it is somebody else's, or has been removed meanwhile.

    Raises:
        TestbedError: there is a server, and it keeps to itself how it is set up.
    """
    if container.labels.get(_LABEL_ONE_OFF) == "True":
        return None
    try:
        if container.status == "running":
            return _running(container)
        return _not_running(container)
    except NotFound:
        return None
    except APIError:
        container.reload()
        if container.status == "running":
            raise
        return _not_running(container)  # it has ended while it was looked into


def _running(container: Container) -> FoundServer | Absent | None:
    processes = _processes(container)
    first = int(container.attrs["State"]["Pid"])
    if processes is None:  # an engine without `ps`
        java = [(first, "", _default_path(container))] if _read(container, _default_path(container)) else []
        processes = []
    else:
        java = [(pid, line, path) for pid, line in processes if (path := config_path(line)) is not None]
    if not java:
        number = _declared_id(container)
        if number is None and not any(_START_SCRIPT in line for _pid, line in processes):
            return None
        return Absent(container, number, "runs no ZooKeeper yet", starting=True)
    _pid, line, path = java[0]
    config = _configuration(container, path)
    number = id_of(_read(container, f"{config.get('dataDir', _DATA)}/myid") or "")
    if number is None:
        number = _declared_id(container) if members_of(config) else 1
    if number is None:
        raise TestbedError(
            "nothing says which server it is",
            where=str(container.name),
            cause=f"{config.get('dataDir', _DATA)}/myid cannot be read, and ZOO_MY_ID is not set",
        )
    image = str(container.attrs["Config"]["Image"])
    names = {pid: line.split()[0].rpartition("/")[2] for pid, line in processes if line.strip()}
    return FoundServer(number, container, config, _addresses(container), version_of(line, image), names.get(first, ""))


def _not_running(container: Container) -> Absent | None:
    state = container.attrs["State"]
    match container.status:
        case "paused":
            why = "is paused"
        case "restarting":
            why = f"ends again and again (exit code {state['ExitCode']})"
        case "created":
            why = "was never started"
        case status if status in _ENDED:
            why = f"does not run (exit code {state['ExitCode']})"
        case _:  # it is being removed
            return None
    number = _declared_id(container)
    if number is None:
        config = _archived(container, _default_path(container))
        if config is None:
            return None
        number = id_of(_archived(container, f"{settings_of(config).get('dataDir', _DATA)}/myid") or "")
    return Absent(container, number, why)


def _configuration(container: Container, path: str) -> dict[str, str]:
    text = _read(container, path)
    if text is None:
        raise TestbedError("its configuration cannot be read", where=f"{container.name}:{one_line(path)}")
    config = settings_of(text)
    if dynamic := config.get("dynamicConfigFile"):
        config |= settings_of(_read(container, dynamic) or "")
    return config


def _processes(container: Container) -> list[tuple[int, str]] | None:
    """The pid, as the engine counts, and the command line of each process; None where the engine cannot tell."""
    try:
        rows = container.top(ps_args="-o pid,args")["Processes"] or []
    except NotFound:
        raise
    except APIError:
        container.reload()
        if container.status != "running":
            raise
        return None
    return [(int(row[0]), str(row[1])) for row in rows]


def _environment(container: Container) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in container.attrs["Config"]["Env"] or ())


def _declared_id(container: Container) -> int | None:
    """Which server it is to be, as those say who made it."""
    ours = _HOST.fullmatch(container.labels.get(LABEL_HOST, ""))
    return int(ours.group(1)) if ours else id_of(_environment(container).get("ZOO_MY_ID", ""))


def _default_path(container: Container) -> str:
    return f"{_environment(container).get('ZOO_CONF_DIR', _FOLDER)}/zoo.cfg"


def _addresses(container: Container) -> dict[str, IPv4Address]:
    found = {}
    for network in container.attrs["NetworkSettings"]["Networks"].values():
        try:
            found[str(network["NetworkID"])] = IPv4Address(network["IPAddress"])
        except AddressValueError:  # it has none, or none of this kind
            continue
    return found


# --- reading -------------------------------------------------------------------------------------------------


def run_in(container: Container, words: Sequence[str]) -> str | None:
    """What a command in a container prints, at most so much; None if it fails, or is not there.

    A busy engine may lose what a command prints, so it is believed when it comes twice.

    Raises:
        APIError: the container does not run.
    """
    before: str | None = None
    for number in range(_ATTEMPTS):
        said = _run_once(container, words)
        if said == before and number > 0:
            break
        before = said
    return before


def _run_once(container: Container, words: Sequence[str]) -> str | None:
    try:
        code, output = container.exec_run(list(words), stderr=False)
    except APIError as problem:
        if problem.status_code in _NOT_RUNNING:
            raise
        return None
    return bytes(output or b"")[:_MOST].decode("utf-8", errors="replace") if code == 0 else None


def _read(container: Container, path: str) -> str | None:
    """A small file of a container that runs; None if it cannot be read.

    As the engine sees it, which needs no program in the image and no permission of its user; but the engine sees no
    tmpfs, and follows no link.
    """
    in_memory = [*(container.attrs["HostConfig"].get("Tmpfs") or {}), *_mounted_in_memory(container)]
    text = None
    if not any(PurePosixPath(path).is_relative_to(folder) for folder in in_memory):
        text = _archived(container, path)
    return text if text is not None else run_in(container, ["head", "-c", str(_MOST), path])


def _mounted_in_memory(container: Container) -> list[str]:
    return [str(m["Destination"]) for m in container.attrs.get("Mounts") or () if m["Type"] == "tmpfs"]


def _archived(container: Container, path: str) -> str | None:
    """A small file of a container, whether it runs or not; None if there is none."""
    try:
        stream, stat = container.get_archive(path)
    except NotFound:
        return None
    if int(stat["size"]) > _MOST:
        return None
    packed = io.BytesIO()
    for piece in stream:
        packed.write(piece)
        if packed.tell() > 2 * _MOST:
            return None
    packed.seek(0)
    try:
        with tarfile.open(fileobj=packed, mode="r") as archive:
            member = archive.next()
            source = archive.extractfile(member) if member is not None and member.isfile() else None
            return None if source is None else source.read(_MOST).decode("utf-8", errors="replace")
    except tarfile.TarError:
        return None

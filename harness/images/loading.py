"""Images and the engine: whether one is there, how one is put there, and how one is had from a registry."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from harness.errors import EngineUnavailable, TestbedError
from harness.images.archive import Image
from harness.testbed.engine import connect_engine, new_run_id, run_labels

Tell = Callable[[str], None]

#: What the kernel calls a processor, to what Docker and Debian call it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: How long a registry may be silent, and how long it may take in all, seconds.
_SILENCE_S = 30
_PULL_S = 600
#: How long a step of making an image may take inside a container, seconds.
_RUN_S = 120
_IN_MEMORY = 64 << 20


@dataclass(frozen=True)
class Loaded:
    """An image that is in the engine now."""

    reference: str
    #: `sha256:...`
    id: str
    #: How long each step took, seconds, by its name, in the order of time.
    steps: Mapping[str, float]

    def __str__(self) -> str:
        """`zkchaos/zookeeper:3.9.5 built in 31 s: file system 24 s, jars 2 s, load 5 s`."""
        parts = ", ".join(f"{name} {_short(seconds)}" for name, seconds in self.steps.items())
        return f"{self.reference} built in {_short(sum(self.steps.values()))}: {parts}"


def _short(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


class Stopwatch:
    """Measures the steps of making an image."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """What was done since the last lap was this step."""
        now = time.monotonic()
        self.steps[name] = self.steps.get(name, 0.0) + now - self._since
        self._since = now


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn what the SDK raises into the harness's errors."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout) as problem:
        raise EngineUnavailable(
            "the Docker engine does not answer any more", where=what, cause=str(problem)[:200]
        ) from problem
    except DockerException as problem:
        raise TestbedError(
            "the Docker engine refused a request", where=what, cause=str(problem).splitlines()[0][:300]
        ) from problem


def architecture_of(client: docker.DockerClient) -> str:
    """The processor that the engine's containers run on, as Docker and Debian call it: `amd64`, `arm64`."""
    with _asking("the engine's architecture"):
        name = str(client.version()["Arch"])
    return _ARCHITECTURES.get(name, name)


def id_of(client: docker.DockerClient, reference: str) -> str | None:
    """The id of the image that is in the engine under this name; None: there is none."""
    with _asking(reference):
        try:
            return str(client.images.get(reference).id)
        except ImageNotFound:
            return None


def load(client: docker.DockerClient, image: Image) -> str:
    """Put an image into the engine under its name, unless the very same is there; returns its id.

    Raises:
        TestbedError: the engine refused it, such as for want of disk space.
    """
    if id_of(client, image.id) is None:
        with _asking(image.reference):
            for _message in client.api.load_image(image.archive(), quiet=True):
                pass
    if id_of(client, image.id) is None:
        raise TestbedError("the Docker engine did not take an image", where=image.reference, cause="its disk is full")
    name, _, tag = image.reference.rpartition(":")
    with _asking(image.reference):
        client.api.tag(image.id, name, tag, force=True)
    return image.id


def run_and_fetch(
    client: docker.DockerClient, image: str, command: list[str], environment: Mapping[str, str], place: str
) -> IO[bytes]:
    """Run a command in a container of its own, without network, and take a folder out of it, as an archive.

    The container is removed, whatever happens.

    Raises:
        TestbedError: the command failed.
    """
    fetched = tempfile.SpooledTemporaryFile(_IN_MEMORY)
    with _asking(image):
        container = client.containers.create(
            image,
            entrypoint=command[:1],
            command=command[1:],
            environment=dict(environment),
            network_mode="none",
            labels=run_labels(new_run_id()),
        )
        try:
            container.start()
            code = int(container.wait(timeout=_RUN_S)["StatusCode"])
            if code != 0:
                output = container.logs(tail=1).decode("utf-8", errors="replace").strip()
                raise TestbedError(f"`{command[0]}` ended with exit code {code}", where=image, cause=output[:300])
            chunks, _status = container.get_archive(place)
            for chunk in chunks:
                fetched.write(chunk)
        finally:
            container.remove(force=True, v=True)
    fetched.seek(0)
    return fetched


def pull(reference: str, tell: Tell) -> str:
    """Ask the registry for an image; returns "", or in a few words why it could not be had.

    Where the registry cannot be reached, this usually shows at once; it never takes longer than the bounds above.
    """
    name, _, tag = reference.rpartition(":")
    tell(f"asking the registry for {reference}")
    deadline = time.monotonic() + _PULL_S
    client = connect_engine(_SILENCE_S)
    try:
        for message in client.api.pull(name, tag=tag, stream=True, decode=True):
            if "error" in message:
                return str(message["error"])[:300]
            if time.monotonic() > deadline:
                return f"not finished within {_PULL_S} s"
    except (requests.ConnectionError, requests.Timeout):
        return f"silent for {_SILENCE_S} s"
    except DockerException as problem:
        return str(problem.explanation if isinstance(problem, docker.errors.APIError) else problem)[:300]
    finally:
        client.close()
    return ""

"""Images and the engine: whether one is there, how one is put there, and how one is had from a registry."""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container

from harness.errors import EngineUnavailable, TestbedError
from harness.images.archive import Image, Layer, Settings
from harness.testbed.engine import connect_engine, new_run_id, run_labels
from harness.testbed.reaper import Reaper

Tell = Callable[[str], None]

#: What the kernel calls a processor, to what Docker and Debian call it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: How long a registry may be silent, and how long it may take in all, seconds.
_SILENCE_S = 30
_PULL_S = 600
#: How long a step of making an image may take inside a container, seconds.
_RUN_S = 120
#: HTTP's word for an image that a container uses.
_CONFLICT = 409


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


def own_architecture() -> str:
    """The processor of this machine, as Docker and Debian call it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def id_of(client: docker.DockerClient, reference: str) -> str | None:
    """The id of the image that is in the engine under this name; None: there is none."""
    with _asking(reference):
        try:
            return str(client.images.get(reference).id)
        except ImageNotFound:
            return None


def load(client: docker.DockerClient, image: Image) -> str:
    """Put an image into the engine under its name, unless the very same is there; returns its id.

    What had the name before is removed, if it has no other one.

    Raises:
        TestbedError: the engine refused it, such as for want of disk space.
    """
    before, there = id_of(client, image.reference), id_of(client, image.id)
    name, _, tag = image.reference.rpartition(":")
    problem = ""
    if there is None:
        with _asking(image.reference):
            messages = list(client.api.load_image(image.archive(), quiet=True))
            problem = "; ".join(str(message["error"]) for message in messages if "error" in message)
    # An engine that keeps images in containerd has ids of its own. What was loaded has its name already; it is given
    # once more for its time, which `keep_newest` goes by.
    number = there or id_of(client, image.reference)
    if number is not None and not problem:
        with _asking(image.reference):
            client.api.tag(number, name, tag, force=True)
    if problem or number is None:
        raise TestbedError(
            "the Docker engine did not take an image", where=image.reference, cause=(problem or "it does not say")[:300]
        )
    with _asking(image.reference), suppress(ImageNotFound):
        if before not in (None, number) and not client.images.get(before).tags:
            untag(client, before)
    return number


def untag(client: docker.DockerClient, reference: str) -> None:
    """Take a name away; the image goes with its last one, unless a container uses it."""
    with _asking(reference), suppress(ImageNotFound):
        try:
            client.images.remove(reference)
        except APIError as problem:
            if problem.status_code != _CONFLICT:
                raise


def keep_newest(client: docker.DockerClient, name: str, number: int, *, always: str) -> None:
    """Take away the tags of a name, but for those that were given last, and `always`, and what a container uses."""
    with _asking(name):
        images = client.images.list(name)
    tags = [
        (str(image.attrs.get("Metadata", {}).get("LastTagTime", "")), tag)
        for image in images
        for tag in image.tags
        if tag.rpartition(":")[0] == name and tag != always
    ]
    for _time, tag in sorted(tags, reverse=True)[number:]:
        untag(client, tag)


def run_and_fetch(
    client: docker.DockerClient, image: str, command: Sequence[str], environment: Mapping[str, str], place: str
) -> io.BytesIO:
    """Run a command in a container of its own, without network, and take a small folder out of it, as an archive.

    The container is removed, whatever happens.

    Raises:
        TestbedError: the command failed.
    """
    with _container(client, image, command, environment) as container:
        _run(container, image)
        chunks, _status = container.get_archive(place)
        return io.BytesIO(b"".join(chunks))


def derive(
    client: docker.DockerClient, base: str, layer: Layer, *, command: Sequence[str], settings: Settings, reference: str
) -> str:
    """Make an image of another one in the engine: its files, those of a layer, and what a command then makes of them.

    Returns:
        The id, which is another one each time.

    Raises:
        TestbedError: the command failed.
    """
    changes = [f"ENTRYPOINT {json.dumps(settings.entrypoint)}", f"CMD {json.dumps(settings.cmd)}"]
    changes += [f"ENV {variable}" for variable in settings.env if not variable.startswith("PATH=")]
    changes += [f"LABEL {key}={value}" for key, value in settings.labels.items()]
    name, _, tag = reference.rpartition(":")
    with _container(client, base, command, {}) as container:
        with layer.path.open("rb") as archive:
            container.put_archive("/", archive)
        _run(container, base)
        return str(container.commit(name, tag, changes=changes).id)


@contextmanager
def _container(
    client: docker.DockerClient, image: str, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Container]:
    """A container that is not started yet, and is removed in the end, whatever happens to this process."""
    run_id = new_run_id()
    with Reaper.start(run_id), _asking(image):
        container = client.containers.create(
            image,
            entrypoint=list(command[:1]),
            command=list(command[1:]),
            environment=dict(environment),
            network_mode="none",
            labels=run_labels(run_id),
        )
        try:
            yield container
        finally:
            container.remove(force=True, v=True)


def _run(container: Container, image: str) -> None:
    container.start()
    code = int(container.wait(timeout=_RUN_S)["StatusCode"])
    if code != 0:
        output = container.logs(tail=1).decode("utf-8", errors="replace").strip()
        raise TestbedError(f"a step of making an image ended with exit code {code}", where=image, cause=output[:300])


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
        return str(problem.explanation if isinstance(problem, APIError) else problem)[:300]
    finally:
        client.close()
    return ""

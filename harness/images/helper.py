"""The image of the helper: the harness's agent with a Python of its own, for engines that are not this machine's.

Its tag names the harness's version and a hash of everything that is in it, so that a helper never speaks another
language than the harness that starts it. What it runs is the agent by default; a client of the load is run by
`python3 -m harness.load.client`.

Where no Debian can be made (on a Mac, say), the registry's image `python` is taken instead; then the image does the
same, but its id is another one each time.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath

import docker
import msgspec
from filelock import FileLock, Timeout

import harness
from harness.errors import EngineUnavailable
from harness.images.archive import Entry, Image, Layer, Settings, tree, write_layer
from harness.images.filesystem import FileSystem, file_system
from harness.images.loading import (
    Loaded,
    Stopwatch,
    Tell,
    architecture_of,
    derive,
    id_of,
    keep_newest,
    load,
    pull,
    run_and_fetch,
    untag,
)
from harness.images.wheels import fetch_wheels, pinned, unpacked
from harness.zookeeper.cache import cache_folder

#: What the image is called, without the tag.
OWN = "zkchaos/helper"
#: The registry's image that stands in for Debian packages.
BASE = "python:3.11-slim"

_PACKAGES = ("python3",)
#: Of both Debian's suite and the registry's image.
_PYTHON = "3.11"
_HOME = "/opt/zkchaos"
#: The parts of the harness that the agent and the load's client import.
_PARTS = ("errors.py", "__init__.py", "topology", "history", "testbed", "load")
#: What those import of others; each needs nothing else at run time.
_LIBRARIES = ("kazoo", "msgspec", "pyroute2")
#: Byte code is not checked against its sources' times, which are all the same; nobody edits an image's files.
_COMPILE = ("python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", _HOME)
#: How many helpers of other versions are kept in the engine; they share all but a few megabytes.
_KEPT = 4
_LOCK_S = 900


@cache
def helper_image_tag() -> str:
    """The helper's whole name, as `zkchaos/helper:0.1.0-5f0c4a9d21be`: of the sources when it is first asked for."""
    return _tag_of(tuple(_harness()))


def _tag_of(sources: tuple[Entry, ...]) -> str:
    """The name that stands for all that is in the helper and does not come from Debian."""
    digest = hashlib.sha256(repr((_settings(), _COMPILE, pinned(_LIBRARIES))).encode())
    for entry in sources:
        content = entry.content or b""
        digest.update(f"{entry.path} {len(content)}\n".encode())
        digest.update(content)
    return f"{OWN}:{harness.__version__}-{digest.hexdigest()[:12]}"


def ensure_helper_image(client: docker.DockerClient, tell: Tell) -> str:
    """The name of the helper's image, which is made first if the engine does not have it.

    Raises:
        EngineUnavailable: what makes images is missing.
        TestbedError: the engine refused it.
    """
    reference = helper_image_tag()
    if id_of(client, reference) is not None:
        return reference
    made = build_helper_image(client, tell)
    tell(str(made))
    return made.reference


def build_helper_image(
    client: docker.DockerClient,
    tell: Tell,
    *,
    fresh: bool = False,
    reference: str | None = None,
    base: str | None = None,
) -> Loaded:
    """Make the helper's image from Debian's Python and this harness, and put it into the engine.

    Args:
        client: of the engine that shall have it.
        tell: called with one short line before anything that takes seconds.
        fresh: take Debian's newest packages, instead of the file system that is in the cache.
        reference: instead of `helper_image_tag()`.
        base: an image with a Python, instead of Debian packages.

    Raises:
        EngineUnavailable: what makes images is missing.
        TestbedError: the engine refused it.
    """
    watch = Stopwatch()
    sources = tuple(_harness())
    name = reference or _tag_of(sources)
    with _alone(), tempfile.TemporaryDirectory(prefix="zkchaos-image-") as scratch:
        architecture = architecture_of(client)
        wheels = fetch_wheels(pinned(_LIBRARIES), architecture, _PYTHON, tell, os.environ)
        watch.lap("libraries")
        entries = [*sources, *(entry for wheel in wheels for entry in unpacked(wheel, _HOME))]
        layer = write_layer(entries, Path(scratch) / "sources.tar")
        watch.lap("helper layer")
        system = _system(client, architecture, base, tell, fresh=fresh)
        if isinstance(system, str):
            watch.lap("base image")
            number = derive(client, system, layer, command=_COMPILE, settings=_settings(), reference=name)
            watch.lap("byte code and load")
        else:
            watch.lap("file system (cached)" if system.cached else "file system")
            image = _image(name, architecture, system, layer)
            tell(f"loading {name} into the engine")
            number = _load_compiled(client, image, Path(scratch), watch)
        keep_newest(client, OWN, _KEPT, always=name)
    return Loaded(name, number, watch.steps)


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time makes a helper, because of the image under way that they would share."""
    place = cache_folder(os.environ) / "images" / "helper.lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place, timeout=_LOCK_S):
            yield
    except Timeout as problem:
        raise EngineUnavailable(
            f"another process has been making a helper for {_LOCK_S} s",
            where=str(place),
            next_step="end it, then try again",
        ) from problem


def _system(
    client: docker.DockerClient, architecture: str, base: str | None, tell: Tell, *, fresh: bool
) -> FileSystem | str:
    """What the helper stands on: a Debian, or the name of an image in the engine."""
    if base is not None:
        return base
    try:
        return file_system(_PACKAGES, architecture, tell, fresh=fresh, environ=os.environ)
    except EngineUnavailable as lacking:
        problem = "" if id_of(client, BASE) is not None else pull(BASE, tell)
        if problem:
            raise EngineUnavailable(
                f"{lacking.what}; nor did the registry give {BASE}",
                where="the helper's image",
                cause="; ".join(filter(None, (lacking.cause, problem))),
                next_step=lacking.next_step,
            ) from lacking
        return BASE


def _image(reference: str, architecture: str, system: FileSystem, layer: Layer) -> Image:
    settings = _settings()
    return Image(
        reference=reference,
        layers=(system.layer, layer),
        settings=msgspec.structs.replace(
            settings, labels={**settings.labels, "zkchaos.packages-sha256": system.packages_sha256}
        ),
        architecture=architecture,
        history=(f"Debian packages {' '.join(_PACKAGES)}", f"zk-chaos-harness {harness.__version__}"),
    )


def _load_compiled(client: docker.DockerClient, image: Image, scratch: Path, watch: Stopwatch) -> str:
    """Put the image into the engine, with byte code that its own Python wrote; that saves each start a second or two.

    The same Python writes the same byte code from the same files, if its hashes have no random seed.
    """
    uncompiled = replace(image, reference=f"{image.reference}-uncompiled")
    number = load(client, uncompiled)
    watch.lap("load")
    try:
        archive = run_and_fetch(client, number, _COMPILE, {"PYTHONHASHSEED": "0"}, _HOME)
        with tarfile.open(fileobj=archive) as files:
            layer = write_layer(_byte_code(files), scratch / "compiled.tar")
        watch.lap("byte code")
        number = load(client, replace(image, layers=(*image.layers, layer), history=(*image.history, "byte code")))
    finally:
        untag(client, uncompiled.reference)
    watch.lap("load")
    return number


def _byte_code(files: tarfile.TarFile) -> Iterator[Entry]:
    for member in files:
        content = files.extractfile(member)
        if member.name.endswith(".pyc") and content is not None:
            yield Entry(str(PurePosixPath(_HOME).parent / member.name), content.read(), 0o644)


def _settings() -> Settings:
    return Settings(
        entrypoint=("python3", "-m", "harness.testbed.agent"),
        env=(
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            f"PYTHONPATH={_HOME}",
            "PYTHONUNBUFFERED=1",
        ),
        labels={"org.opencontainers.image.version": harness.__version__},
    )


def _harness() -> Iterator[Entry]:
    package = Path(harness.__file__).parent
    for part in _PARTS:
        place = f"{_HOME}/harness/{part}"
        if (package / part).is_dir():
            yield from tree(package / part, place, suffixes=(".py",), skip=("__pycache__",))
        else:
            yield Entry(place, (package / part).read_bytes(), 0o644)

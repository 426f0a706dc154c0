"""The image of the helper: the harness's agent with a Python of its own, for engines that are not this machine's.

Its tag names the harness's version and a hash of everything that is in it, so that a helper never speaks another
language than the harness that starts it. What it runs is the agent by default; a client of the load is run by
`python3 -m harness.load.client`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import docker
from filelock import FileLock, Timeout

import harness
from harness.errors import EngineUnavailable
from harness.images.archive import Entry, Image, Settings, tree, write_layer
from harness.images.filesystem import file_system
from harness.images.loading import Loaded, Stopwatch, Tell, architecture_of, id_of, load, run_and_fetch
from harness.zookeeper.cache import cache_folder

#: What the image is called, without the tag.
OWN = "zkchaos/helper"

_PACKAGES = ("python3",)
#: Of Debian's suite in `filesystem`.
_PYTHON = "3.11"
_HOME = "/opt/zkchaos"
#: The parts of the harness that the agent and the load's client import.
_PARTS = ("errors.py", "__init__.py", "topology", "history", "testbed", "load")
#: What those import of others; each needs nothing else at run time.
_LIBRARIES = ("kazoo", "msgspec", "pyroute2")
#: Processors by Docker's name and by the name that Python's packages have for them.
_PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
_FETCH_S = 300


def helper_image_tag() -> str:
    """The helper's whole name, as `zkchaos/helper:0.1.0-5f0c4a9d21be`."""
    return f"{OWN}:{harness.__version__}-{_sources_sha256()[:12]}"


@cache
def _sources_sha256() -> str:
    """Stands for all that is in the helper and does not come from Debian."""
    digest = hashlib.sha256(repr((_settings(), _libraries())).encode())
    for entry in _harness():
        digest.update(f"{entry.path} {len(entry.content or b'')}\n".encode())
        digest.update(entry.content or b"")
    return digest.hexdigest()


def ensure_helper_image(client: docker.DockerClient, tell: Tell) -> str:
    """The name of the helper's image, which is made first if the engine does not have it.

    Raises:
        EngineUnavailable: what makes images is missing.
        TestbedError: the engine refused it.
    """
    reference = helper_image_tag()
    if id_of(client, reference) is None:
        tell(str(build_helper_image(client, tell)))
    return reference


def build_helper_image(
    client: docker.DockerClient, tell: Tell, *, fresh: bool = False, reference: str | None = None
) -> Loaded:
    """Make the helper's image from Debian's Python and this harness, and put it into the engine.

    Args:
        client: of the engine that shall have it.
        tell: called with one short line before anything that takes seconds.
        fresh: take Debian's newest packages, instead of the file system that is in the cache.
        reference: instead of `helper_image_tag()`.

    Raises:
        EngineUnavailable: what makes images is missing.
        TestbedError: the engine refused it.
    """
    watch = Stopwatch()
    architecture = architecture_of(client)
    wheels = _wheels(architecture, os.environ, tell)
    watch.lap("libraries")
    system = file_system(_PACKAGES, architecture, tell, fresh=fresh, environ=os.environ)
    watch.lap("file system (cached)" if system.cached else "file system")
    with tempfile.TemporaryDirectory(prefix="zkchaos-image-") as scratch:
        entries = [*_harness(), *(entry for wheel in wheels for entry in _unpacked(wheel))]
        layer = write_layer(entries, Path(scratch) / "sources.tar")
        image = Image(
            reference=reference or helper_image_tag(),
            layers=(system.layer, layer),
            settings=_settings(system.packages_sha256),
            architecture=architecture,
            history=(f"Debian packages {' '.join(_PACKAGES)}", f"zk-chaos-harness {harness.__version__}"),
        )
        watch.lap("helper layer")
        tell(f"loading {image.reference} into the engine")
        load(client, replace(image, reference=f"{OWN}:uncompiled"))
        watch.lap("load")
        compiled = write_layer(_compiled(client, image.id), Path(scratch) / "compiled.tar")
        whole = replace(image, layers=(*image.layers, compiled), history=(*image.history, "byte code"))
        watch.lap("byte code")
        number = load(client, whole)
    watch.lap("load")
    return Loaded(whole.reference, number, watch.steps)


def _compiled(client: docker.DockerClient, image: str) -> Iterator[Entry]:
    """The byte code of what is in the image, written by the image's own Python; it saves each start a second or two.

    It is not checked against its sources' times, which are all the same; nobody edits an image's files.
    """
    archive = run_and_fetch(
        client,
        image,
        ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", _HOME],
        {"PYTHONHASHSEED": "0"},
        _HOME,
    )
    with tarfile.open(fileobj=archive) as files:
        for member in files:
            content = files.extractfile(member)
            if member.name.endswith(".pyc") and content is not None:
                yield Entry(str(PurePosixPath(_HOME).parent / member.name), content.read(), 0o644)


def _settings(packages_sha256: str = "") -> Settings:
    return Settings(
        entrypoint=("python3", "-m", "harness.testbed.agent"),
        env=(
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            f"PYTHONPATH={_HOME}",
            "PYTHONUNBUFFERED=1",
        ),
        labels={
            "org.opencontainers.image.version": harness.__version__,
            "zkchaos.packages-sha256": packages_sha256,
        },
    )


def _harness() -> Iterator[Entry]:
    package = Path(harness.__file__).parent
    for part in _PARTS:
        place = f"{_HOME}/harness/{part}"
        if (package / part).is_dir():
            yield from tree(package / part, place, suffixes=(".py",), skip=("__pycache__",))
        else:
            yield Entry(place, (package / part).read_bytes(), 0o644)


def _libraries() -> tuple[str, ...]:
    """`name==version` of each library, the versions being those that this process uses."""
    try:
        return tuple(f"{name}=={version(name)}" for name in _LIBRARIES)
    except PackageNotFoundError as problem:
        raise EngineUnavailable(
            f"the version of {problem.name} is not known, which the helper's image needs",
            cause="it was not installed as a package",
            next_step="install zk-chaos-harness with pip",
        ) from problem


def _wheels(architecture: str, environ: Mapping[str, str], tell: Tell) -> list[Path]:
    """The libraries' wheels for the engine's processor, from the cache or by pip."""
    pinned = _libraries()
    platform = f"manylinux2014_{_PLATFORMS.get(architecture, architecture)}"
    folder = cache_folder(environ) / "images" / f"wheels-{architecture}-{'-'.join(pinned).replace('==', '-')}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_FETCH_S):
            if not folder.is_dir():
                tell(f"fetching {', '.join(pinned)} for the helper")
                _fetch(pinned, platform, folder, environ)
            return sorted(folder.glob("*.whl"))
    except (OSError, Timeout) as problem:
        raise EngineUnavailable(
            f"the cache cannot be read or written: {problem}",
            where=str(folder),
            next_step="free space, or set ZKCHAOS_CACHE to a folder of yours",
        ) from problem


def _fetch(pinned: tuple[str, ...], platform: str, folder: Path, environ: Mapping[str, str]) -> None:
    """Let pip put the wheels into a folder, which exists afterwards if all of them are there."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", _PYTHON, "--platform", platform]
    with tempfile.TemporaryDirectory(prefix="making-", dir=folder.parent) as scratch:
        try:
            done = subprocess.run(
                [*command, "--dest", f"{scratch}/wheels", *pinned],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_FETCH_S,
                check=False,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as problem:
            raise _not_fetched(f"no answer within {_FETCH_S} s") from problem
        if done.returncode != 0:
            raise _not_fetched(done.stdout.strip().splitlines()[-1][:300] if done.stdout.strip() else "")
        Path(scratch, "wheels").rename(folder)


def _not_fetched(cause: str) -> EngineUnavailable:
    return EngineUnavailable(
        "pip could not fetch the libraries of the helper's image",
        cause=cause,
        next_step="check that `pip download msgspec` works, in the environment that the harness is installed in",
    )


def _unpacked(wheel: Path) -> Iterator[Entry]:
    """What is in a wheel, as it is installed."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield Entry(f"{_HOME}/{member.filename}", archive.read(member), 0o644)

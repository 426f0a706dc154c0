"""Python packages for an image: the very versions that this process uses, as wheels for the engine's processor."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import EngineUnavailable
from harness.images.archive import Entry
from harness.zookeeper.cache import cache_folder

#: Processors by Docker's name and by the name that Python's packages have for them.
_PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
_FETCH_S = 300


def pinned(names: tuple[str, ...]) -> tuple[str, ...]:
    """`name==version` of each package, as it is installed here.

    Raises:
        EngineUnavailable: one is not installed as a package.
    """
    try:
        return tuple(f"{name}=={version(name)}" for name in names)
    except PackageNotFoundError as problem:
        raise EngineUnavailable(
            f"the version of {problem.name} is not known, which the helper's image needs",
            cause="it was not installed as a package",
            next_step="install zk-chaos-harness with pip",
        ) from problem


def fetch_wheels(
    requirements: tuple[str, ...],
    architecture: str,
    python: str,
    tell: Callable[[str], None],
    environ: Mapping[str, str],
) -> tuple[Path, ...]:
    """Wheels of the requirements, without what they depend on; from the cache, or by pip.

    Args:
        requirements: as `pinned` gives them.
        architecture: as Docker calls it.
        python: the version that shall run them, as `3.11`.
        tell: called with one short line before something is fetched.
        environ: where the cache is, and what pip may need.

    Raises:
        EngineUnavailable: pip is missing or failed, or the cache cannot be written.
    """
    platform = f"manylinux2014_{_PLATFORMS.get(architecture, architecture)}"
    name = "-".join(("wheels", f"cp{python}", architecture, *requirements)).replace("==", "-")
    folder = cache_folder(environ) / "images" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_FETCH_S):
            if not folder.is_dir():
                tell(f"fetching {', '.join(requirements)}")
                _fetch(requirements, ("--python-version", python, "--platform", platform), folder, environ)
            return tuple(sorted(folder.glob("*.whl")))
    except (OSError, Timeout) as problem:
        raise EngineUnavailable(
            f"the cache cannot be read or written: {problem}",
            where=str(folder),
            next_step="free space, or set ZKCHAOS_CACHE to a folder of yours",
        ) from problem


def unpacked(wheel: Path, place: str) -> Iterator[Entry]:
    """What is in a wheel, as it is installed into a folder of packages."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield Entry(f"{place}/{member.filename}", archive.read(member), 0o644)


def _fetch(requirements: tuple[str, ...], target: tuple[str, ...], folder: Path, environ: Mapping[str, str]) -> None:
    """Let pip put the wheels into a folder, which exists afterwards if all of them are there."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(prefix="making-", dir=folder.parent) as scratch:
        try:
            done = subprocess.run(
                [*command, "--implementation", "cp", *target, "--dest", f"{scratch}/wheels", *requirements],
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
            raise _not_fetched(next(reversed(done.stdout.split("\n\n")[0].strip().splitlines()), ""))
        Path(scratch, "wheels").rename(folder)


def _not_fetched(cause: str) -> EngineUnavailable:
    return EngineUnavailable(
        "pip could not fetch the libraries of the helper's image",
        cause=cause[:300],
        next_step="check that `pip download msgspec` works, in the environment that the harness is installed in",
    )

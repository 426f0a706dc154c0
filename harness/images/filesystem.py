"""The lowest layer of an image: a small Debian, made of packages by `mmdebstrap`.

It needs no image registry, only what `apt` needs. What differs from one making to the next, or from machine to machine
(caches, logs, the machine's package sources, a random salt in Java's store of certificate authorities), is left out,
and so is what no server reads (manuals, translations). So the same packages give the same layer, bit by bit. The layer
is kept in the cache; newer packages are taken when it is made anew, which is on demand only.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
from filelock import FileLock, Timeout

from harness.errors import EngineUnavailable
from harness.images.archive import EPOCH, Layer
from harness.zookeeper.cache import cache_folder

Tell = Callable[[str], None]

#: Debian 12: Java 17, Python 3.11.
SUITE = "bookworm"
#: Raised whenever the same packages shall give another layer, so that no cached one is taken.
_RECIPE = 1
#: Making it takes half a minute where the packages come fast.
_TIMEOUT_S = 900
_APT_TIMEOUT_S = 60

#: Where dpkg keeps what is installed.
_STATUS = "var/lib/dpkg/status"
#: Left out, as regular expressions of whole paths without the leading `/`.
_LEFT_OUT = re.compile(
    r"""
      dev/.+ | proc/.+ | sys/.+ | run/.+ | tmp/.+ | var/tmp/.+
    | var/cache/.+ | var/log/.+ | var/backups/.+
    | var/lib/apt/(lists|extended_states).* | var/lib/dpkg/.*-old | var/lib/dbus/machine-id
    | etc/(machine-id|resolv\.conf|hostname|hosts|mtab|.*-|apt/sources\.list.*|apt/apt\.conf\.d/99mmdebstrap)
    | etc/ssl/certs/java/cacerts
    | usr/share/(man|locale|info|lintian|bug|fonts)/.+
    | usr/share/doc/.+/(?!copyright$)[^/]+
    """,
    re.VERBOSE,
)
#: Settings of the machine's apt that say how packages are fetched.
_FETCHING = re.compile(r"Acquire::(http|https|ftp|Retries|Check-|ForceIPv|CaInfo|Proxy)", re.IGNORECASE)


class _Made(msgspec.Struct, frozen=True):
    """What is known of a cached layer."""

    sha256: str
    #: `name version` of each package, sorted.
    packages: tuple[str, ...]


@dataclass(frozen=True)
class FileSystem:
    """A root file system."""

    layer: Layer
    #: `name version` of each package, sorted.
    packages: tuple[str, ...]
    #: Whether it had been made before.
    cached: bool

    @property
    def packages_sha256(self) -> str:
        """Stands for all packages and their versions."""
        return hashlib.sha256("\n".join(self.packages).encode()).hexdigest()


def file_system(
    packages: tuple[str, ...], architecture: str, tell: Tell, *, fresh: bool = False, environ: Mapping[str, str]
) -> FileSystem:
    """A Debian with these packages and what they depend on; from the cache, unless `fresh`.

    Args:
        packages: names of Debian packages.
        architecture: as Debian and Docker call it: `amd64`, `arm64`.
        tell: called with one short line before anything that takes seconds.
        fresh: make it anew, of the newest packages.
        environ: where the cache is, and what apt may need.

    Raises:
        EngineUnavailable: mmdebstrap is missing, or failed.
    """
    folder = cache_folder(environ) / "images"
    recipe = "\n".join((str(_RECIPE), SUITE, architecture, *sorted(packages), _LEFT_OUT.pattern))
    name = f"{SUITE}-{architecture}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock", timeout=_TIMEOUT_S):
            kept = None if fresh else _cached(folder, name)
            if kept is not None:
                return kept
            tell(f"making a file system of Debian {SUITE} with {', '.join(packages)}")
            return _make(packages, architecture, folder, name, environ)
    except Timeout as problem:
        raise EngineUnavailable(
            f"another process has been making the same file system for {_TIMEOUT_S} s",
            where=str(folder / f"{name}.lock"),
            next_step="end it, then try again",
        ) from problem
    except OSError as problem:
        raise EngineUnavailable(
            f"the cache cannot be read or written: {problem.strerror or problem}",
            where=str(folder),
            next_step="free space, or set ZKCHAOS_CACHE to a folder of yours",
        ) from problem


def _cached(folder: Path, name: str) -> FileSystem | None:
    """What lies in the cache, if it is what was put there."""
    try:
        made = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=_Made)
        layer = Layer.of(folder / f"{name}.tar")
    except (OSError, msgspec.DecodeError):
        return None
    return FileSystem(layer, made.packages, cached=True) if layer.sha256 == made.sha256 else None


def _make(
    packages: tuple[str, ...], architecture: str, folder: Path, name: str, environ: Mapping[str, str]
) -> FileSystem:
    mmdebstrap = shutil.which("mmdebstrap", path=environ.get("PATH", ""))
    if mmdebstrap is None:
        raise EngineUnavailable(
            "an image is made of Debian packages by `mmdebstrap`, and there is none here",
            next_step="apt install mmdebstrap, or use a machine that reaches an image registry",
        )
    with tempfile.TemporaryDirectory(prefix="making-", dir=folder) as scratch:
        tar, messages, options = Path(scratch) / "layer.tar", Path(scratch) / "messages", Path(scratch) / "apt.conf"
        options.write_text(_apt_options(environ), encoding="utf-8")
        sources = _apt_sources(environ)
        command = [mmdebstrap, "--variant=minbase", f"--architectures={architecture}", f"--aptopt={options}"]
        command += [f"--include={','.join(packages)}", SUITE, "-", *(("-",) if sources else ())]
        with messages.open("wb") as told:
            installed = _run(command, sources, tar, told, environ)
        if installed is None:
            raise _failed(messages)
        layer = Layer.of(tar)
        tar.replace(folder / f"{name}.tar")
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(_Made(layer.sha256, installed)))
    return FileSystem(Layer(folder / f"{name}.tar", layer.sha256), installed, cached=False)


def _run(
    command: list[str], sources: str, tar: Path, messages: IO[bytes], environ: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Write what the command makes, stripped; returns the packages, or None if the command failed."""
    with tempfile.TemporaryFile() as typed:
        typed.write(sources.encode())
        typed.seek(0)
        maker = subprocess.Popen(
            ["timeout", "--kill-after=10", str(_TIMEOUT_S), *command],
            stdin=typed,
            stdout=subprocess.PIPE,
            stderr=messages,
            env={**environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"},
            umask=0o022,
            start_new_session=True,
        )
    try:
        installed: tuple[str, ...] = ()
        if maker.stdout is not None:
            with maker.stdout as made, suppress(tarfile.TarError):  # of a command that failed; its exit code says so
                installed = strip(made, tar)
                made.read()  # the rest of the last block, which the command must not find unread
        return installed if maker.wait() == 0 and installed else None
    finally:
        if maker.poll() is None:
            maker.terminate()
            maker.wait()


def strip(made: IO[bytes], tar: Path) -> tuple[str, ...]:
    """Copy an archive, without what differs between two makings and what no server reads.

    Returns:
        `name version` of each installed package, sorted.
    """
    dropped = set()
    status = b""
    with (
        tarfile.open(fileobj=made, mode="r|") as source,
        tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as target,
    ):
        for member in source:
            member.name = member.name.removeprefix("./").rstrip("/")
            member.linkname = member.linkname.removeprefix("./") if member.islnk() else member.linkname
            if left_out(member.name) or (member.islnk() and member.linkname in dropped):
                dropped.add(member.name)
                continue
            member.mtime = min(int(member.mtime), EPOCH)
            member.uname = member.gname = ""
            member.pax_headers = {}
            content = source.extractfile(member) if member.isfile() else None
            if member.name == _STATUS and content is not None:
                status = content.read()
                content = io.BytesIO(status)
            target.addfile(member, content)
    return installed_packages(status.decode("utf-8", errors="replace").splitlines())


def left_out(path: str) -> bool:
    """Whether this path, without a leading `/`, is not taken into the layer."""
    return path in ("", ".") or _LEFT_OUT.fullmatch(path) is not None


def installed_packages(status: Iterable[str]) -> tuple[str, ...]:
    """`name version` of each package of dpkg's status file, sorted."""
    found, name = [], ""
    for line in status:
        if line.startswith("Package: "):
            name = line.removeprefix("Package: ")
        elif line.startswith("Version: "):
            found.append(f"{name} {line.removeprefix('Version: ')}")
    return tuple(sorted(found))


def _apt_sources(environ: Mapping[str, str]) -> str:
    """Where this machine gets the suite's packages from; empty if it is another Debian, or none.

    Then mmdebstrap takes Debian's own servers.
    """
    wanted = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines = _apt(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"], environ)
    found = []
    for line in dict.fromkeys(lines):
        place, release, component = (*line.split(" "), "", "", "")[:3]
        if release.partition("-")[0] == SUITE and component == "main":
            found.append(f"deb {place} {release} {component}\n")
    return "".join(found)


def _apt_options(environ: Mapping[str, str]) -> str:
    """How this machine fetches packages, such as through which proxy; mmdebstrap looks at none of it by itself."""
    return "".join(f"{line}\n" for line in _apt(["apt-config", "dump"], environ) if _FETCHING.match(line))


def _apt(command: list[str], environ: Mapping[str, str]) -> list[str]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            timeout=_APT_TIMEOUT_S,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return []  # no apt here; mmdebstrap says what it lacks
    return done.stdout.splitlines()


def _failed(messages: Path) -> EngineUnavailable:
    """What to tell about a failure: mmdebstrap's own first error."""
    lines = messages.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("E:", "Err:", "mmdebstrap:"))] or lines[-1:]
    return EngineUnavailable(
        f"mmdebstrap could not make a file system of Debian {SUITE}",
        cause=(errors[0].removeprefix("E:").strip()[:300] if errors else "it said nothing"),
        next_step="check that `apt-get update` works; without root it needs user namespaces (package uidmap)",
    )

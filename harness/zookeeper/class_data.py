"""Archives of loaded class data, so that a server starts in half the time.

There is one archive for each combination of Java runtime, jars and JVM flags; it is made once, in a few seconds, by
`training`. Its file name has the SHA-256 of its content, which is checked at every use, because a JVM maps the file
without looking at it closely. An archive that is missing, stale or broken is never an error: it is made anew, and if
that does not work either, servers start without one.

From Java 25 on it is an ahead-of-time cache (JEP 514), which has more in it than classes; from Java 13 to 24 a dynamic
archive (JEP 350), for which the runtime must have its own base archive. Older runtimes go without.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.zookeeper.cache import cache_folder
from harness.zookeeper.distribution import Distribution
from harness.zookeeper.java import JVM_FLAGS, PROPERTIES, Java
from harness.zookeeper.maven import sha256_of

__all__ = ["JVM_FLAGS", "PROPERTIES", "class_data_flags", "ensure_class_data"]

#: Archives that are kept, those used last; one has 15 to 30 MB.
_KEPT = 12
#: How long to wait for another process that makes the same archive.
_LOCK_TIMEOUT_S = 100
_CHECK_TIMEOUT_S = 20
#: What failed is tried again after this time, not at every start.
_RETRY_AFTER_S = 3600


@dataclass(frozen=True)
class _Kind:
    """How a line of Java writes an archive, how it uses one, and how it is made to refuse a bad one."""

    dump: str
    use: str
    insist: str


_DYNAMIC = _Kind("-XX:ArchiveClassesAtExit={}", "-XX:SharedArchiveFile={}", "-Xshare:on")
_AHEAD_OF_TIME = _Kind("-XX:AOTCacheOutput={}", "-XX:AOTCache={}", "-XX:AOTMode=on")


def class_data_flags(
    java: Java, distribution: Distribution, *, environ: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The JVM's arguments that use the archive, if there is a sound one; else none. Takes some 20 ms; never raises.

    The class path that the JVM is given must be `distribution.class_path`, or begin with it; with another one the JVM
    does without the archive.
    """
    kind = _kind(java)
    if kind is None:
        return ()
    archive = _find(_folder(environ), _key(java, distribution))
    return (kind.use.format(archive),) if archive else ()


def ensure_class_data(
    java: Java,
    distribution: Distribution,
    *,
    environ: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[str, ...]:
    """Like `class_data_flags`, but an archive that is not there is made first, which takes about 5 s.

    Safe to be called by several processes at once: one makes it, the others wait. Never raises: where no archive can be
    made, there are no arguments.
    """
    kind = _kind(java)
    if kind is None:
        return ()
    if found := class_data_flags(java, distribution, environ=environ):
        return found
    try:
        _make_once(java, distribution, _folder(environ), progress or (lambda _line: None))
    except OSError:
        return ()  # such as a cache that cannot be written; servers start without an archive, only slower
    return class_data_flags(java, distribution, environ=environ)


def _kind(java: Java) -> _Kind | None:
    if java.major >= 25:
        return _AHEAD_OF_TIME
    return _DYNAMIC if java.major >= 13 else None


def _folder(environ: Mapping[str, str] | None) -> Path:
    return cache_folder(os.environ if environ is None else environ) / "class-data"


def _key(java: Java, distribution: Distribution) -> str:
    """Names all that an archive depends on. A JVM refuses it as well when a jar's time or size is another one."""
    parts = [str(java.executable), java.version_line, _stamp(java.executable), *JVM_FLAGS]
    parts += [f"{jar.path} {jar.sha256} {_stamp(jar.path)}" for jar in distribution.jars]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _find(folder: Path, key: str) -> Path | None:
    """The sound archive of that key; unsound ones are removed."""
    for archive in sorted(folder.glob(f"{key}-*.archive")):
        try:
            if sha256_of(archive) != archive.stem.partition("-")[2]:
                archive.unlink()
                continue
        except OSError:
            continue  # another process removed it, or the cache is read-only
        with suppress(OSError):
            os.utime(archive)  # tells `_prune` that it is in use
        return archive
    return None


def _recent(mark: Path) -> bool:
    try:
        return time.time() - mark.stat().st_mtime < _RETRY_AFTER_S
    except OSError:
        return False


def _make_once(java: Java, distribution: Distribution, folder: Path, progress: Callable[[str], None]) -> None:
    """Make the archive unless another process just did, or failed not long ago. A timeout is an OSError, too."""
    from filelock import FileLock  # noqa: PLC0415 - loads slowly, and most runs find an archive

    key = _key(java, distribution)
    failed = folder / f"{key}.failed"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock", timeout=_LOCK_TIMEOUT_S):
        if _find(folder, key) or _recent(failed):
            return
        progress(f"preparing class data of ZooKeeper {distribution.version} for Java {java.major}, once")
        if _make(java, distribution, folder, key):
            failed.unlink(missing_ok=True)
            _prune(folder)
        else:
            failed.touch()


def _make(java: Java, distribution: Distribution, folder: Path, key: str) -> bool:
    from harness.zookeeper.training import train  # noqa: PLC0415 - as above

    kind = _kind(java)
    if kind is None:
        return False
    with tempfile.TemporaryDirectory(prefix="training-", dir=folder) as scratch:
        dumped = Path(scratch) / "dumped"
        if not train(java, distribution, kind.dump.format(dumped), Path(scratch)) or not dumped.is_file():
            return False
        if not _accepted(java, distribution, kind, dumped):
            return False
        dumped.replace(folder / f"{key}-{sha256_of(dumped)}.archive")
    return True


def _accepted(java: Java, distribution: Distribution, kind: _Kind, archive: Path) -> bool:
    """Whether a JVM that may not go without the archive starts with it."""
    command = [str(java.executable), *JVM_FLAGS, kind.insist, kind.use.format(archive), "-cp", distribution.class_path]
    try:
        done = subprocess.run(
            [*command, "-version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_CHECK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _prune(folder: Path) -> None:
    """Remove the archives that were not used for longest, and what killed processes left."""
    for training in folder.glob("training-*"):
        if not _recent(training):
            shutil.rmtree(training, ignore_errors=True)
    archives = sorted(folder.glob("*.archive"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[_KEPT:]:
        archive.unlink(missing_ok=True)

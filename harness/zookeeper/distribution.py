"""Where the server's jars come from, by version.

====================  ===================================================================================
``3.9.5``             that release, from a Maven repository, verified against the lock file at every use
``3.9``, ``3.9.x``    the newest locked release of that line
``directory:PATH``    an unpacked release, or a source tree of ZooKeeper after its build
``directory``         the same, PATH being `$ZOOKEEPER_HOME`
``debian``            Debian's packages (`apt install libzookeeper-java`)
====================  ===================================================================================

Where `ZOOKEEPER_HOME` is set and what lies there *is* the version or of the line that is asked for, it is taken instead
of the Maven repository; another version is still fetched, so that versions can be mixed.
A distribution is immutable and each server may have another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from harness.errors import DistributionUnavailable, UsageError
from harness.zookeeper.cache import cache_folder
from harness.zookeeper.installed import debian_jars, directory_jars, version_of
from harness.zookeeper.lock import DEFAULT_VERSION, line_of, locked_version, locked_versions
from harness.zookeeper.maven import Progress, cached_jars, sha256_of

__all__ = ["DEFAULT_VERSION", "Distribution", "Jar", "LoggingBackend", "locked_versions", "resolve"]

#: Names a release of one's own.
HOME_VARIABLE = "ZOOKEEPER_HOME"

Source = Literal["maven", "directory", "debian"]


class LoggingBackend(StrEnum):
    """What writes the server's log; each has its own configuration file."""

    #: slf4j-simple, which costs least at a server's start.
    SIMPLE = "simple"
    LOGBACK = "logback"
    #: log4j 1.2 or its successor reload4j.
    LOG4J = "log4j"
    #: Nothing on the class path: the server's log is lost.
    NONE = "none"

    @classmethod
    def among(cls, jars: Iterable[str]) -> LoggingBackend:
        """The back end that SLF4J finds among jars of these file names."""
        names = tuple(jars)
        if any(name.startswith("slf4j-simple") for name in names):
            return cls.SIMPLE
        if any(name.startswith("logback-classic") for name in names):
            return cls.LOGBACK
        if any(name.startswith(("slf4j-reload4j", "slf4j-log4j12")) for name in names):
            return cls.LOG4J
        return cls.NONE


@dataclass(frozen=True)
class Jar:
    """One file of the class path and what was in it when it was looked at."""

    path: Path
    #: Hexadecimal. From a Maven repository it is also the locked one.
    sha256: str


@dataclass(frozen=True)
class Distribution:
    """A ZooKeeper server that can be started."""

    #: As `3.9.5` or `3.10.0-SNAPSHOT`.
    version: str
    source: Source
    #: In the order of the class path; the server's own jar is first.
    jars: tuple[Jar, ...]
    logging: LoggingBackend

    @property
    def class_path(self) -> str:
        """What follows `java -cp`."""
        return os.pathsep.join(str(jar.path) for jar in self.jars)

    @property
    def line(self) -> str:
        """`3.9` for 3.9.5."""
        return line_of(self.version)


def resolve(spec: str, *, environ: Mapping[str, str] | None = None, progress: Progress | None = None) -> Distribution:
    """Find the distribution that a version spec means, and fetch it if need be.

    Args:
        spec: a version, a line, `directory[:PATH]` or `debian`; see the module.
        environ: instead of `os.environ`.
        progress: called with one short line before anything that may take seconds.

    Raises:
        UsageError: the spec means nothing, or a version that is not in the lock file.
        DistributionUnavailable: the jars are not there, or could not be fetched.
        DistributionCorrupt: a jar's SHA-256 is not the locked one.
    """
    environ = os.environ if environ is None else environ
    tell: Progress = progress or (lambda _line: None)
    kind, _, place = spec.partition(":")
    home = environ.get(HOME_VARIABLE, "")
    if spec == "debian":
        return _installed("debian", debian_jars())
    if kind == "directory":
        return _installed("directory", directory_jars(_root(place or home)))
    if home:
        own = directory_jars(_root(home))
        version = version_of(own[0])
        if spec in (version, line_of(version), f"{line_of(version)}.x"):
            return _installed("directory", own)
        tell(f"{HOME_VARIABLE} has ZooKeeper {version}, not {spec}: not used")
    locked = locked_version(spec)
    paths = cached_jars(locked.jars, cache_folder(environ) / "jars", environ, tell)
    jars = tuple(Jar(path, jar.sha256) for path, jar in zip(paths, locked.jars, strict=True))
    return Distribution(locked.version, "maven", jars, LoggingBackend.among(path.name for path in paths))


def _root(place: str) -> Path:
    if not place:
        raise UsageError(
            "the version is `directory`, and it is not said which",
            where="version",
            next_step=f"write directory:PATH, or set {HOME_VARIABLE}",
        )
    return Path(place).expanduser().absolute()


def _installed(source: Source, paths: tuple[Path, ...]) -> Distribution:
    try:
        jars = tuple(Jar(path, sha256_of(path)) for path in paths)
    except OSError as problem:
        raise DistributionUnavailable(
            f"a jar cannot be read: {problem.strerror}", where=str(problem.filename)
        ) from problem
    return Distribution(version_of(paths[0]), source, jars, LoggingBackend.among(path.name for path in paths))

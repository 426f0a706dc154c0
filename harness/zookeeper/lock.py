"""The lock file: which jars make up each released version, and the SHA-256 of each.

`lock.toml` has one table for each version of ZooKeeper; a line in it is a jar's Maven coordinates and its hash.
`python -m harness.zookeeper.relock` writes it. Jars for other processors and native TLS are left out: a server
runs without them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec

from harness.errors import UsageError

#: What a topology gets that names no version. 3.9.6 is not it: when this was locked, its parent POM was missing from
#: the Maven repository, so that `mvn` could not resolve it and the versions of its dependencies were not to be known.
DEFAULT_VERSION = "3.9.5"

#: The repository that jars come from, as `https://host/path`; where it is not set, the one that jgo takes.
REPOSITORY_VARIABLE = "ZKCHAOS_MAVEN_REPOSITORY"


@dataclass(frozen=True)
class LockedJar:
    """One jar of a Maven repository."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """`zookeeper-3.9.5.jar`."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def folder(self) -> str:
        """Where it lies in any Maven repository, remote or local, relative to its root; with slashes."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}"

    @property
    def path(self) -> str:
        """The file itself, relative to a repository's root."""
        return f"{self.folder}/{self.file_name}"


@dataclass(frozen=True)
class LockedVersion:
    """A released version of ZooKeeper with everything that a server of it needs; the server's own jar is first."""

    version: str
    jars: tuple[LockedJar, ...]


@cache
def _locked() -> dict[str, LockedVersion]:
    text = (files("harness.zookeeper") / "lock.toml").read_text(encoding="utf-8")
    tables = msgspec.convert(tomllib.loads(text), dict[str, dict[str, str]])
    return {version: LockedVersion(version, _jars(table)) for version, table in tables.items()}


def _jars(table: dict[str, str]) -> tuple[LockedJar, ...]:
    jars = []
    for coordinates, sha256 in table.items():
        group, artifact, version = coordinates.split(":")
        jars.append(LockedJar(group, artifact, version, sha256))
    return tuple(jars)


def locked_versions() -> tuple[str, ...]:
    """The versions that can be had from a Maven repository, newest first."""
    return tuple(sorted(_locked(), key=version_key, reverse=True))


def version_key(version: str) -> tuple[int, ...]:
    """Orders versions by their numbers; what comes after a dash, as in `3.10.0-SNAPSHOT`, is not looked at."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def line_of(version: str) -> str:
    """The line that a version or a spec belongs to: `3.9` for `3.9.5`, `3.9.x` and `3.9`."""
    return ".".join(version.split(".")[:2])


def locked_version(spec: str) -> LockedVersion:
    """The locked version that `3.9.5`, `3.9` or `3.9.x` means; of a line, its newest.

    Raises:
        UsageError: no such version is locked.
    """
    locked = _locked()
    if spec in locked:
        return locked[spec]
    if spec in (line_of(spec), f"{line_of(spec)}.x"):
        for version in locked_versions():
            if line_of(version) == line_of(spec):
                return locked[version]
    raise UsageError(
        f'ZooKeeper version "{spec}" is not one that can be fetched; these are: {", ".join(locked_versions())}',
        where="version",
        next_step="choose one of them or a line such as 3.9.x, or unpack a release yourself and ask for directory:PATH",
    )

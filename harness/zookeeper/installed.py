"""Servers that are on this machine already: an unpacked release, a built source tree, Debian's packages."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from harness.errors import DistributionUnavailable

_PROPERTIES = "META-INF/maven/org.apache.zookeeper/zookeeper/pom.properties"
_SERVER_JAR = re.compile(r"zookeeper-(\d+\.\d+\.\d+(?:-(?!tests|sources|javadoc)[\w.-]+)?)\.jar")
_NOT_FOR_SERVERS = re.compile(r".*-(tests|sources|javadoc)\.jar")

#: Where jars lie in a release, then where a build of the source tree puts them.
_FOLDERS = ("", "lib", "zookeeper-server/target", "zookeeper-server/target/lib")
#: More jars than any release has; a folder with more of them is not one.
_MAX_JARS = 400

_DEBIAN_JARS = Path("/usr/share/java")
#: What the manifest of Debian's zookeeper.jar leaves out: the logging back end, and what Netty needs.
_DEBIAN_NAMES = ("slf4j-log4j12", "log4j-1.2", "netty-resolver", "netty-codec", "netty-transport-native-unix-common")


def directory_jars(root: Path) -> tuple[Path, ...]:
    """The jars of an unpacked release or of a built source tree; the server's own is first.

    Raises:
        DistributionUnavailable: there is no server in that folder, or more than one.
    """
    found = [jar for folder in _FOLDERS for jar in sorted((root / folder).glob("*.jar"))[:_MAX_JARS]]
    jars = {jar.name: jar for jar in reversed(found) if not _NOT_FOR_SERVERS.fullmatch(jar.name)}
    servers = [jar for name, jar in sorted(jars.items()) if _SERVER_JAR.fullmatch(name)]
    if len(servers) != 1:
        names = ", ".join(jar.name for jar in servers)
        raise DistributionUnavailable(
            f"several servers are here: {names}" if servers else "there is no zookeeper-VERSION.jar here or in lib/",
            where=str(root),
            cause="it is neither an unpacked release (apache-zookeeper-VERSION-bin) nor a source tree after its build",
            next_step="name the folder of one release, or unset ZOOKEEPER_HOME to have it fetched",
        )
    own = servers[0]
    return (own, *(jar for name, jar in sorted(jars.items()) if name != own.name))


def debian_jars(folder: Path = _DEBIAN_JARS) -> tuple[Path, ...]:
    """The jars of Debian's `libzookeeper-java` with all that its manifest names, and a logging back end.

    Raises:
        DistributionUnavailable: the package is not installed.
    """
    own = folder / "zookeeper.jar"
    if not own.is_file():
        raise DistributionUnavailable(
            "Debian's ZooKeeper is not installed", where=str(own), next_step="`apt install libzookeeper-java`"
        )
    named = [Path(entry) for entry in _manifest_class_path(own)]
    named += [folder / f"{name}.jar" for name in _DEBIAN_NAMES]
    return (own, *dict.fromkeys(jar for jar in named if jar.is_file()))


def version_of(server_jar: Path) -> str:
    """The version that the server's own jar says it has.

    Raises:
        DistributionUnavailable: it says nothing, or is no jar.
    """
    try:
        with zipfile.ZipFile(server_jar) as jar:
            properties = jar.read(_PROPERTIES).decode("utf-8", "replace") if _PROPERTIES in jar.namelist() else ""
    except (OSError, zipfile.BadZipFile) as problem:
        raise DistributionUnavailable(
            f"this is not a readable jar: {problem}", where=str(server_jar), next_step="unpack the release again"
        ) from problem
    told = re.search(r"^version=(\S+)", properties, flags=re.MULTILINE) or _SERVER_JAR.fullmatch(server_jar.name)
    if not told:
        raise DistributionUnavailable("this jar does not say which version of ZooKeeper it is", where=str(server_jar))
    return told[1]


def _manifest_class_path(jar: Path) -> list[str]:
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = archive.read("META-INF/MANIFEST.MF").decode("utf-8", "replace")
    except (OSError, KeyError, zipfile.BadZipFile):
        return []
    unfolded = re.sub(r"\r?\n ", "", manifest)
    found = re.search(r"^Class-Path: (.*)$", unfolded, flags=re.MULTILINE)
    return found[1].split() if found else []

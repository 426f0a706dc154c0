"""The image of a ZooKeeper server: where it comes from, and how it is made where no registry has it.

It is used like the registry's image `zookeeper`: the same entry point, variables, folders, ports and user, so that
either can take the other's place. Differences: it declares no volumes, so that no container leaves one behind; its
flags for `java` come from a shorter script; it has no store of certificate authorities.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker

from harness.errors import EngineUnavailable, UsageError
from harness.images.archive import Entry, Image, Layer, Settings, ports, tree, write_layer
from harness.images.filesystem import file_system
from harness.images.loading import Loaded, Stopwatch, Tell, architecture_of, id_of, load, own_architecture, pull
from harness.topology.library import data_folder
from harness.zookeeper.distribution import Distribution, resolve
from harness.zookeeper.lock import locked_version

#: What the image is called, without the tag.
OFFICIAL = "zookeeper"
OWN = "zkchaos/zookeeper"

#: The user that the server runs as; the registry's image has the same.
USER_ID = 1000
_USER = {
    "/etc/passwd": b"zookeeper:x:1000:1000::/data:/usr/sbin/nologin\n",
    "/etc/group": b"zookeeper:x:1000:\n",
}

_PACKAGES = ("openjdk-17-jre-headless",)
_HOME = "/apache-zookeeper"
#: The defaults of the registry's image.
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "ZOO_CONF_DIR": "/conf",
    "ZOO_DATA_DIR": "/data",
    "ZOO_DATA_LOG_DIR": "/datalog",
    "ZOO_LOG_DIR": "/logs",
    "ZOO_TICK_TIME": "2000",
    "ZOO_INIT_LIMIT": "5",
    "ZOO_SYNC_LIMIT": "2",
    "ZOO_AUTOPURGE_PURGEINTERVAL": "0",
    "ZOO_AUTOPURGE_SNAPRETAINCOUNT": "3",
    "ZOO_MAX_CLIENT_CNXNS": "60",
    "ZOO_STANDALONE_ENABLED": "true",
    "ZOO_ADMINSERVER_ENABLED": "true",
}


def find_server_image(client: docker.DockerClient, version: str, tell: Tell) -> str:
    """The name of an image of this version that is in the engine, after it was pulled if need be.

    Looked for in this order: `zookeeper:VERSION` in the engine, `zkchaos/zookeeper:VERSION` in the engine,
    `zookeeper:VERSION` in the registry. An unpacked release (`directory:PATH`, `debian`) is made into an image now.

    Args:
        client: of the engine that shall run it.
        version: as in a topology: `3.9.5`, a line such as `3.9.x`, `directory[:PATH]` or `debian`; of versions that
            are not locked, what the registry calls it.
        tell: called with one short line before anything that may take seconds.

    Raises:
        EngineUnavailable: it is nowhere.
    """
    if _is_installed(version):
        return build_server_image(client, version, tell).reference
    tag = _tag(version)
    for reference in (f"{OFFICIAL}:{tag}", f"{OWN}:{tag}"):
        if id_of(client, reference) is not None:
            return reference
    problem = pull(f"{OFFICIAL}:{tag}", tell)
    if not problem:
        return f"{OFFICIAL}:{tag}"
    raise EngineUnavailable(
        f"the Docker engine has neither {OFFICIAL}:{tag} nor {OWN}:{tag}, and the registry did not give it",
        cause=problem,
        next_step=f"make it here: `zkchaos image --zookeeper {tag}`, or `make image`",
    )


def _is_installed(version: str) -> bool:
    return version == "debian" or version.partition(":")[0] == "directory"


def _tag(version: str) -> str:
    """What an image of this version is tagged with; a line's newest locked version."""
    try:
        return locked_version(version).version
    except UsageError:
        if version.count(".") == 2 and not version.endswith(".x"):
            return version
        raise


def build_server_image(
    client: docker.DockerClient, version: str, tell: Tell, *, fresh: bool = False, name: str = OWN
) -> Loaded:
    """Make the image of a version from Debian's Java and the version's jars, and put it into the engine.

    Args:
        client: of the engine that shall have it.
        version: as for `find_server_image`, but locked, or installed here. The tag of an installed one ends in a hash
            of its jars, because its version says little about what is in it.
        tell: called with one short line before anything that takes seconds.
        fresh: take Debian's newest packages, instead of the file system that is in the cache.
        name: instead of `zkchaos/zookeeper`.

    Raises:
        UsageError: the version is not known.
        DistributionUnavailable: its jars could not be had.
        EngineUnavailable: what makes images is missing.
        TestbedError: the engine refused it.
    """
    watch = Stopwatch()
    architecture = architecture_of(client)
    distribution = resolve(version, progress=tell)
    watch.lap("jars")
    system = file_system(_PACKAGES, architecture, tell, fresh=fresh, environ=os.environ)
    watch.lap("file system (cached)" if system.cached else "file system")
    with tempfile.TemporaryDirectory(prefix="zkchaos-image-") as scratch:
        layer = write_layer(_entries(distribution, system.layer), Path(scratch) / "server.tar")
        image = Image(
            reference=f"{name}:{_tag_of(distribution)}",
            layers=(system.layer, layer),
            settings=_settings(distribution, system.packages_sha256),
            architecture=architecture,
            history=(f"Debian packages {' '.join(_PACKAGES)}", f"ZooKeeper {distribution.version}"),
        )
        watch.lap("server layer")
        tell(f"loading {image.reference} into the engine")
        number = load(client, image)
    watch.lap("load")
    return Loaded(image.reference, number, watch.steps)


def fetch_parts(version: str, tell: Tell) -> None:
    """Have in the cache what the image of a version is made of, for an engine on this machine without a network.

    Args:
        version: as for `build_server_image`.
        tell: called with one short line before anything that takes seconds.

    Raises:
        UsageError, DistributionUnavailable, EngineUnavailable: as `build_server_image`.
    """
    resolve(version, progress=tell)
    file_system(_PACKAGES, own_architecture(), tell, environ=os.environ)


def _tag_of(distribution: Distribution) -> str:
    if distribution.source == "maven":
        return distribution.version
    # A tag allows fewer characters than a version.
    return re.sub(r"[^\w.-]", "-", f"{distribution.version}-{_jars_sha256(distribution)[:12]}", flags=re.ASCII)


def _jars_sha256(distribution: Distribution) -> str:
    return hashlib.sha256("\n".join(jar.sha256 for jar in distribution.jars).encode()).hexdigest()


def _settings(distribution: Distribution, packages_sha256: str) -> Settings:
    environment = {**_ENVIRONMENT, "ZOOCFGDIR": "/conf", "ZOO_VERSION": distribution.version}
    return Settings(
        entrypoint=("/docker-entrypoint.sh",),
        cmd=("zkServer.sh", "start-foreground"),
        env=tuple(f"{key}={value}" for key, value in environment.items()),
        working_dir=_HOME,
        exposed_ports=ports(2181, 2888, 3888, 8080),
        labels={
            "org.opencontainers.image.version": distribution.version,
            "zkchaos.jars-sha256": _jars_sha256(distribution),
            "zkchaos.packages-sha256": packages_sha256,
        },
    )


def _entries(distribution: Distribution, system: Layer) -> Iterator[Entry]:
    """What the image has above Debian: the jars, the scripts, and folders that the user may write."""
    scripts = data_folder("compose/images") / "zookeeper"
    places = []
    for jar in distribution.jars:
        places.append(f"{_HOME}/lib/{jar.path.name}")
        yield Entry(places[-1], jar.path.read_bytes(), 0o644)
    yield Entry(f"{_HOME}/class-path", f"{':'.join(places)}\n".encode(), 0o644)
    yield from tree(scripts / "conf", f"{_HOME}/conf")
    for place, line in _USER.items():
        yield Entry(place, system.read(place) + line, 0o644)
    yield Entry("/docker-entrypoint.sh", (scripts / "docker-entrypoint.sh").read_bytes())
    yield Entry(f"{_HOME}/bin/zkServer.sh", (scripts / "zkServer.sh").read_bytes())
    yield Entry("/usr/local/bin/zkServer.sh", link=f"{_HOME}/bin/zkServer.sh")
    for folder in ("/conf", "/data", "/datalog", "/logs"):
        yield Entry(folder, owner=USER_ID)

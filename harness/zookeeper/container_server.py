"""A ZooKeeper server as a container of the image `zookeeper`, or of one with the same entry point."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.history.folder import ServerFolder
from harness.testbed.containers import ContainerSpec, ContainersTestbed
from harness.testbed.handles import Process
from harness.topology.model import Server, Topology
from harness.zookeeper.config import system_properties, write_config
from harness.zookeeper.distribution import LoggingBackend
from harness.zookeeper.java import JVM_FLAGS, PROPERTIES
from harness.zookeeper.launch import Preparation
from harness.zookeeper.paths import IN_CONTAINER
from harness.zookeeper.security import security_arguments
from harness.zookeeper.server_log import JVM_LOG, LOG_NAME, write_log_config

#: Who runs the server where we are root: the image's user `zookeeper`.
_IMAGE_USER = 1000


@dataclass(frozen=True)
class ContainerStarter:
    """Starts servers as containers whose folders are those of the run folder."""

    testbed: ContainersTestbed
    topology: Topology
    #: The image of each server, by id.
    images: Mapping[int, str]
    preparations: Mapping[str, Preparation] = field(default_factory=dict)

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Write its configuration, with paths as the container sees them, for whichever logging the image has."""
        write_config(self.topology, server, folder, IN_CONTAINER)
        self._jvm_arguments(folder)
        for preparation in self.preparations.values():
            preparation.prepare(server, folder)
        if os.geteuid() == 0 and not one_owner(folder.root):
            for place in (folder.config, folder.logs, folder.txnlog, folder.snapshot):
                for path in (place, *place.iterdir()):
                    os.chown(path, _IMAGE_USER, _IMAGE_USER)

    def start(self, server: Server, folder: ServerFolder) -> Process:
        """Start its container."""
        mounts = {
            folder.config: IN_CONTAINER.config,
            folder.logs: IN_CONTAINER.logs,
            folder.txnlog: IN_CONTAINER.txnlog,
            folder.snapshot: IN_CONTAINER.snapshot,
        }
        uid, gid = _user(folder.root)
        spec = ContainerSpec(
            image=self.images[server.id],
            environment={
                "ZOO_MY_ID": str(server.id),
                "JVMFLAGS": " ".join(self._jvm_arguments(folder)),
                "JMXDISABLE": "true",
                **{k: v for p in self.preparations.values() for k, v in p.environment(server).items()},
            },
            mounts={ours.absolute(): theirs for ours, theirs in mounts.items()},
            user=f"{uid}:{gid}",
            output=folder.logs / JVM_LOG,
            # as root, the images' entry points would change to `zookeeper` before they run what is called zkServer.sh
            command=() if uid else ("env", "zkServer.sh", "start-foreground"),
        )
        return self.testbed.start_container(server.host, spec)

    def _jvm_arguments(self, folder: ServerFolder) -> tuple[str, ...]:
        logs, config = IN_CONTAINER.logs, IN_CONTAINER.config
        logging = [
            argument
            for backend in (LoggingBackend.SIMPLE, LoggingBackend.LOGBACK)
            for argument in write_log_config(backend, folder.config, Path(logs / LOG_NAME), seen=config)
        ]
        return (
            *JVM_FLAGS,
            *PROPERTIES,
            f"-XX:ErrorFile={logs}/hs_err.log",
            *system_properties(self.topology),
            *security_arguments(self.topology, folder.config, seen=config),
            *logging,
            *self.topology.zookeeper.jvm,
        )


def _user(folder: Path) -> tuple[int, int]:
    """Who the server runs as: whoever will own what it writes there, as it has no capability to pass over that."""
    if os.geteuid() != 0:
        return os.getuid(), os.getgid()
    if one_owner(folder):
        found = folder.stat()
        return found.st_uid, found.st_gid
    return _IMAGE_USER, _IMAGE_USER


def one_owner(folder: Path) -> bool:
    """Whether whatever is made there belongs to the same user, whoever makes it: so on a user-mode kernel's hostfs."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    # proc(5): the fifth word is the mount point, with spaces as \040; the file system's type follows the dash
    kinds = {words[4].replace("\\040", " "): words[words.index("-") + 1] for words in mounts}
    place = folder.absolute()
    return next(kinds[str(p)] for p in (place, *place.parents) if str(p) in kinds) == "hostfs"

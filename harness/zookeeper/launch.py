"""The command line of one server's JVM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.history.folder import ServerFolder
from harness.topology.model import Topology
from harness.zookeeper.config import system_properties
from harness.zookeeper.distribution import Distribution
from harness.zookeeper.java import Java
from harness.zookeeper.security import security_arguments
from harness.zookeeper.server_log import LOG_NAME, write_log_config

#: The class that a member of an ensemble starts with.
MAIN_CLASS = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


@dataclass(frozen=True)
class Launch:
    """How one server is started: which Java, which ZooKeeper, with what flags."""

    java: Java
    distribution: Distribution
    topology: Topology
    #: JVM flags that come before all others, such as those of the class-data archive.
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(
        default_factory=lambda: {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}
    )

    def argv(self, folder: ServerFolder) -> list[str]:
        """The whole command line; the folder must exist."""
        return [
            str(self.java.executable),
            *self.flags,
            f"-XX:ErrorFile={folder.logs}/hs_err.log",
            *system_properties(self.topology),
            *security_arguments(self.topology, folder.config),
            *write_log_config(self.distribution.logging, folder.config, folder.logs / LOG_NAME),
            *self.topology.zookeeper.jvm,
            "-cp",
            self.distribution.class_path,
            MAIN_CLASS,
            str(folder.config / "zoo.cfg"),
        ]

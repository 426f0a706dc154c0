"""How a server is started: what every way has in common, and the way of a JVM on a host of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from harness.history.folder import ServerFolder
from harness.testbed.handles import Process, Testbed
from harness.topology.model import Server, Topology
from harness.zookeeper.config import system_properties, write_config
from harness.zookeeper.distribution import Distribution
from harness.zookeeper.java import Java
from harness.zookeeper.security import security_arguments
from harness.zookeeper.server_log import JVM_LOG, LOG_NAME, write_log_config

#: The class that a member of an ensemble starts with.
MAIN_CLASS = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class Preparation(Protocol):
    """What servers are started with so that a fault can reach them later: their clock, their disk."""

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Make what the server needs; called once, before the first start."""
        ...

    def environment(self, server: Server) -> Mapping[str, str]:
        """For its process."""
        ...


@runtime_checkable
class Wrapping(Protocol):
    """A preparation that has a say in how a JVM of this machine is started, too."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that starts it, made of its own."""
        ...


class Starter(Protocol):
    """Starts the servers of an ensemble, again and again."""

    @property
    def preparations(self) -> Mapping[str, Preparation]:
        """What its servers are started with, by the name that `FaultKind.prepared` gives it."""
        ...

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Write what the server needs into its folder; called once, before the first start."""
        ...

    def start(self, server: Server, folder: ServerFolder) -> Process:
        """Start its process; returns when there is one, which is long before it serves."""
        ...


@dataclass(frozen=True)
class JvmStarter:
    """Starts servers as JVMs on the hosts of a testbed."""

    testbed: Testbed
    #: The command line of each server, by id.
    launches: Mapping[int, Launch]
    preparations: Mapping[str, Preparation] = field(default_factory=dict)

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Write its configuration."""
        write_config(self.launches[server.id].topology, server, folder)
        for preparation in self.preparations.values():
            preparation.prepare(server, folder)

    def start(self, server: Server, folder: ServerFolder) -> Process:
        """Start its JVM."""
        launch = self.launches[server.id]
        argv, environment = launch.argv(folder), dict(launch.environment)
        for preparation in self.preparations.values():
            environment |= preparation.environment(server)
            if isinstance(preparation, Wrapping):
                argv = preparation.command(argv)
        return self.testbed.spawn(server.host, argv, environment, folder.logs / JVM_LOG)


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

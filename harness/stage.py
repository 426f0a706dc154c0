"""What a run is performed on: a testbed, a way to start servers there, and a description of both.

The one place that knows every kind of testbed; a run only knows that it has a stage.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.errors import EngineUnavailable, UsageError
from harness.history.scenario import Environment, ServerSoftware
from harness.testbed.client import take_agent
from harness.testbed.handles import Testbed
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.model import Topology
from harness.zookeeper.class_data import JVM_FLAGS, PROPERTIES, ensure_class_data
from harness.zookeeper.distribution import Distribution, resolve
from harness.zookeeper.java import Java, find_java
from harness.zookeeper.launch import JvmStarter, Launch, Starter

#: What `--testbed` takes. `docker-helper` is `docker` through the helper container, also for root.
TESTBEDS = ("namespaces", "docker", "docker-helper")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """Where a run takes place. Whoever has one closes it."""

    testbed: Testbed
    starter: Starter
    java: str
    java_source: str
    servers: tuple[ServerSoftware, ...]
    close: Callable[[], None]

    def environment(self) -> Environment:
        """The machine and the software, for `environment.json`."""
        return Environment(
            kernel=platform.release(),
            machine=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
            python=platform.python_version(),
            harness=__version__,
            java=self.java,
            java_source=self.java_source,
            testbed=self.testbed.kind,
            rootless=self.testbed.rootless,
            wall_offset_ns=time.time_ns() - time.monotonic_ns(),
            servers=self.servers,
        )


def make_stage(testbed: str, topology: Topology, root: Path, tell: Tell | None = None) -> Stage:
    """Build a testbed and find the software for it.

    Args:
        testbed: one of `TESTBEDS`.
        topology: what to build.
        root: the run folder that will be made; a testbed may have to be told where it will be.
        tell: called with a line of text before anything that may take seconds, such as a download.

    Raises:
        UsageError: there is no such testbed.
        ZkChaosError: the machine lacks something; nothing is left of what was made.
    """
    match testbed:
        case "namespaces":
            return _in_namespaces(topology, tell)
        case "docker" | "docker-helper":
            try:
                from harness import docker_stage  # noqa: PLC0415  # its SDK is an extra
            except ModuleNotFoundError as missing:
                raise EngineUnavailable(
                    f"the package {missing.name} is not installed", next_step="pip install 'zk-chaos-harness[docker]'"
                ) from missing
            return docker_stage.make(topology, root, tell, helper=testbed == "docker-helper")
    raise UsageError("there is no such testbed", where=testbed, next_step=f"allowed: {', '.join(TESTBEDS)}")


def versions_of(topology: Topology) -> dict[int, str]:
    """The version asked for, by server."""
    return {s.id: s.version or topology.zookeeper.version for s in topology.servers}


class Software:
    """The Java and the distributions of a topology's servers, found before anything is started.

    Raises:
        JavaMissing, DistributionUnavailable, DistributionCorrupt, UsageError: as `find_java` and `resolve` say.
    """

    def __init__(self, topology: Topology, tell: Tell | None = None) -> None:
        self.java: Java = find_java()
        versions = versions_of(topology)
        found = {version: resolve(version, progress=tell) for version in sorted(set(versions.values()))}
        self.distributions: dict[int, Distribution] = {i: found[version] for i, version in versions.items()}
        self._flags = {
            version: (*JVM_FLAGS, *PROPERTIES, *ensure_class_data(self.java, distribution, progress=tell))
            for version, distribution in found.items()
        }
        self._versions = versions

    def launches(self, topology: Topology) -> dict[int, Launch]:
        """The command line of each server."""
        return {
            i: Launch(self.java, distribution, topology, self._flags[self._versions[i]])
            for i, distribution in self.distributions.items()
        }


def _in_namespaces(topology: Topology, tell: Tell | None) -> Stage:
    agent = take_agent()
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            finding = pool.submit(Software, topology, tell)
            testbed = NamespacesTestbed(topology, agent)  # the network is built while the jars are verified
            software = finding.result()
    except BaseException:
        agent.close()
        raise
    servers = tuple(
        ServerSoftware(i, d.version, d.source, {jar.path.name: jar.sha256 for jar in d.jars})
        for i, d in sorted(software.distributions.items())
    )
    starter = JvmStarter(testbed, software.launches(topology))
    return Stage(testbed, starter, software.java.version_line, software.java.source, servers, testbed.close)

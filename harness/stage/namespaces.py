"""The stage of a run in namespaces: JVMs of this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from harness.history.scenario import ServerSoftware
from harness.stage.stage import Stage, Tell, versions_of
from harness.testbed.client import take_agent
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.model import Topology
from harness.topology.proxies import proxies_of
from harness.toxiproxy.program import ensure_program
from harness.zookeeper.class_data import JVM_FLAGS, PROPERTIES, ensure_class_data
from harness.zookeeper.clock import CLOCKS, Clocks, find_faketime
from harness.zookeeper.disk import DISKS, Disks
from harness.zookeeper.distribution import Distribution, resolve
from harness.zookeeper.enclosed import LIMITS, Enclosed
from harness.zookeeper.java import Java, find_java
from harness.zookeeper.launch import JvmStarter, Launch, Preparation


class Software:
    """The Java and the distributions of a topology's servers, found before anything is started.

    Raises:
        JavaMissing, DistributionUnavailable, DistributionCorrupt, ToxiproxyMissing, UsageError: as `find_java`,
            `resolve` and `ensure_program` say.
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
        say = tell or (lambda _line: None)
        self.toxiproxy = ensure_program(say) if proxies_of(topology) else None

    def launches(self, topology: Topology) -> dict[int, Launch]:
        """The command line of each server."""
        return {
            i: Launch(self.java, distribution, topology, self._flags[self._versions[i]])
            for i, distribution in self.distributions.items()
        }


def preparations(names: Collection[str], testbed: NamespacesTestbed) -> dict[str, Preparation]:
    """What servers are to be started with.

    Raises:
        EnvironmentLacking, TestbedError: this machine lacks what it is made of.
    """
    makers: dict[str, Callable[[], Preparation]] = {
        LIMITS: lambda: Enclosed(testbed),
        CLOCKS: lambda: Clocks(find_faketime()),
        DISKS: lambda: Disks(testbed),
    }
    return {name: makers[name]() for name in names}


def make(topology: Topology, tell: Tell | None, prepared: Collection[str] = ()) -> Stage:
    """As `make_stage`; the network is built while the jars are verified."""
    agent = take_agent()
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            finding = pool.submit(Software, topology, tell)
            testbed = NamespacesTestbed(topology, agent)
            software = finding.result()
        prepared_with = preparations(prepared, testbed)
    except BaseException:
        agent.close()
        raise
    servers = tuple(
        ServerSoftware(i, d.version, d.source, {jar.path.name: jar.sha256 for jar in d.jars})
        for i, d in sorted(software.distributions.items())
    )
    starter = JvmStarter(testbed, software.launches(topology), prepared_with)
    java = software.java
    return Stage(
        testbed,
        starter,
        java.version_line,
        java.source,
        servers,
        testbed.close,
        toxiproxy=software.toxiproxy,
    )

"""A stage: a testbed, a way to start servers there, and a description of both."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness import __version__
from harness.history.folder import RunFolder
from harness.history.scenario import Environment, ServerSoftware
from harness.testbed.handles import Testbed
from harness.topology.model import Topology
from harness.zookeeper.launch import Starter

#: Takes a line of text before anything that may take seconds, such as a download.
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
    #: Whether the servers are somebody else's: they are left running, and their evidence is fetched at the end.
    foreign: bool = False
    #: Copies into the run folder what the servers keep elsewhere.
    fetch: Callable[[RunFolder], None] = field(default=lambda _folder: None)
    #: What whoever worked on it should be told at the end; mostly nothing.
    remark: Callable[[], str] = field(default=str)
    #: Toxiproxy's program, where the topology has proxies.
    toxiproxy: Path | None = None

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


def versions_of(topology: Topology) -> dict[int, str]:
    """The version asked for, by server."""
    return {s.id: s.version or topology.zookeeper.version for s in topology.servers}

"""Makes the stage that is asked for: the one place that knows every kind of testbed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from harness.errors import EngineUnavailable, UsageError
from harness.stage import namespaces
from harness.stage.stage import Stage, Tell
from harness.topology.model import Topology

#: Testbeds on a Docker engine. `docker-helper` is `docker` through the helper container, also for root.
ON_ENGINE = ("docker", "docker-helper")
#: What `--testbed` takes.
TESTBEDS = ("namespaces", *ON_ENGINE)


def make_stage(
    testbed: str,
    topology: Topology,
    root: Path | None,
    tell: Tell | None = None,
    *,
    attached: str | None = None,
    prepared: Collection[str] = (),
) -> Stage:
    """Build a testbed and find the software for it.

    Args:
        testbed: one of `TESTBEDS`.
        topology: what to build.
        root: the run folder that will be made; a testbed may have to be told where it will be. None: nothing will run
            on a client host.
        tell: called with a line of text before anything that may take seconds, such as a download.
        prepared: what servers must be started with, see `kinds.FaultKind.prepared`.
        attached: an ensemble of containers that runs already, by the name that `found.find_ensemble` takes.

    Raises:
        UsageError: there is no such testbed.
        ZkChaosError: the machine lacks something; nothing is left of what was made.
    """
    match testbed:
        case "namespaces":
            return namespaces.make(topology, tell, prepared)
        case "docker" | "docker-helper":
            try:
                from harness.stage import docker  # noqa: PLC0415  # its SDK is an extra
            except ModuleNotFoundError as missing:
                raise docker_missing(missing) from missing
            if attached:
                return docker.attach(attached, topology, root, tell, helper=testbed == "docker-helper")
            return docker.make(topology, root, tell, prepared, helper=testbed == "docker-helper")
    raise UsageError("there is no such testbed", where=testbed, next_step=f"allowed: {', '.join(TESTBEDS)}")


def docker_missing(missing: ModuleNotFoundError) -> EngineUnavailable:
    """What is raised where a package of the extra `docker` is not installed."""
    return EngineUnavailable(
        f"the package {missing.name} is not installed", next_step="pip install 'zk-chaos-harness[docker]'"
    )

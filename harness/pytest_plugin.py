"""The pytest plugin: markers `chaos`, `topology(...)`, `testbed(...)`; fixtures `ensemble`, `nemesis`, `load`.

A test that uses a fixture has an ensemble of its own, a run folder and a page. What a machine lacks is a skip, or a
failure where the environment variable ZKCHAOS_REQUIRE names it (`namespaces`, `java`, `zookeeper`, `docker`,
`faketime`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.errors import EnvironmentLacking
    from harness.history.scenario import Scenario
    from harness.nemesis.nemesis import Nemesis
    from harness.testing import ChaosTest, EnsembleUnderTest, LoadUnderTest
    from harness.topology.model import Topology

_CHAOS = pytest.StashKey["ChaosTest"]()
#: The one testbed whose agent is no process of this machine.
_THROUGH_HELPER = "docker-helper"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and their ini names."""
    group = parser.getgroup("zkchaos", "ZooKeeper under faults")
    group.addoption("--zkchaos-topology", metavar="NAME", help="topology of tests that name none (default: dual-net)")
    group.addoption(
        "--zkchaos-testbed",
        metavar="KIND",
        help="namespaces (default), docker or docker-helper, for tests that say none",
    )
    group.addoption("--zkchaos-zookeeper", metavar="VERSION", help="version of the servers, as 3.9 or 3.8.6")
    group.addoption("--zkchaos-seed", metavar="N", type=int, default=0, help="decides what is left to chance")
    group.addoption("--zkchaos-runs", metavar="DIR", help="where the run folders go (default: runs)")
    parser.addini("zkchaos_topology", "topology of tests that name none", default="dual-net")
    parser.addini("zkchaos_testbed", "testbed of tests that name none", default="namespaces")
    parser.addini("zkchaos_runs", "where the run folders go", default="runs")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "chaos: breaks a ZooKeeper ensemble on purpose")
    config.addinivalue_line(
        "markers", "topology(name, *, version=None, multi_address=None): what the test's ensemble looks like"
    )
    config.addinivalue_line("markers", "prepared(*names): what servers are started with: `clocks`, `disks`")
    config.addinivalue_line("markers", "testbed(kind): where: `namespaces`, `docker`, or `docker-helper`")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the agent of the first test that needs one, while pytest gets ready."""
    if not session.config.option.collectonly and any(map(_uses_local_agent, session.items)):
        from harness.testbed.client import warm_up

        warm_up()


def _uses_local_agent(item: pytest.Item) -> bool:
    return _uses_zkchaos(item) and _testbed(item) != _THROUGH_HELPER


def _uses_zkchaos(item: pytest.Item) -> bool:
    return "zkchaos" in getattr(item, "fixturenames", ())


@pytest.fixture
def zkchaos(request: pytest.FixtureRequest) -> Iterator[ChaosTest]:
    """The whole run of a test: `ensemble`, `nemesis` and `load` are parts of it."""
    from harness.errors import EnvironmentLacking, ZkChaosError
    from harness.scenario import new_run_path
    from harness.testbed.client import warm_up
    from harness.testing import ChaosTest

    runs = Path(request.config.getoption("--zkchaos-runs") or request.config.getini("zkchaos_runs"))
    if not runs.is_absolute():
        runs = request.config.rootpath / runs
    with contextlib.ExitStack() as stack:
        try:
            topology = _topology(request)
            scenario = _scenario(request, topology)
            stack.enter_context(_turn(scenario.testbed))
            chaos = ChaosTest(scenario, topology, new_run_path(runs, scenario))
        except EnvironmentLacking as lacking:
            _skip_or_fail(lacking)
        except ZkChaosError as problem:
            pytest.fail(str(problem), pytrace=False)
        if scenario.testbed != _THROUGH_HELPER:
            warm_up()  # for the next test
        request.node.stash[_CHAOS] = chaos
        try:
            with chaos:
                yield chaos
                if chaos.load.used and chaos.load.judgement is None:
                    # A test that forgets to verify must not pass over a broken promise.
                    chaos.load.verify()
        except ZkChaosError as problem:
            pytest.fail(str(problem), pytrace=False)


@pytest.fixture
def ensemble(zkchaos: ChaosTest) -> EnsembleUnderTest:
    """The running servers: `leader()`, `status()`, `client()`, `wait_for_quorum()`, `servers`."""
    return zkchaos.ensemble


@pytest.fixture
def nemesis(zkchaos: ChaosTest) -> Nemesis:
    """Faults as `with` blocks: `switch_down`, `link_down`, `kill`, `pause`, `restart`."""
    return zkchaos.nemesis


@pytest.fixture
def load(zkchaos: ChaosTest) -> LoadUnderTest:
    """`with load.registers(clients=8): ...`, then `load.verify()`."""
    return zkchaos.load


def _topology(request: pytest.FixtureRequest) -> Topology:
    from harness.topology.loader import load_topology, with_overrides

    config = request.config
    marker = request.node.get_closest_marker("topology")
    name = marker.args[0] if marker and marker.args else None
    name = name or config.getoption("--zkchaos-topology") or config.getini("zkchaos_topology")
    keywords = dict(marker.kwargs) if marker else {}
    version = keywords.get("version") or config.getoption("--zkchaos-zookeeper")
    return with_overrides(load_topology(str(name)), version=version, multi_address=keywords.get("multi_address"))


def _testbed(node: pytest.Item) -> str:
    """As its marker says, else the option, else the ini file."""
    marker = node.get_closest_marker("testbed")
    said = next(iter((*marker.args, *marker.kwargs.values())), None) if marker else None
    return str(said or node.config.getoption("--zkchaos-testbed") or node.config.getini("zkchaos_testbed"))


@contextlib.contextmanager
def _turn(testbed: str) -> Iterator[None]:
    """On a Docker engine, tests that run at the same time wait for each other: their addresses exist once."""
    from harness.stage.make import ON_ENGINE

    if testbed not in ON_ENGINE:
        yield
        return
    from harness.testbed.engine import connect_engine

    with contextlib.closing(connect_engine()) as client:
        from harness.testbed.turns import turn

        with turn(client):
            yield


def _scenario(request: pytest.FixtureRequest, topology: Topology) -> Scenario:
    from harness import __version__
    from harness.history.scenario import LoadSpec, Scenario
    from harness.scenario import now_text

    seed: int = request.config.getoption("--zkchaos-seed")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name).strip("-")
    testbed = _testbed(request.node)
    repeat = ["pytest", request.node.nodeid, "--zkchaos-seed", str(seed)]
    if request.node.get_closest_marker("testbed") is None:
        option = request.config.getoption("--zkchaos-testbed")
        repeat += ["--zkchaos-testbed", testbed] if option or testbed != "namespaces" else []
    return Scenario(
        name=f"{name}-{worker}" if worker else name,
        topology=topology.name,
        topology_source=topology.source,
        plan="",
        plan_source="",
        seed=seed,
        duration_s=0.0,
        load=LoadSpec(),
        repeat=shlex.join(repeat),
        started=now_text(),
        testbed=testbed,
        version=topology.zookeeper.version,
        multi_address=topology.zookeeper.multi_address,
        harness_version=__version__,
        prepared=_prepared(request.node),
    )


def _prepared(node: pytest.Item) -> tuple[str, ...]:
    """What the test's marker, and those around it, want servers to be started with."""
    from harness.errors import UsageError
    from harness.nemesis.kinds import KINDS
    from harness.topology.toml_document import allowed_words

    names = tuple(sorted({str(name) for marker in node.iter_markers("prepared") for name in marker.args}))
    known = sorted({kind.prepared for kind in KINDS.values() if kind.prepared})
    if wrong := [name for name in names if name not in known]:
        raise UsageError(
            f"there is nothing called {wrong[0]!r}",
            where="marker prepared",
            next_step=f"allowed: {allowed_words(known)}",
        )
    return names


def _skip_or_fail(lacking: EnvironmentLacking) -> None:
    from harness.errors import (
        EngineUnavailable,
        FaketimeMissing,
        JavaMissing,
        NamespacesForbidden,
        ToxiproxyMissing,
    )

    names: dict[type[EnvironmentLacking], str] = {
        EngineUnavailable: "docker",
        FaketimeMissing: "faketime",
        JavaMissing: "java",
        NamespacesForbidden: "namespaces",
        ToxiproxyMissing: "toxiproxy",
    }
    name = names.get(type(lacking), "zookeeper")
    if name in os.environ.get("ZKCHAOS_REQUIRE", "").split(","):
        pytest.fail(f"ZKCHAOS_REQUIRE names {name}: {lacking}", pytrace=False)
    pytest.skip(str(lacking))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the verdict and the page into JUnit properties; show a failure by the lines of the test alone."""
    if call.when == "call" and call.excinfo is not None and _uses_zkchaos(item):
        _hide_harness(item, call.excinfo.value)
    report = yield
    chaos = item.stash.get(_CHAOS, None)
    if chaos is not None and call.when == "teardown":
        judgement, page = chaos.load.judgement, chaos.load.page
        properties = {
            "zkchaos.run": str(chaos.run.folder.root),
            "zkchaos.seed": str(chaos.run.scenario.seed),
            "zkchaos.verdict": judgement.overall.value if judgement else "not judged",
            "zkchaos.page": str(page or ""),
        }
        report.user_properties.extend(properties.items())
    return report


def _hide_harness(item: pytest.Item, problem: BaseException) -> None:
    """An error of the harness says itself what, where and why; the lines that raised it say nothing to the reader."""
    from harness.errors import ZkChaosError

    if not isinstance(problem, ZkChaosError) or item.config.getoption("fulltrace"):
        return
    hidden = (Path(__file__).parent, Path(contextlib.__file__))
    entry = problem.__traceback__
    while entry is not None and (following := entry.tb_next) is not None:
        file = Path(following.tb_frame.f_code.co_filename)
        if any(file.is_relative_to(place) for place in hidden):
            entry.tb_next = following.tb_next
        else:
            entry = following


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the page of every run."""
    lines: list[str] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            properties = dict(getattr(report, "user_properties", ()))
            if getattr(report, "when", "") == "teardown" and properties.get("zkchaos.page"):
                lines.append(f"{properties['zkchaos.verdict']:9} {properties['zkchaos.page']}")
    if lines:
        terminalreporter.section("zkchaos pages")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)

"""The pytest plugin as a project sees it that only depends on the harness: a fresh folder, a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

import harness
from harness.check.verdict import Overall, load_judgement
from harness.history.folder import run_folders
from harness.history.records import FaultAction, FaultEvent

README = Path(harness.__file__).parent.parent / "README.md"


def readme_test() -> str:
    """The test that the README shows, to the letter."""
    (block,) = re.findall(r"^```python\n(import pytest\n.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(block)


@dataclass(frozen=True)
class Outcome:
    """How a session of pytest ended."""

    code: int
    out: str

    def counts(self, **expected: int) -> bool:
        """Whether the last line counts so many `passed`, `failed`, ..., and nothing else."""
        last = self.out.rstrip().splitlines()[-1]
        found = {word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last.split(" in ")[0])}
        return found == expected


def session(
    folder: Path, test: str, *words: str, environ: Mapping[str, str] | None = None, timeout: float = 180
) -> Outcome:
    """Run pytest on one file in an otherwise empty folder; every warning is an error."""
    (folder / "test_it.py").write_text(textwrap.dedent(test))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "ZKCHAOS_R"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *words],
        cwd=folder,
        env={**inherited, "COLUMNS": "120", **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode())


def properties(junit: Path) -> dict[str, dict[str, str]]:
    """The properties of each test case."""
    cases = ElementTree.parse(junit).getroot().iter("testcase")
    return {
        str(case.get("name")): {str(p.get("name")): str(p.get("value")) for p in case.iter("property")}
        for case in cases
    }


def test_the_test_of_the_readme(tmp_path: Path, namespaces_allowed: None, java: None) -> None:
    words = ["-m", "chaos", "--zkchaos-seed", "11", "--zkchaos-runs", "elsewhere", "--junitxml", "junit.xml"]
    done = session(tmp_path, readme_test(), *words)
    assert done.counts(passed=1), done.out
    assert done.code == 0
    (run,) = run_folders(tmp_path / "elsewhere")
    assert not (tmp_path / "runs").exists()
    assert load_judgement(run).overall is Overall.VALID
    assert "zkchaos pages" in done.out
    assert f"valid     {run.report_file}" in done.out.splitlines()
    assert properties(tmp_path / "junit.xml")["test_one_switch_may_die"] == {
        "zkchaos.run": str(run.root),
        "zkchaos.seed": "11",
        "zkchaos.verdict": "valid",
        "zkchaos.page": str(run.report_file),
    }
    scenario = run.scenario()
    assert (scenario.name, scenario.topology, scenario.seed) == ("test_one_switch_may_die", "dual-net", 11)
    assert scenario.repeat == "pytest test_it.py::test_one_switch_may_die --zkchaos-seed 11"
    assert [e.target for e in run.events() if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED] == ["net1"]


BY_HAND = """
    import pytest
    from kazoo.exceptions import NoNodeError

    @pytest.mark.topology("dual-net")
    def test_by_hand(ensemble, nemesis, load):
        first = ensemble.wait_for_quorum(within=20)
        assert ensemble.leader() == first
        assert ensemble.status()[first].role == "leader"
        assert "zk_server_state\\tleader" in ensemble.word(first, "mntr")

        with ensemble.client() as client:
            client.create("/mine", b"1")
            assert client.session > 0
            assert client.server.rsplit(":", 1)[0] in ensemble.connection_string("c1")
            connections = "".join(ensemble.word(i, "cons") for i in ensemble.status())
            assert "/10.77.1.101:" in connections or "/10.77.2.101:" in connections

        with load.registers(clients=4, session_timeout_ms=5000):
            with nemesis.kill("leader") as killed:
                assert killed == f"zk{first}"
                assert ensemble.wait_for_quorum(within=20) != first
                assert ensemble.status()[first].role == "down"
                with ensemble.client("c1") as client:
                    assert client.get("/mine")[0] == b"1"
            ensemble.servers.wait_until_serving(within=20)

            restarted = nemesis.restart("a follower")
            assert restarted != f"zk{ensemble.leader()}"
            ensemble.servers.wait_until_serving(within=20)

            follower = next(i for i, s in ensemble.status().items() if s.role == "follower")
            with nemesis.pause(follower) as paused:
                assert paused == f"zk{follower}"
                assert ensemble.servers.process_state(follower) == "T"
                with nemesis.link_down("leader", "net1") as cut, nemesis.link_down("c1", "net2"):
                    assert cut.endswith(":net1")
            ensemble.servers.wait_until_serving(within=20)
        with load.registers(clients=2, rate=40):
            pass
        assert load.verify(recovery_within=20).overall.value == "valid"

        with ensemble.client() as client:
            assert client.exists("/mine")
            with pytest.raises(NoNodeError):
                client.get("/not-mine")
"""


def test_everything_by_hand_in_one_test(tmp_path: Path, namespaces_allowed: None, java: None) -> None:
    done = session(tmp_path, BY_HAND)
    assert done.counts(passed=1), done.out
    (run,) = run_folders(tmp_path / "runs")
    faults = [e for e in run.events() if isinstance(e, FaultEvent) and e.action is FaultAction.HEALED]
    assert [e.fault for e in faults] == ["kill", "restart", "link-down", "link-down", "pause"]
    assert [e.asked for e in faults[:2]] == ["leader", "a follower"]
    assert sorted(path.name for path in run.clients_folder.glob("*.jsonl")) == ["c1-2.jsonl", "c1.jsonl"]


ON_DOCKER = """
    import pytest

    @pytest.mark.testbed("docker")
    def test_beside_the_engine(nemesis, load):
        with load.registers(clients=4, rate=80), nemesis.link_down("a follower", "net1"):
            pass
        load.verify(recovery_within=20)

    def test_through_the_helper(ensemble, nemesis, load, zkchaos):
        assert zkchaos.run.testbed.kind == "docker-helper"
        with load.registers(clients=4, rate=80), nemesis.kill("leader"):
            ensemble.wait_for_quorum(within=20)
        load.verify(recovery_within=20)
"""


def test_the_same_on_docker_by_marker_and_by_option(tmp_path: Path, engine_images: None) -> None:
    """Both want the same subnets of the same engine at the same time, and get them one after the other."""
    words = ["-n", "2", "--zkchaos-testbed", "docker-helper", "--junitxml", "junit.xml"]
    done = session(tmp_path, ON_DOCKER, *words)
    assert done.counts(passed=2), done.out
    assert {found["zkchaos.verdict"] for found in properties(tmp_path / "junit.xml").values()} == {"valid"}
    runs = {run.scenario().name.rsplit("-gw", 1)[0]: run for run in run_folders(tmp_path / "runs")}
    beside, through = (runs[name] for name in ("test_beside_the_engine", "test_through_the_helper"))
    assert beside.scenario().testbed == "docker"
    assert beside.scenario().repeat == "pytest test_it.py::test_beside_the_engine --zkchaos-seed 0"
    assert through.scenario().testbed == through.environment().testbed == "docker-helper"
    assert through.scenario().repeat.endswith(
        "test_through_the_helper --zkchaos-seed 0 --zkchaos-testbed docker-helper"
    )
    spans = sorted([min(e.at for e in run.events()), max(e.at for e in run.events())] for run in runs.values())
    assert spans[0][1] < spans[1][0]


def test_an_engine_that_is_not_there_is_a_skip(tmp_path: Path) -> None:
    pytest.importorskip("docker")
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock"}
    (tmp_path / "pytest.ini").write_text("[pytest]\nzkchaos_testbed = docker\n")
    done = session(tmp_path, NEVER_RUNS.format(marker=""), "-rs", environ=nowhere)
    assert done.counts(skipped=1), done.out
    assert "no Docker engine answers" in done.out

    test = NEVER_RUNS.format(marker='@pytest.mark.testbed("docker-helper")')
    done = session(tmp_path, test, environ={**nowhere, "ZKCHAOS_REQUIRE": "docker,java"})
    assert done.code == 1
    assert done.counts(error=1), done.out
    assert "ZKCHAOS_REQUIRE names docker: " in done.out
    assert not (tmp_path / "runs").exists()


NOT_VALID = """
    import time

    import pytest

    pytestmark = pytest.mark.topology("single-net")

    def test_the_only_switch_may_not_die(nemesis, load):
        with load.registers(clients=4, rate=80), nemesis.switch_down("net1"):
            deadline = time.monotonic() + 4  # for longer than the budget, with nobody served
            while time.monotonic() < deadline:
                time.sleep(0.1)
        load.verify(recovery_within=1)

    def test_that_forgets_to_verify(load, zkchaos):
        with load.registers(clients=4):
            time.sleep(1)
        with (zkchaos.run.folder.clients_folder / "c1.jsonl").open("a") as evidence:
            evidence.write("damaged\\n")
"""


def test_what_is_not_valid_fails_also_when_two_run_at_the_same_time(
    tmp_path: Path, namespaces_allowed: None, java: None
) -> None:
    done = session(tmp_path, NOT_VALID, "-n", "2", "--junitxml", "junit.xml")
    assert done.code == 1
    assert done.counts(failed=1, passed=1, error=1), done.out
    runs = {run.scenario().name.rsplit("-gw", 1)[0]: run for run in run_folders(tmp_path / "runs")}
    assert set(runs) == {"test_the_only_switch_may_not_die", "test_that_forgets_to_verify"}
    violated, unknown = runs["test_the_only_switch_may_not_die"], runs["test_that_forgets_to_verify"]

    # they really ran at the same time, each in a network of its own
    spans = [[event.at for event in run.events()] for run in runs.values()]
    assert max(min(span) for span in spans) < min(max(span) for span in spans)

    assert load_judgement(violated).overall is Overall.VIOLATED
    assert load_judgement(unknown).overall is Overall.UNKNOWN
    found = properties(tmp_path / "junit.xml")
    assert found["test_the_only_switch_may_not_die"]["zkchaos.verdict"] == "violated"
    assert found["test_that_forgets_to_verify"]["zkchaos.verdict"] == "unknown"

    failure = section(done.out, "test_the_only_switch_may_not_die")
    assert ">       load.verify(recovery_within=1)" in failure
    assert "budget is 1 s" in failure
    assert "  - switch-down net1 was injected at" in failure
    assert f"page:   {violated.report_file}" in failure
    assert "repeat: pytest test_it.py::test_the_only_switch_may_not_die" in failure
    error = section(done.out, "ERROR at teardown of test_that_forgets_to_verify")
    assert "the run is unknown" in error
    assert "c1.jsonl:" in error
    assert f"page:   {unknown.report_file}" in error
    for text in (failure, error):
        assert "harness/testing.py" not in text
        assert "contextlib.py" not in text

    pages = done.out[done.out.index("zkchaos pages") :]
    assert f"violated  {violated.report_file}" in pages
    assert f"unknown   {unknown.report_file}" in pages


def section(out: str, title: str) -> str:
    """One failure of pytest's output."""
    found = re.search(rf"^_+ {re.escape(title)} _+$(.*?)(?=^[_=]{{4,}} )", out, flags=re.MULTILINE | re.DOTALL)
    assert found, out
    return found[1]


NEVER_RUNS = """
    import pytest

    {marker}
    def test_it(ensemble):
        raise AssertionError("this must not run")
"""


def test_what_the_machine_lacks_is_a_skip(tmp_path: Path) -> None:
    test = NEVER_RUNS.format(marker="")
    lacking = {"JAVA_HOME": "/nonexistent"}
    done = session(tmp_path, test, "-rs", environ=lacking)
    assert done.code == 0
    assert done.counts(skipped=1), done.out
    assert "JAVA_HOME=/nonexistent" in done.out
    assert "or unset it" in done.out

    for required in ("chromium,java", "java"):
        done = session(tmp_path, test, environ={**lacking, "ZKCHAOS_REQUIRE": required})
        assert done.code == 1
        assert done.counts(error=1), done.out
        assert "ZKCHAOS_REQUIRE names java: JAVA_HOME=/nonexistent" in done.out
    done = session(tmp_path, test, environ={**lacking, "ZKCHAOS_REQUIRE": "namespaces"})
    assert done.counts(skipped=1), done.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("marker", "words", "said"),
    [
        ('@pytest.mark.topology("dual-nte")', [], 'did you mean "dual-net"?'),
        ('@pytest.mark.topology("./mine.toml")', [], "mine.toml: there is no such file"),
        ('@pytest.mark.topology("dual-net", version="9.9")', [], '"9.9" is not a version'),
        ('@pytest.mark.testbed("dokcer")', [], "allowed: namespaces, docker, docker-helper"),
        ("", ["--zkchaos-testbed", "podman"], "podman: there is no such testbed"),
        ("", ["--zkchaos-topology", "triple-net"], 'no topology called "triple-net"'),
        ("", ["--zkchaos-zookeeper", "3.9.77"], '"3.9.77" is not one that can be fetched'),
        ("", ["--zkchaos-runs", "test_it.py"], "choose another place"),
    ],
)
def test_what_is_asked_wrongly_is_one_clear_error(
    marker: str, words: list[str], said: str, tmp_path: Path, java: None
) -> None:
    done = session(tmp_path, NEVER_RUNS.format(marker=marker), *words)
    assert done.code == 1
    assert done.counts(error=1), done.out
    assert said in done.out.replace("\nE  ", "")
    assert "harness/topology" not in done.out
    assert {path.name for path in tmp_path.iterdir()} <= {"test_it.py", "__pycache__"}


def test_options_have_ini_names(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nzkchaos_topology = ./mine.toml\nzkchaos_runs = there\n")
    done = session(tmp_path, NEVER_RUNS.format(marker=""))
    assert "mine.toml: there is no such file" in done.out


def test_markers_and_options_are_told(tmp_path: Path) -> None:
    done = session(tmp_path, "", "--markers", "--strict-markers")
    assert "@pytest.mark.chaos: " in done.out
    assert "@pytest.mark.topology(name, " in done.out
    assert "@pytest.mark.testbed(kind)" in done.out
    helped = session(tmp_path, "", "--help").out
    for option in ("topology", "testbed", "zookeeper", "seed", "runs"):
        assert f"--zkchaos-{option}=" in helped


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """It is loaded by every pytest of an environment that has the harness, so it must load nothing itself."""
    heavy = (
        "docker",
        "kazoo",
        "pydantic",
        "msgspec",
        "pyroute2",
        "jinja2",
        "rich",
        "typer",
        "harness.run",
        "harness.testbed",
    )
    done = session(
        tmp_path,
        f"""
        import sys

        def test_nothing_of_it_is_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("zkchaos")
            assert [m for m in {heavy!r} if m in sys.modules] == []
        """,
    )
    assert done.counts(passed=1), done.out
    assert "zkchaos pages" not in done.out

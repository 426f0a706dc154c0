"""The command line at its best: a whole run, and what is done with it afterwards."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import __version__
from harness.check.synthetic import SyntheticRun, write_run
from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent, Phase, ProbeEvent
from harness.topology.loader import library_topologies
from tests.integration.command_line import Said, command, zkchaos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one run of this module is."""
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def done(folder: Path, namespaces_allowed: None, java: None) -> Said:
    """The shortest run with a fault that a leader survives."""
    words = ("run", "follower-restart", "--seed", "7", "--clients", "4", "--rate", "80")
    return zkchaos(*words, cwd=folder, environ={"COLUMNS": "200"})


@pytest.fixture
def run(done: Said, folder: Path) -> RunFolder:
    assert done.code == 0, done.out + done.err
    return RunFolder.open(folder / "runs" / "latest")


def test_a_run_shows_what_happens_and_ends_with_verdict_page_and_repeat(done: Said, run: RunFolder) -> None:
    assert done.err == ""
    assert "restart" in done.out
    assert "proved: " in done.out
    assert "healed" in done.out
    assert done.out.splitlines()[-3:] == [
        "VALID",
        f"page:   {run.report_file}",
        "repeat: zkchaos run follower-restart --topology dual-net --seed 7 --duration 10s --clients 4 --rate 80",
    ]


def test_the_folder_is_named_after_time_scenario_and_seed(run: RunFolder, folder: Path) -> None:
    assert run.root.parent == folder / "runs"
    assert run.root.name.endswith("-follower-restart-7")
    assert (folder / "runs" / "latest").is_symlink()
    assert run.report_file.stat().st_size < 1_500_000


def test_what_was_asked_for_is_in_the_scenario(run: RunFolder) -> None:
    scenario = run.scenario()
    assert (scenario.seed, scenario.load.clients, scenario.load.rate) == (7, 4, 80.0)
    assert scenario.topology_source.startswith("# Two networks")
    assert run.environment().servers[0].zookeeper.startswith("3.9.")


def test_the_life_of_the_fault_is_in_the_events(run: RunFolder) -> None:
    events = run.events()
    story = [e.action.value for e in events if isinstance(e, FaultEvent)]
    assert story == [a.value for a in (FaultAction.INJECT, FaultAction.INJECTED, FaultAction.HEAL, FaultAction.HEALED)]
    (inject,) = (e for e in events if isinstance(e, FaultEvent) and e.action is FaultAction.INJECT)
    assert inject.asked == "a follower"
    assert inject.target in ("zk1", "zk2", "zk3")
    probes = [(e.stage, e.bites) for e in events if isinstance(e, ProbeEvent)]
    assert probes[0] == ("before", False)
    assert ("during", True) in probes
    assert probes[-1] == ("after", False)
    phases = [e.name for e in events if isinstance(e, Phase)]
    assert [name for name in phases if name != "quorum"] == ["bring-up", "load", "quiesce", "collect", "done"]


def test_the_command_to_repeat_it_is_understood(run: RunFolder, folder: Path) -> None:
    """By the same parser; it is not carried out, because a number too many makes it stop first."""
    words = shlex.split(run.scenario().repeat)
    assert words[0] == "zkchaos"
    again = zkchaos(*words[1:], "--clients", "0", cwd=folder)
    assert "clients: 0 is not allowed" in again.complaint(64)


def test_checking_again_says_the_same(done: Said, run: RunFolder, folder: Path) -> None:
    before = json.loads(run.verdicts_file.read_bytes())
    again = zkchaos("check", cwd=folder, environ={"COLUMNS": "200"})
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines()[-1] == "valid"
    assert json.loads(run.verdicts_file.read_bytes()) == before


def test_the_report_is_one_plain_path(run: RunFolder, folder: Path) -> None:
    run.report_file.unlink()
    again = zkchaos("report", run.root.name, cwd=folder, environ={"COLUMNS": "20"})
    assert (again.code, again.err, again.out) == (0, "", f"{run.report_file}\n")
    assert run.report_file.is_file()


@pytest.mark.parametrize("name", ["latest", "its name", "its path"])
def test_a_run_goes_by_several_names(name: str, run: RunFolder, folder: Path) -> None:
    word = {"latest": "latest", "its name": run.root.name, "its path": str(run.root)}[name]
    assert zkchaos("report", word, cwd=folder).out == f"{run.report_file}\n"


def test_runs_are_listed(run: RunFolder, folder: Path) -> None:
    listed = zkchaos("runs", cwd=folder, environ={"COLUMNS": "120"})
    assert listed.code == 0
    assert listed.out.splitlines()[1].split() == [run.root.name, "dual-net", "7", "valid"]
    assert "latest" not in listed.out


def test_where_runs_are_kept_may_be_said_by_the_environment(run: RunFolder, folder: Path, tmp_path: Path) -> None:
    environ = {"ZKCHAOS_RUNS": str(folder / "runs"), "COLUMNS": "120"}
    assert run.root.name in zkchaos("runs", cwd=tmp_path, environ=environ).out
    assert zkchaos("report", cwd=tmp_path, environ=environ).out == f"{run.report_file}\n"


def test_a_list_has_an_end(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / "runs" / name, SyntheticRun(duration=0.1, faults=()))
    listed = zkchaos("runs", "--limit", "2", cwd=tmp_path)
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == ["c", "b"]


def test_no_runs_yet_is_no_mistake(tmp_path: Path) -> None:
    listed = zkchaos("runs", cwd=tmp_path)
    assert (listed.code, listed.err) == (0, "")
    assert "no runs in runs" in listed.out
    assert list(tmp_path.iterdir()) == []


def test_a_violation_is_exit_code_1_with_its_witness(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "made-up", SyntheticRun(recovery_within=0.001))
    done = zkchaos("check", "made-up", cwd=tmp_path, environ={"COLUMNS": "200"})
    assert (done.code, done.err) == (1, "")
    assert "budget" in done.out
    assert "  - switch-down net1 was injected at" in done.out
    assert done.out.splitlines()[-1] == "violated"
    assert json.loads(run.verdicts_file.read_bytes())["overall"] == "violated"


def test_the_library_is_listed_and_drawn(tmp_path: Path) -> None:
    listed = zkchaos("topologies", cwd=tmp_path, environ={"COLUMNS": "20"}).out.splitlines()
    assert [line.split()[0] for line in listed] == list(library_topologies())
    drawn = zkchaos("show", "dual-net", cwd=tmp_path, environ={"COLUMNS": "20"})
    assert drawn.code == 0
    for word in ("net1", "net2", "zk1", "zk2", "zk3", "c1", "10.77.1.1", "10.77.2.101"):
        assert word in drawn.out
    plans = zkchaos("plans", cwd=tmp_path)
    for word in ("switch-failure", "leader-kill", "kinds of fault", "switch-down", "pause"):
        assert word in plans.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", library_topologies())
def test_what_is_drawn_is_what_is_declared(name: str, tmp_path: Path) -> None:
    assert zkchaos("show", name, cwd=tmp_path).code == 0


@pytest.mark.parametrize(("words", "code"), [([], 64), (["--help"], 0), (["run", "--help"], 0)])
def test_help(words: list[str], code: int, tmp_path: Path) -> None:
    """Also where nothing is asked for; but that is no success, for a script whose command came out empty."""
    said = zkchaos(*words, cwd=tmp_path)
    assert (said.code, said.err) == (code, "")
    assert "Usage" in said.out


def test_the_version(tmp_path: Path) -> None:
    assert zkchaos("--version", cwd=tmp_path) == Said(0, f"{__version__}\n", "")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """As in `zkchaos plans | head -1`."""
    done = subprocess.run(
        ["/bin/sh", "-c", shlex.join(command("plans")) + " | head -1"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_progress_on_a_terminal(folder: Path, run: RunFolder, tmp_path: Path) -> None:
    """The bar is drawn where somebody can see it; a failure before the run is still one line."""
    main, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            command("run", "switch-failure"),
            cwd=tmp_path,
            env={**os.environ, "JAVA_HOME": "/nonexistent", "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.PIPE,
        )
        _out, err = process.communicate(timeout=60)
    finally:
        os.close(terminal)
        shown = os.read(main, 65536)
        os.close(main)
    assert process.returncode == 3
    assert b"starting" in shown
    assert err.count(b"\n") == 1


def test_the_doctor_tries_everything(tmp_path: Path, namespaces_allowed: None, java: None) -> None:
    well = zkchaos("doctor", cwd=tmp_path, environ={"COLUMNS": "200"})
    assert (well.code, well.err) == (0, "")
    for word in ("Python", "Java", "12 of 12 paths", "hashes verified", "MB free", "runs are possible"):
        assert word in well.out
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_what_to_do(tmp_path: Path) -> None:
    environ = {"JAVA_HOME": "/nonexistent", "DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock", "COLUMNS": "200"}
    ill = zkchaos("doctor", cwd=tmp_path, environ=environ)
    assert (ill.code, ill.err) == (3, "")
    assert "set JAVA_HOME to the root of a Java runtime, or unset it" in ill.out
    assert "a run is not possible here: Java" in ill.out


def test_small_commands_load_little(tmp_path: Path) -> None:
    """Drawing a topology needs neither kazoo nor the netlink library nor the template engine."""
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from harness.cli import _run; _run(['show', 'dual-net']);"
            "print(*(m for m in ('kazoo', 'pyroute2', 'jinja2') if m in sys.modules), file=sys.stderr)",
        ],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert loaded.stderr == b"\n"

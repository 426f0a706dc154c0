"""Commands in a user-mode kernel: what comes out, what does not, and that nothing outlives it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness
from harness.check.verdict import Overall, load_judgement
from harness.errors import TestbedError
from harness.history.folder import RunFolder
from harness.history.records import FaultAction, FaultEvent, Note
from harness.usermode import supervision
from harness.usermode.supervision import make_order, run_in_guest
from tests.integration.command_line import Said, command, end, wait_for_line, zkchaos
from tests.integration.conftest import require

pytestmark = pytest.mark.usefixtures("usermode")

SMALL = ("--memory", "512")
#: A kernel boots in two seconds; machines of the CI may be ten times slower.
PATIENCE = 120.0


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process of a kernel that this test has started outlives it, and no scratch folder.

    Each test has its scratch folders to itself, so that its kernels are known by their command lines.
    """
    with tempfile.TemporaryDirectory(prefix="zu", dir="/tmp") as place:
        (tmp_path / "scratch").symlink_to(place)
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield
        deadline = time.monotonic() + 20
        while left := kernels(tmp_path):
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.05)


def kernels(tmp_path: Path) -> list[int]:
    """The pids of this test's kernels, of their helpers and keepers."""
    mark = os.fsencode(f"uml_dir={(tmp_path / 'scratch').readlink()}/")
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue  # it ended while it was looked at
    return found


def kernel_itself(tmp_path: Path) -> int:
    """The pid of the kernel: the leader of its group that is not the keeper."""
    return next(
        pid
        for pid in kernels(tmp_path)
        if os.getpgid(pid) == pid and b"keeper.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def usermode_says(tmp_path: Path, *words: str, options: tuple[str, ...] = SMALL) -> Said:
    return zkchaos("usermode", *options, "--", *words, cwd=tmp_path, timeout=PATIENCE)


@contextmanager
def started(tmp_path: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command(*words),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def test_streams_exit_code_environment_and_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZKCHAOS_TEST_MARK", "a b\n'c'")
    script = 'echo "$0|$1"; pwd; echo "$ZKCHAOS_TEST_MARK"; echo error >&2; [ -t 1 ] && echo terminal; uname -r; exit 7'
    said = usermode_says(tmp_path, "sh", "-c", script, "zero", "one two")
    assert said.code == 7, said.err
    release = said.out.splitlines()[-1]
    assert said.out == f"zero|one two\n{tmp_path}\na b\n'c'\n{release}\n"
    assert said.err == "error\n"
    assert release != os.uname().release
    assert not (tmp_path / "runs").exists()  # made for the guest, not used, gone


def test_output_comes_whole_and_as_bytes(tmp_path: Path) -> None:
    script = "import sys, hashlib; d = bytes(range(256)) * 8000; sys.stdout.buffer.write(d)"
    process = subprocess.run(
        command("usermode", *SMALL, "--", sys.executable, "-c", script),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert process.stdout == bytes(range(256)) * 8000


def test_a_command_that_a_signal_ended_and_one_that_is_not_there(tmp_path: Path) -> None:
    assert usermode_says(tmp_path, "sh", "-c", "kill -9 $$").code == 137
    said = usermode_says(tmp_path, "no-such-program")
    assert said.complaint(127).endswith("no-such-program: No such file or directory")


def test_what_is_left_running_ends_with_the_command(tmp_path: Path) -> None:
    begun = time.monotonic()
    said = usermode_says(tmp_path, "sh", "-c", "sleep 3600 & echo started; exit 3")
    assert (said.code, said.out) == (3, "started\n")
    assert time.monotonic() - begun < 60


def test_netem_delays_by_fifty_milliseconds(tmp_path: Path) -> None:
    script = """
        set -e
        ip link add one type veth peer name two
        ip netns add far
        ip link set two netns far
        ip addr add 10.9.0.1/24 dev one
        ip -n far addr add 10.9.0.2/24 dev two
        ip link set one up
        ip -n far link set two up
        tc qdisc add dev one root netem delay 50ms
        ping -q -c 2 -i 0.2 10.9.0.2 >/dev/null
        ping -c 9 -i 0.2 10.9.0.2
    """
    said = usermode_says(tmp_path, "sh", "-c", script)
    assert said.code == 0, said.err
    times = sorted(float(found) for found in re.findall(r"time=([\d.]+) ms", said.out))
    assert len(times) == 9
    assert 50.0 <= times[4] < 60.0, times


def test_only_the_named_folders_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "file").write_text("before")
    name = f"zkchaos-test-{os.getpid()}"
    script = f"""
        set -e
        for f in /etc/{name} /usr/bin/{name} /var/{name} /tmp/{name} /dev/shm/{name} /run/{name} there; do
            echo inside > $f; cat $f
        done
        echo inside > file; cat file
        rm -r /etc/hostname 2>/dev/null || true
        echo run > runs/one; echo kept > kept/two; mkdir kept/folder; ln -s two kept/link; mv kept/two kept/three
        date -s 2001-01-01 >/dev/null; sysctl -q -w net.ipv4.ip_forward=1 2>/dev/null || true; hostname changed || true
    """
    before = names("/etc"), os.uname().nodename
    said = usermode_says(tmp_path, "sh", "-c", script, options=(*SMALL, "--writable", "kept"))
    assert (said.code, said.out) == (0, "inside\n" * 8), said.err
    assert (names("/etc"), os.uname().nodename) == before
    assert (tmp_path / "file").read_text() == "before"
    assert not (tmp_path / "there").exists()
    assert not any(Path(place, name).exists() for place in ("/usr/bin", "/var", "/tmp", "/dev/shm", "/run"))
    assert (tmp_path / "runs" / "one").read_text() == "run\n"
    assert names(tmp_path / "kept") == ["folder", "link", "three"]
    assert time.time() > 1_700_000_000


def test_memory_is_bounded(tmp_path: Path) -> None:
    hungry = "d = []\nwhile True: d.append(bytearray(2**20))"
    said = usermode_says(tmp_path, sys.executable, "-c", hungry, options=("--memory", "256"))
    assert said.code == 137, said  # by the guest's kernel, which lives on
    full = usermode_says(tmp_path, "sh", "-c", "head -c 300M /dev/zero > /tmp/big", options=("--memory", "256"))
    assert full.code != 0
    assert "No space left" in full.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("usermode", "--memory", "1", "--", "true"), "--memory: 1 MB is not allowed"),
        (("usermode", "--deadline", "soon", "--", "true"), "--deadline"),
        (("usermode", "--deadline", "30d", "--", "true"), "--deadline"),
        (("usermode", "--writable", "missing", "--", "true"), "there is no such folder"),
        (("usermode", "--runs", "/run/runs", "--", "true"), "does not see this folder"),
        (("usermode",), "Missing argument"),
        (("run", "no-faults", "--kernel", "usermode", "--topology", "missing"), "missing"),
    ],
)
def test_a_wrong_request_starts_nothing(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    assert expected in zkchaos(*words, cwd=tmp_path).complaint(64)
    assert kernels(tmp_path) == []


def test_a_kernel_in_a_kernel_is_refused(tmp_path: Path) -> None:
    said = usermode_says(tmp_path, *command("usermode", "--", "true"))
    assert "already" in said.complaint(64)


def test_what_is_not_installed_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prelude = "import harness.usermode.machine as m; m._NEEDED = ('linux.uml', 'no-such-program')"
    said = zkchaos("usermode", "--", "true", cwd=tmp_path, prelude=prelude)
    assert "not installed: no-such-program; apt install user-mode-linux" in said.complaint(3)


def test_a_command_that_does_not_end_is_told_to(tmp_path: Path) -> None:
    script = "trap 'echo healed; exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    said = usermode_says(tmp_path, "sh", "-c", script, options=(*SMALL, "--deadline", "3s"))
    assert said.out == "begun\nhealed\n"
    assert "had not ended after 3 s" in said.complaint(3)


def test_a_hung_kernel_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "GRACE_S", 1)
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()

    def hang() -> None:
        os.read(reader, 100)
        os.kill(kernel_itself(tmp_path), signal.SIGSTOP)

    thread = threading.Thread(target=hang)
    thread.start()
    order = make_order(("sh", "-c", "echo begun; sleep 1000"), streams=(writer, 2))
    begun = time.monotonic()
    with pytest.raises(TestbedError, match="was told to"):
        run_in_guest(order, memory_mb=512, deadline_s=3, streams=(writer, 2))
    assert time.monotonic() - begun < 60
    thread.join()
    os.close(reader)
    os.close(writer)


def test_a_kernel_that_panics_says_its_last_words(tmp_path: Path) -> None:
    said = usermode_says(tmp_path, "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100")
    assert "ended without a word" in said.complaint(3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_healed_kept_and_told(
    number: signal.Signals, tmp_path: Path, namespaces_allowed: None, java: None
) -> None:
    with started(tmp_path, "run", "switch-failure", "--kernel", "usermode", "--duration", "2m") as process:
        latest = tmp_path / "runs" / "latest"
        wait_for_line(latest / "events.jsonl", '"during"', process, PATIENCE)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal tells the whole group
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, b"")
    folder = RunFolder.open(latest)
    events = folder.events()
    actions = [event.action for event in events if isinstance(event, FaultEvent)]
    assert actions == [FaultAction.INJECT, FaultAction.INJECTED, FaultAction.HEAL, FaultAction.HEALED]
    assert "the run was interrupted" in [event.text for event in events if isinstance(event, Note)]
    assert load_judgement(folder).overall is Overall.BROKEN
    assert out.decode().splitlines()[-2] == f"page:   {folder.report_file}"


def test_an_interrupt_while_it_boots(tmp_path: Path) -> None:
    with started(tmp_path, "usermode", *SMALL, "--", "sleep", "1000") as process:
        deadline = time.monotonic() + PATIENCE
        while not kernels(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, b"")


def test_the_guest_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    words = ("usermode", *SMALL, "--", "sh", "-c", "echo begun > runs/begun; sleep 1000")
    with started(tmp_path, *words) as process:
        wait_for_line(tmp_path / "runs" / "begun", "begun", process, PATIENCE)
        process.kill()
        process.communicate()
    # and `nothing_is_left`


@pytest.mark.parametrize("plan", [pytest.param("no-faults", marks=pytest.mark.long), "switch-failure"])
def test_a_scenario_is_valid_in_it(plan: str, tmp_path: Path, namespaces_allowed: None, java: None) -> None:
    said = zkchaos("run", plan, "--kernel", "usermode", "--seed", "3", cwd=tmp_path, timeout=300)
    assert said.code == 0, said.out + said.err
    folder = RunFolder.open(tmp_path / "runs" / "latest")
    assert load_judgement(folder).overall is Overall.VALID
    assert folder.report_file.is_file()
    assert folder.environment().kernel != f"Linux {os.uname().release}"
    assert folder.scenario().repeat.endswith("--kernel usermode")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_needs_no_privileges(tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    site = next(p for p in sys.path if p.endswith("site-packages"))
    paths = os.pathsep.join((str(Path(harness.__file__).parents[1]), site))
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chown(name, 65534, 65534)
        environ = {"PATH": "/usr/bin:/bin", "HOME": name, "PYTHONPATH": paths, "ZKCHAOS_CACHE": f"{name}/cache"}
        probe = [python, "-c", "import harness.cli, msgspec, pyroute2"]
        if not Path(python).exists() or subprocess.run(probe, env=environ, user=65534, check=False).returncode:
            pytest.skip("no Python here that everybody may execute has what the harness needs")
        script = """
            id -u; tc qdisc add dev lo root netem delay 5ms
            for f in /etc/x /dev/shm/x /tmp/x runs/k; do echo k > $f; done
        """
        done = subprocess.run(
            [python, "-c", "from harness.cli import main; main()", "usermode", *SMALL, "--", "sh", "-c", script],
            env=environ,
            cwd=name,
            user=65534,
            group=65534,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
        kept = Path(name, "runs", "k")
        assert (kept.read_text(), kept.stat().st_uid) == ("k\n", 65534)


def test_a_docker_engine_of_its_own(tmp_path: Path) -> None:
    if shutil.which("dockerd") is None:
        require("docker", "dockerd is not installed")
    words = ("docker", "info", "--format", "{{.Driver}} {{.CgroupVersion}} {{.Containers}}")
    said = usermode_says(tmp_path, *words, options=("--docker", "--memory", "2048"))
    assert (said.code, said.out) == (0, "overlay2 2 0\n"), said.err


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_scenario_on_an_engine_in_it(engine_images: None, tmp_path: Path) -> None:
    """What the images are made of is in the cache by then; they are made in the guest."""
    words = ("run", "switch-failure", "--testbed", "docker", "--kernel", "usermode", "--seed", "3")
    said = zkchaos(*words, cwd=tmp_path, timeout=550)
    assert said.code == 0, said.out + said.err
    folder = RunFolder.open(tmp_path / "runs" / "latest")
    assert load_judgement(folder).overall is Overall.VALID
    assert (folder.environment().testbed, folder.scenario().testbed) == ("docker", "docker")
    assert folder.environment().kernel != f"Linux {os.uname().release}"


def test_the_helper_container_is_not_for_it(tmp_path: Path) -> None:
    said = zkchaos("run", "no-faults", "--testbed", "docker-helper", "--kernel", "usermode", cwd=tmp_path)
    assert "everybody is root in the guest" in said.complaint(64)

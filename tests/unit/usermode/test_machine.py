"""What a kernel is started with, and what is refused before."""

import os
import shlex
import sys
import tempfile
from pathlib import Path

import pytest

from harness.errors import EnvironmentLacking, UsageError
from harness.usermode import machine
from harness.usermode.machine import Console
from harness.usermode.supervision import MOST_DEADLINE_S, make_order, run_in_guest


def test_the_root_is_read_only_and_the_memory_bounded() -> None:
    words = machine.command_line("linux.uml", Path("/tmp/z"), 512, Console(3, 4, 5, 6, 7))
    assert words[0] == "linux.uml"
    assert {"ro", "mem=512M", "rootfstype=hostfs", "init=/tmp/z/init", "uml_dir=/tmp/z/"} <= set(words)
    assert "rw" not in words
    assert [word for word in words if "fd:" in word] == [
        "con0=null,fd:3",
        "con1=fd:4,fd:5",
        "con2=null,fd:6",
        "con3=null,fd:7",
    ]


def test_the_first_program_is_this_python() -> None:
    first, second = machine.init_script(Path("/tmp/with 'quotes'")).splitlines()
    assert first == "#!/bin/sh"
    words = shlex.split(second)
    assert words[:3] == ["exec", "env", "-i"]
    assert sys.executable in words
    assert words[-1] == "/tmp/with 'quotes'"


@pytest.mark.parametrize("folder", ["/proc", "/dev/shm/x", "/run/user/1000", "/sys/fs"])
def test_a_folder_below_the_guests_own_mounts_is_refused(folder: str) -> None:
    with pytest.raises(UsageError, match="does not see this folder"):
        machine.check_visible(Path(folder), "the folder")


@pytest.mark.parametrize("folder", ["/", "/runs", "/device", "/home/me/run"])
def test_others_are_seen(folder: str) -> None:
    machine.check_visible(Path(folder), "the folder")


def test_memory_goes_where_it_has_room(tmp_path: Path) -> None:
    assert machine.memory_folder(1, {"TMPDIR": str(tmp_path)}).is_dir()
    with pytest.raises(EnvironmentLacking, match="has room in none of") as caught:
        machine.memory_folder(2**40, {"TMPDIR": str(tmp_path)})
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("usual", ["/tmp/with blank", "/tmp/" + "x" * 80, "/dev/shm", '/tmp/"', "/tmp/a,b"])
def test_scratch_folders_have_plain_short_names(usual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", usual)
    assert machine.scratch_parent() == "/var/tmp"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_NEEDED", ("sh", "no-such-program", "nor-this-one"))
    with pytest.raises(EnvironmentLacking, match="not installed: no-such-program, nor-this-one") as caught:
        machine.find_kernel(os.environ)
    assert "apt install user-mode-linux" in caught.value.next_step


@pytest.mark.parametrize(
    ("memory_mb", "deadline_s"),
    [(machine.LEAST_MEMORY_MB - 1, 1.0), (10**9, 1.0), (512, 0.0), (512, MOST_DEADLINE_S + 1)],
)
def test_bounds(memory_mb: int, deadline_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is not allowed"):
        run_in_guest(make_order(["true"]), memory_mb=memory_mb, deadline_s=deadline_s)


def test_this_is_not_inside_unless_it_says_so() -> None:
    assert machine.inside() == ("User Mode Linux" in Path("/proc/cpuinfo").read_text(encoding="utf-8"))

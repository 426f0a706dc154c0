"""Where control groups can be made: hierarchies of both versions, as /proc and the file system show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.testbed.group_places import CPU, MEMORY, Place, Places, find_places


class Machine:
    """What a process sees of a machine's control groups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = ["22 1 0:20 / /proc rw - proc proc rw"]
        self._groups: list[str] = []

    def mount(self, name: str, kind: str, options: str, *, part: str = "/") -> Path:
        point = self.root / name
        point.mkdir(parents=True, exist_ok=True)
        shown = str(point).replace(" ", "\\040")
        number = 30 + len(self._mounts)
        self._mounts.append(f"{number} 22 0:25 {part} {shown} rw,nosuid shared:5 - {kind} {kind} {options}")
        return point

    def group(self, line: str) -> None:
        """Our own, as /proc/self/cgroup has it."""
        self._groups.append(line)

    def look(self) -> Places:
        process = self.root / "process"
        process.mkdir(parents=True, exist_ok=True)
        (process / "mountinfo").write_text("\n".join(self._mounts) + "\n")
        if self._groups:
            (process / "cgroup").write_text("\n".join(self._groups) + "\n")
        return find_places(process)


def second(folder: Path, has: str = "", gives: str = "", *, root: bool = False) -> Path:
    """A group of the second version."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(has)
    (folder / "cgroup.subtree_control").write_text(gives)
    (folder / "cgroup.procs").touch()
    if not root:
        (folder / "cgroup.type").write_text("domain\n")
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "a machine")


def test_each_controller_has_a_hierarchy_of_its_own(machine: Machine) -> None:
    cpu = machine.mount("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    memory = machine.mount("memory", "cgroup", "rw,memory")
    machine.mount("unified", "cgroup2", "rw")
    (memory / "ours").mkdir()
    for line in ("5:memory:/ours", "2:cpu,cpuacct:/", "1:name=systemd:/", "0::/"):
        machine.group(line)
    assert machine.look() == Places({CPU: Place(cpu, 1), MEMORY: Place(memory / "ours", 1)}, {})


def test_a_part_of_a_hierarchy_is_mounted(machine: Machine) -> None:
    """As in a container that has the hierarchies, and not a namespace for them."""
    memory = machine.mount("memory", "cgroup", "rw,memory", part="/docker/4711")
    cpu = machine.mount("cpu", "cgroup", "rw,cpu", part="/docker/4711")
    machine.group("5:memory:/docker/4711")
    machine.group("4:cpu:/docker/47110")  # not a group below what is mounted, though it begins with its name
    found = machine.look()
    assert found.found == {MEMORY: Place(memory, 1)}
    assert found.refusals == {CPU: "its control groups are out of sight"}
    assert cpu.is_dir()


def test_beside_the_service_that_we_are_in(machine: Machine) -> None:
    """As systemd gives a user a part of it: the scope that we are in has processes, and can have no groups."""
    top = second(machine.mount("cgroup", "cgroup2", "rw"), "cpu memory pids", "cpu memory pids", root=True)
    slice_ = second(top / "user.slice", "cpu memory pids", "memory pids")
    service = second(slice_ / "user@1000.service", "memory pids", "memory pids")
    second(service / "run-1.scope", "memory pids")
    machine.group("0::/user.slice/user@1000.service/run-1.scope")
    # the whole hierarchy is root's: further up there are both controllers
    assert machine.look() == Places({CPU: Place(top, 2), MEMORY: Place(top, 2)}, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_only_where_we_may_write(machine: Machine) -> None:
    top = second(machine.mount("cgroup", "cgroup2", "rw"), "cpu memory", "cpu memory", root=True)
    service = second(top / "user.service", "cpu memory", "memory")
    second(service / "run.scope", "memory")
    machine.group("0::/user.service/run.scope")
    top.chmod(0o555)
    found = machine.look()
    assert found.found == {MEMORY: Place(service, 2)}
    assert found.refusals == {CPU: f"no control group of it can be made in {service}"}
    service.chmod(0o555)
    assert "this user may make no control groups" in machine.look().refusals[MEMORY]


def test_a_kernel_whose_root_gives_nothing_yet(machine: Machine) -> None:
    """As the user-mode kernel starts."""
    top = second(machine.mount("cgroup", "cgroup2", "rw"), "memory pids", root=True)
    machine.group("0::/")
    place = Place(top, 2, closed=True)
    assert machine.look() == Places({MEMORY: place}, {CPU: f"no control group of it can be made in {top}"})


def test_a_namespace_whose_root_is_not_the_root_of_all(machine: Machine) -> None:
    """As in a container: its processes are in the group that it sees as the top."""
    top = second(machine.mount("cgroup", "cgroup2", "rw"), "cpu memory")
    machine.group("0::/")
    found = machine.look()
    assert found.found == {}
    assert found.refusals == dict.fromkeys((CPU, MEMORY), f"no control group of it can be made in {top}")


@pytest.mark.parametrize("group", ["", "0::/", "0::/../elsewhere", "4:cpu:/gone"])
def test_nothing_is_in_sight(machine: Machine, group: str) -> None:
    if group:
        machine.group(group)
    assert machine.look() == Places({}, dict.fromkeys((CPU, MEMORY), "no control groups are mounted"))
    machine.mount("cpu", "cgroup", "rw,cpu")
    assert machine.look().found == {}

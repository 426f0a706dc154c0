"""An attached ensemble is whole again, whatever becomes of who broke it."""

from __future__ import annotations

import io
import os
import secrets
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from rich.console import Console

from harness.attach import break_once, look_at
from harness.errors import FaultError
from harness.testbed.reaper import BOUND
from tests.integration.command_line import command as command_line
from tests.integration.command_line import end, wait_until_gone, zkchaos
from tests.integration.engine_things import ports_of
from tests.integration.foreign import Fault, Project, carriers, is_whole, look, mend, process_state, wait_for

pytestmark = pytest.mark.usefixtures("own_memory")

#: Every kind of fault of the network and of processes, so that what becomes of them is seen at once.
EVERYTHING = """
title = "All at once"
duration = "60s"
[[step]]
at = "500ms"
fault = "switch-down"
switch = "net1"
for = "50s"
[[step]]
at = "500ms"
fault = "link-down"
host = "zk1"
switch = "net2"
for = "50s"
[[step]]
at = "600ms"
fault = "kill"
server = "zk2"
for = "50s"
[[step]]
at = "600ms"
fault = "pause"
server = "zk3"
for = "50s"
"""


@pytest.mark.parametrize("testbed", ["docker", "docker-helper"])
def test_everything_is_healed_after_sigkill_of_a_run(
    foreign: Project,
    engine: docker.DockerClient,
    testbed: str,
    tmp_path: Path,
    record_testsuite_property: Any,
) -> None:
    (tmp_path / "all.toml").write_text(EVERYTHING)
    marker = f"ZKCHAOS_ATTACH_TEST={secrets.token_hex(8)}"
    key, _, value = marker.partition("=")
    words = ["run", "./all.toml", "--attach", foreign.name, "--testbed", testbed, "--rate", "20"]
    run = subprocess.Popen(
        command_line(*words),
        cwd=tmp_path,
        env={**os.environ, key: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        events = tmp_path / "runs" / "latest" / "events.jsonl"
        wait_for(lambda: events.exists() and events.read_text().count('"during"') >= 4, 60)
        two, three = foreign.container("zoo2"), foreign.container("zoo3")
        assert process_state(two) == ""
        assert process_state(three) == "T"
        assert carriers(foreign.container("zoo1")) == ["0", "0"]
    finally:
        end(run)
    record_testsuite_property(f"seconds until healed, {testbed}", round(wait_for(lambda: is_whole(foreign), BOUND), 2))
    assert_nothing_of_ours(engine, foreign)
    mend(foreign.name)
    wait_until_gone(marker, 2 * BOUND)  # the reaper looks on for a while, and would mend what the next test breaks


def test_everything_is_healed_after_sigkill_of_a_fault(
    foreign: Project, engine: docker.DockerClient, record_testsuite_property: Any
) -> None:
    fault = Fault("kill", "leader", "--for", "60s", "--on", foreign.name)
    try:
        fault.wait_until_it_bites()
        assert not is_whole(foreign)
    finally:
        end(fault.process)
    record_testsuite_property("seconds until healed, fault", round(wait_for(lambda: is_whole(foreign), BOUND), 2))
    assert_nothing_of_ours(engine, foreign)
    mend(foreign.name)
    wait_until_gone(fault.marker, 2 * BOUND)


def assert_nothing_of_ours(engine: docker.DockerClient, project: Project) -> None:
    """No port on the bridges but the containers' own, so no agent is left either, in a helper container or not."""
    found = look_at(project.name)
    for switch, bridge in found.bridges.items():
        wait_for(partial(no_port_of_ours, engine, bridge), BOUND)
        plugged = len(found.servers) + len(found.neighbours[switch])
        assert len(ports_of(engine, bridge)) in {0, plugged}


def no_port_of_ours(engine: docker.DockerClient, bridge: str) -> bool:
    return not any(port.startswith("zkc") for port in ports_of(engine, bridge))


def test_heal_mends_what_the_death_of_the_agent_left_and_touches_nothing_else(foreign: Project, tmp_path: Path) -> None:
    fault = Fault("switch-down", "net1", "--for", "60s", "--on", foreign.name)
    try:
        fault.wait_until_it_bites()
        for agent in agents(fault.marker):
            os.kill(agent, signal.SIGKILL)
        fault.process.send_signal(signal.SIGINT)
        _out, complaint = fault.process.communicate(timeout=60)
        assert fault.process.returncode == 3, complaint
    finally:
        end(fault.process)
    assert "the testbed's agent" in complaint
    assert f"`zkchaos attach {foreign.name} --heal` mends" in complaint
    assert len(complaint.splitlines()) == 1
    assert not is_whole(foreign)

    said_now = look(foreign.name)
    assert "it is not whole: 0 of 12 paths over net1 answer" in said_now
    with pytest.raises(FaultError, match="it is broken already"):
        break_once(Console(file=io.StringIO()), foreign.name, "switch-down", "net1")

    foreign.container("zoo2").kill()
    foreign.container("zoo3").kill(signal="SIGSTOP")
    down = zkchaos("attach", foreign.name, cwd=tmp_path).complaint(3)
    assert f"server 2's container {foreign.name}-zoo2-1 does not run (exit code 137)" in down
    assert f"`zkchaos attach {foreign.name} --heal` starts it" in down
    said = zkchaos("attach", foreign.name, "--heal", cwd=tmp_path)
    assert said.code == 0, said.err
    assert said.out.count("12 of 12 paths answer") == 2
    assert foreign.container("job").status == "exited"  # it was no server, and had ended before
    assert is_whole(foreign)


def agents(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = marker.encode() in (folder / "environ").read_bytes()
            if ours and (folder / "comm").read_text().strip() == "zkchaos-agent":
                found.append(int(folder.name))
        except OSError:
            continue
    return found

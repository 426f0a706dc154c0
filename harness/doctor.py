"""What this machine can do, and what to do about the rest. Each finding is tried, not guessed."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.doctor_disks import examine_fuse
from harness.doctor_finding import ENGINES, EVERYBODY, NAMESPACES, NOBODY, CapabilityFinding, missing, possible
from harness.doctor_offers import show_offers
from harness.doctor_usermode import examine_usermode
from harness.errors import ZkChaosError
from harness.run import LEAST_FREE
from harness.testbed.cgroups import Groups
from harness.testbed.engine import connect_engine
from harness.testbed.group_places import find_places
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.loader import load_topology
from harness.toxiproxy.program import PROGRAM_VARIABLE, find_program, version_of
from harness.zookeeper.clock import find_faketime
from harness.zookeeper.distribution import DEFAULT_VERSION, resolve
from harness.zookeeper.java import find_java

#: How long a Docker engine may take to answer, seconds.
_ENGINE_S = 10


def examine(runs: Path) -> list[CapabilityFinding]:
    """Try everything that a run needs."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        docker, usermode = pool.submit(_docker), pool.submit(examine_usermode)
        ours = [_python(), _java(), _namespaces(), _zookeeper(), _disk(runs), _cores()]
        ours += [_groups(), _faketime(), _toxiproxy(), examine_fuse(), _chromium()]
        return [*ours, *usermode.result(), *docker.result()]


def _python() -> CapabilityFinding:
    version = platform.python_version()
    return CapabilityFinding("Python", sys.version_info >= (3, 11), EVERYBODY, f"{version} on {platform.system()}")


def _java() -> CapabilityFinding:
    try:
        java = find_java()
    except ZkChaosError as problem:
        return CapabilityFinding("Java", False, NAMESPACES, problem.what, problem.next_step)
    return CapabilityFinding("Java", True, NAMESPACES, f"{java.version_line}, from {java.source}")


def _namespaces() -> CapabilityFinding:
    """Build the smallest library topology and send datagrams through it."""
    try:
        testbed = NamespacesTestbed(load_topology("single-net"))
    except ZkChaosError as problem:
        text = f"{problem.what} ({problem.cause})" if problem.cause else problem.what
        return CapabilityFinding("namespaces testbed", False, NAMESPACES, text, problem.next_step)
    try:
        paths = testbed.reach(["net1"], timeout_ms=500)
        answered = sum(p.micros is not None for p in paths)
        way = "in a user namespace, no root needed" if testbed.rootless else "as root, no user namespace needed"
        found = f"{way}; {answered} of {len(paths)} paths of single-net answer"
        return CapabilityFinding("namespaces testbed", answered == len(paths), NAMESPACES, found)
    finally:
        testbed.close()


def _zookeeper() -> CapabilityFinding:
    try:
        distribution = resolve(DEFAULT_VERSION)
    except ZkChaosError as problem:
        return CapabilityFinding("ZooKeeper", False, NAMESPACES, problem.what, problem.next_step)
    found = f"{distribution.version}, {len(distribution.jars)} jars from {distribution.source}, hashes verified"
    return CapabilityFinding("ZooKeeper", True, NAMESPACES, found)


def _disk(runs: Path) -> CapabilityFinding:
    place = next(p for p in (runs.absolute(), *runs.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    step = "" if free >= LEAST_FREE else "free space, or choose another place with --runs"
    return CapabilityFinding("disk", free >= LEAST_FREE, EVERYBODY, f"{free // 2**20} MB free for {runs}", step)


def _cores() -> CapabilityFinding:
    cores = os.cpu_count() or 1
    step = "" if cores > 1 else "elections and recovery will be slower than on a server"
    return CapabilityFinding("cores", cores > 1, NOBODY, str(cores), step)


def _groups() -> CapabilityFinding:
    """Make a control group for each controller, and remove it again."""
    places = find_places()
    step = "" if not places.refusals else "faults `limit` on namespaces need them; of cpu, signals do instead"
    found = [f"{name} below {place.folder}" for name, place in places.found.items()]
    found += [f"{name}: {why}" for name, why in places.refusals.items()]
    groups = Groups(places)
    try:
        if places.found:
            groups.make("doctor")
    except ZkChaosError as problem:
        return CapabilityFinding("control groups", False, NOBODY, str(problem), step)
    finally:
        groups.close()
    return CapabilityFinding("control groups", not places.refusals, NOBODY, "; ".join(found), step)


def _faketime() -> CapabilityFinding:
    """Let a process tell a wrong time."""
    try:
        library = find_faketime()
    except ZkChaosError as problem:
        step = f"only faults of clocks need it: {problem.next_step}"
        return CapabilityFinding("libfaketime", False, NOBODY, problem.what, step)
    return CapabilityFinding("libfaketime", True, NOBODY, f"{library}: sets the clocks of servers, and no other")


def _toxiproxy() -> CapabilityFinding:
    """It is not made for this: that takes half a minute, and a download."""
    try:
        program = find_program()
        version = version_of(program) if program else ""
    except (ZkChaosError, OSError, subprocess.SubprocessError, ValueError) as problem:
        step = problem.next_step if isinstance(problem, ZkChaosError) else ""
        return CapabilityFinding("toxiproxy", False, NOBODY, str(problem), step)
    if program:
        return CapabilityFinding("toxiproxy", True, NOBODY, f"{version}, {program}")
    if shutil.which("go"):
        return CapabilityFinding("toxiproxy", True, NOBODY, "not yet; `go` makes it where a topology has proxies, once")
    found = "not found; faults of streams are made of it"
    return CapabilityFinding("toxiproxy", False, NOBODY, found, f"install Go 1.23, or name it by {PROGRAM_VARIABLE}")


def _chromium() -> CapabilityFinding:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    step = "" if path else "only the harness's own tests of the page need it: apt install chromium"
    return CapabilityFinding("Chromium", path is not None, NOBODY, "found" if path else "not found", step)


def _docker() -> list[CapabilityFinding]:
    try:
        client = connect_engine(_ENGINE_S)
    except ZkChaosError as problem:
        found = f"{problem.what}: {problem.cause}" if problem.cause else problem.what
        return [CapabilityFinding("Docker engine", False, ENGINES, found, problem.next_step)]
    from harness.doctor_docker import examine_engine  # noqa: PLC0415  # its SDK is an extra, which is there now

    with contextlib.closing(client):
        return examine_engine(client)


def show_findings(console: Console, findings: list[CapabilityFinding]) -> None:
    """The findings as a table."""
    table = Table("", "what", "found", "what to do", box=None)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else _mark(finding)
        table.add_row(mark, finding.what, finding.found, finding.next_step)
    console.print(table)
    console.print()
    show_offers(console, findings)
    console.print()
    console.print(_verdict(findings), highlight=False)


def _mark(finding: CapabilityFinding) -> str:
    """What the usual testbed cannot do without is missed more than the rest."""
    return "[red]no[/red]" if set(NAMESPACES) & set(finding.needed_by) else "[yellow]-[/yellow]"


def _verdict(findings: Sequence[CapabilityFinding]) -> str:
    testbeds = possible(findings)
    lacking = ", ".join(finding.what for finding in missing(findings, NAMESPACES[0]))
    if not testbeds:
        return f"a run is not possible here: {lacking}"
    if lacking:
        return f"runs are possible with `--testbed {testbeds[0]}`; on namespaces they are not: {lacking}"
    return f"runs are possible on this machine: {', '.join(testbeds)}"

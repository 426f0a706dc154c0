"""Ensembles on a real engine as people set them up who do not know this harness, and what becomes of them."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import docker
from docker.models.containers import Container
from rich.console import Console

from harness.attach import show
from harness.compose_project import compose_command
from tests.integration.command_line import command

#: A server that is small and soon there; nothing of it matters to the harness.
SMALL = {"ZK_SERVER_HEAP": "96", "JVMFLAGS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"}
_OF_A_START = ("State", "NetworkSettings", "ResolvConfPath", "HostnamePath", "HostsPath", "ExecIDs", "RestartCount")
_PROJECT = "com.docker.compose.project"


@dataclass(frozen=True)
class Project:
    """A Compose project. Its networks have the engine's own subnets, its servers no fixed addresses."""

    name: str
    services: Mapping[str, Mapping[str, Any]]
    networks: Sequence[str]
    client: docker.DockerClient = field(repr=False)

    def up(self) -> None:
        """Bring it up; returns when its containers run, which is before they serve."""
        document = {
            "services": dict(self.services),
            "networks": {name: {} for name in self.networks},
        }
        self.compose("up", "--detach", text=json.dumps(document))

    def down(self) -> None:
        """Remove all of it, volumes too."""
        self.compose("down", "--volumes", "--timeout", "0", "--remove-orphans")

    def compose(self, *words: str, text: str = "") -> None:
        file = ["--file", "-"] if text else []
        words = (*compose_command(), "--project-name", self.name, *file, *words)
        done = subprocess.run(words, input=text.encode(), capture_output=True, check=False, timeout=90, cwd="/")
        assert done.returncode == 0, done.stderr.decode()

    def containers(self) -> list[Container]:
        """All of them, by name."""
        found = self.client.containers.list(all=True, filters={"label": f"{_PROJECT}={self.name}"})
        return sorted(found, key=lambda c: str(c.name))

    def container(self, service: str) -> Container:
        return self.client.containers.get(f"{self.name}-{service}-1")


def two_networks(name: str, image: str, client: docker.DockerClient) -> Project:
    """Three servers that know each other by a name on each of two networks."""
    numbers = (1, 2, 3)
    lines = [f"server.{n}=zoo{n}-front:2888:3888|zoo{n}-back:2888:3888;2181" for n in numbers]
    flags = f"{SMALL['JVMFLAGS']} -Dzookeeper.multiAddress.enabled=true"
    services = {
        f"zoo{n}": {
            "image": image,
            "restart": "unless-stopped",
            "volumes": ["/data", "/datalog"],
            "networks": {network: {"aliases": [f"zoo{n}-{network}"]} for network in ("front", "back")},
            "environment": {**SMALL, "JVMFLAGS": flags, "ZOO_MY_ID": n, "ZOO_SERVERS": " ".join(lines)},
        }
        for n in numbers
    }
    app = {"image": image, "entrypoint": ["sleep", "infinity"], "networks": ["front"], "init": True}
    job = {"image": image, "entrypoint": ["true"], "network_mode": "none"}
    return Project(name, {**services, "app": app, "job": job}, ["front", "back"], client)


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until it is true; returns how long that took, seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def carriers(container: Container) -> list[str]:
    """Of each of a container's NICs, `1` where its cable is plugged in at both ends."""
    code, output = container.exec_run(["sh", "-c", "cat /sys/class/net/eth*/carrier"])
    assert code == 0, output
    return str(output.decode()).split()


def process_state(container: Container) -> str:
    """Of its first process as `ps` says: `S`, `T` (stopped); empty if it does not run."""
    container.reload()
    if container.status != "running":
        return ""
    return str(container.top(ps_args="-o pid,stat")["Processes"][0][1])[0]


def set_up(container: Container) -> dict[str, str]:
    """How a container was set up, as the engine tells it, without what a new start of it changes."""
    container.reload()
    attrs = {key: value for key, value in container.attrs.items() if key not in _OF_A_START}
    attrs["Mounts"] = sorted(attrs["Mounts"], key=lambda mount: str(mount["Destination"]))
    networks = container.attrs["NetworkSettings"]["Networks"].values()
    attrs["Addresses"] = sorted(network["IPAddress"] for network in networks)
    return {f"{container.name} {key}": json.dumps(value, sort_keys=True) for key, value in attrs.items()}


def set_ups(project: Project) -> dict[str, str]:
    """Of all containers of a project."""
    return {key: value for container in project.containers() for key, value in set_up(container).items()}


def mend(name: str) -> str:
    """As `zkchaos attach NAME --heal`; returns what it prints."""
    console = Console(file=io.StringIO(), width=40)
    show(console, name, heal=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def look(name: str) -> str:
    """As `zkchaos attach NAME`; returns what it prints."""
    console = Console(file=io.StringIO(), width=40)
    show(console, name)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def servers(project: Project) -> list[Container]:
    """Those of `two_networks`, by number."""
    return [project.container(f"zoo{n}") for n in (1, 2, 3)]


def is_whole(project: Project) -> bool:
    """Every server's process runs, and every cable is plugged in, as seen from inside of the containers."""
    states = [process_state(container) for container in servers(project)]
    return all(s in {"S", "R", "D"} for s in states) and all(carriers(c) == ["1", "1"] for c in servers(project))


class Fault:
    """`zkchaos fault`, while it lasts."""

    def __init__(self, *words: str) -> None:
        name = f"ZKCHAOS_ATTACH_TEST={secrets.token_hex(8)}"
        self.marker = name
        key, _, value = name.partition("=")
        self.process = subprocess.Popen(
            command("fault", *words),
            env={**os.environ, key: value, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_it_bites(self) -> None:
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("  during: "):
                return
        raise AssertionError((said, self.process.stderr.read() if self.process.stderr else ""))

"""Things on a real Docker engine, for tests of what becomes of them: made without any image from elsewhere."""

from __future__ import annotations

import io
import os
import secrets
import struct
import subprocess
import tarfile
from collections.abc import Mapping

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from harness.testbed.helper import engine_pid
from tests.integration.conftest import command

#: A Linux program that waits for ever, so that a container lives without a system in its image: an ELF header, one
#: segment, and `again: pause(); goto again`.
_CODE = bytes.fromhex("b822000000 0f05 ebf7")
_BASE = 0x400000
_HEADERS = 64 + 56


def _idle_program() -> bytes:
    size = _HEADERS + len(_CODE)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + _CODE


class Things:
    """What one test makes on the engine; everything of it is gone after `clear`."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.prefix = f"zkchaos-test-{os.getpid()}-{secrets.token_hex(3)}"
        self._image: str | None = None
        self._count = 0

    @property
    def image(self) -> str:
        """The name of an image of a few hundred bytes whose containers wait until they are killed."""
        if self._image is None:
            if self.client.version()["Arch"] != "amd64":
                pytest.skip("the little image of this test is made for amd64 alone")
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as tar:
                entry = tarfile.TarInfo("idle")
                entry.size, entry.mode = len(_idle_program()), 0o755
                tar.addfile(entry, io.BytesIO(_idle_program()))
            name = f"{self.prefix}:idle"
            self.client.api.import_image_from_data(
                file.getvalue(), repository=self.prefix, tag="idle", changes=['CMD ["/idle"]']
            )
            self._image = name
        return self._image

    def name(self) -> str:
        self._count += 1
        return f"{self.prefix}-{self._count}"

    def container(self, labels: Mapping[str, str], network: str | None = None) -> str:
        """Start one; its name."""
        name = self.name()
        self.client.containers.run(
            self.image,
            name=name,
            labels=dict(labels),
            detach=True,
            **({"network": network} if network else {"network_mode": "none"}),
        )
        return name

    def network(self, labels: Mapping[str, str], subnet: str) -> str:
        """Make one; its name."""
        name = self.name()
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
        self.client.networks.create(name, labels=dict(labels), internal=True, ipam=pool)
        return name

    def volume(self, labels: Mapping[str, str]) -> str:
        """Make one; its name."""
        return str(self.client.volumes.create(self.name(), labels=dict(labels)).name)

    def names(self) -> set[str]:
        """Of everything of this test that is there."""
        api = self.client.api
        all_names = [
            *(name.lstrip("/") for c in api.containers(all=True) for name in c["Names"] or []),
            *(n["Name"] for n in api.networks()),
            *(v["Name"] for v in api.volumes()["Volumes"] or []),
        ]
        return {name for name in all_names if name.startswith(self.prefix)}

    def clear(self) -> None:
        """Remove it all."""
        api = self.client.api
        for container in api.containers(all=True):
            if any(name.lstrip("/").startswith(self.prefix) for name in container["Names"] or []):
                api.remove_container(container["Id"], force=True, v=True)
        for network in api.networks():
            if network["Name"].startswith(self.prefix):
                api.remove_network(network["Id"])
        for volume in api.volumes()["Volumes"] or []:
            if volume["Name"].startswith(self.prefix):
                api.remove_volume(volume["Name"], force=True)
        if self._image:
            api.remove_image(self._image, force=True)


def inside(engine: docker.DockerClient, *words: str) -> list[str]:
    """What `ip` says in the engine's network namespace; nothing where that cannot be looked into."""
    if not engine_pid(engine) or os.geteuid() != 0:
        return []
    words = (command("nsenter"), f"--net=/proc/{engine_pid(engine)}/ns/net", command("ip"), *words)
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    return sorted(line.replace("tentative", "") for line in said.splitlines())


def ports_of(engine: docker.DockerClient, bridge: str) -> list[str]:
    """The interfaces on a bridge, as `inside` sees them."""
    return [line.split(": ")[1] for line in inside(engine, "-o", "link", "show", "master", bridge)]

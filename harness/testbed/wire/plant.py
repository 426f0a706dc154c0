"""What a network is made of, and the containers that come and go."""

from __future__ import annotations

import msgspec


class NicSpec(msgspec.Struct, frozen=True):
    """A NIC to make."""

    switch: str
    address: str
    prefix_length: int


class HostSpec(msgspec.Struct, frozen=True):
    """A host: a network namespace with a loopback and NICs, to be made, or a container's that comes with `Join`."""

    name: str
    nics: tuple[NicSpec, ...]
    container: bool = False


class EngineSpec(msgspec.Struct, frozen=True):
    """Where the switches are the bridges of a Docker engine, in its network namespace."""

    #: The bridge's interface name, by switch.
    bridges: dict[str, str]
    #: A process in the engine's network namespace, as the machine's first pid namespace counts; None: that is the
    #: namespace that the agent was started in.
    pid: int | None
    #: Begins the names of the ports that are made, so that two runs never collide; at most 8 characters.
    tag: str


class Build(msgspec.Struct, frozen=True, tag=True):
    """Make switches and hosts. Sent once."""

    switches: tuple[str, ...]
    hosts: tuple[HostSpec, ...]
    #: None: the switches are made, too.
    engine: EngineSpec | None = None


class Join(msgspec.Struct, frozen=True, tag=True):
    """A container runs: its network namespace is the host's from now on; links that are cut stay cut."""

    host: str
    #: Of its first process, as the machine's first pid namespace counts.
    pid: int


class Leave(msgspec.Struct, frozen=True, tag=True):
    """A container has ended: its host is down until it joins again."""

    host: str

"""What a topology file may contain, key by key. The meaning of it all together is checked in `loader.py`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from harness.topology.model import Setting
from harness.topology.toml_document import Table, refused, value_text

MAX_SWITCHES = 8
MAX_SERVERS = 21
MAX_CLIENT_HOSTS = 16
MAX_SERVER_ID = 99

#: The version of ZooKeeper of a topology that names none: the newest 3.9 that the harness knows.
DEFAULT_VERSION = "3.9"

NAME_FORM = "a lower-case letter, then at most nine of a-z, 0-9 and -"
VERSION_FORM = (
    'a release of ZooKeeper 3, such as "3.9" (its newest) or "3.8.4"; "directory:PATH", "directory", "debian"'
)

_NAME = re.compile(r"[a-z][a-z0-9-]{0,9}", re.ASCII)
_RELEASE = re.compile(r"(3)\.(\d{1,2})(\.(x|\d{1,3}(-[A-Za-z0-9.]{1,20})?))?", re.ASCII)
_INSTALLED = re.compile(r"debian|directory(:.{1,500})?")
_SETTING_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)

#: Names with a meaning of their own: roles of fault targets, and interfaces that every Linux host has or reserves.
_RESERVED_NAMES = frozenset({"leader", "random", "minority", "majority", "all", "default", "lo"})
_SERVER_HOST = re.compile(r"zk\d+")

#: Lines of zoo.cfg that the harness writes itself, or that it could not honour; each with the reason.
_REFUSED_SETTINGS = {
    "dataDir": "the harness writes it: the data lies in the run folder",
    "dataLogDir": "the harness writes it: the transaction log lies in the run folder",
    "clientPort": "the harness writes it: every server has a host, and so port 2181, of its own",
    "clientPortAddress": "the harness writes it: a server listens on all its addresses",
    "dynamicConfigFile": "the harness writes it",
    "initialConfig": "the harness writes the configuration of the ensemble",
    "4lw.commands.whitelist": "the harness writes it: it reads every server's state by the admin words",
    "multiAddress.enabled": "write multi_address = true or false in [zookeeper]; this line alone stops the server",
    "peerType": 'write role = "observer" in a [[server]]',
}
_REFUSED_PREFIXES = {
    "server.": "the harness writes it from the addresses of this topology",
    "group.": "hierarchical quorums are not supported: a quorum is a majority of the participants",
    "weight.": "hierarchical quorums are not supported: a quorum is a majority of the participants",
}
#: Settings whose value the harness itself calculates with.
_NUMBERS = {
    "tickTime": (50, 60_000),
    "initLimit": (1, 10_000),
    "syncLimit": (1, 10_000),
    "minSessionTimeout": (1, 86_400_000),
    "maxSessionTimeout": (1, 86_400_000),
}


def check_name(value: object) -> str:
    """A name of a switch or a client host."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise refused("this is not a name")
    if _SERVER_HOST.fullmatch(value):
        raise refused("zk and a number is the name of a server's host")
    if value in _RESERVED_NAMES:
        raise refused("this word is reserved")
    return value


def check_version(value: object) -> str:
    """Where the servers come from: a release by its version, or what is installed, whatever version that is."""
    if isinstance(value, str) and (_RELEASE.fullmatch(value) or (_INSTALLED.fullmatch(value) and value.isprintable())):
        return value
    raise refused("this is not a version")


def release_line(version: str) -> tuple[int, int] | None:
    """`(3, 9)` for `3.9.5` and `3.9`; None for what is installed."""
    match = _RELEASE.fullmatch(version)
    return (int(match[1]), int(match[2])) if match else None


def _check_settings(value: object) -> dict[str, Setting]:
    """Lines of zoo.cfg. A key with dots that was not quoted arrives as nested tables and is put together again."""
    if not isinstance(value, dict):
        raise refused("this is not a table")
    settings: dict[str, Setting] = {}
    pending: list[tuple[str, object]] = [(str(key), item) for key, item in value.items()]
    while pending:
        key, item = pending.pop(0)
        if isinstance(item, dict) and len(key) <= 80:
            pending.extend((f"{key}.{inner}", below) for inner, below in item.items())
            continue
        if key in settings:
            raise refused("this key is given twice", key=key)
        settings[key] = _setting(key, item)
    return settings


def _setting(key: str, value: object) -> Setting:
    if not _SETTING_KEY.fullmatch(key):
        raise refused("this is not a key of zoo.cfg", key=key)
    reason = _REFUSED_SETTINGS.get(key) or next((r for p, r in _REFUSED_PREFIXES.items() if key.startswith(p)), None)
    if reason:
        raise refused(f"this line of zoo.cfg is refused: {reason}", key=key)
    shown = value_text(value)
    if key in _NUMBERS:
        low, high = _NUMBERS[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise refused(f"found {shown}, and only an integer from {low} to {high} will do", key=key)
    if not isinstance(value, str | int | bool):
        raise refused(f"found {shown}, which is neither a string, an integer, true nor false", key=key)
    if isinstance(value, str) and (len(value) > 500 or not value.isprintable()):
        raise refused(f"found {shown}, which is not one line of at most 500 printable characters", key=key)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise refused(f"found {shown}, which does not fit into 64 bits", key=key)
    return value


def _check_jvm(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("-") or len(value) > 500 or not value.isprintable():
        raise refused("this is not an option of the JVM")
    if value.startswith("-Dzookeeper.multiAddress.enabled"):
        raise refused("write multi_address = true or false in [zookeeper] instead")
    if value in ("-cp", "-classpath", "--class-path", "-jar"):
        raise refused("the harness gives the class path itself")
    return value


Name = Annotated[str, PlainValidator(check_name)]
Version = Annotated[str, PlainValidator(check_version)]
Settings = Annotated[dict[str, Setting], PlainValidator(_check_settings)]
JvmOption = Annotated[str, PlainValidator(_check_jvm)]

_SWITCH_LIST = "a list of names of this file's switches, each once"
_ADDRESSES = 'a table of switch and address, such as { net1 = "10.77.1.9" }; `.N` and `.100+k` where it says nothing'


class SwitchTable(Table):
    """`[[switch]]`."""

    name: Name = Field(description=NAME_FORM)
    subnet: str | None = Field(default=None, description='an IPv4 network, such as "10.77.1.0/24"')


class ServerTable(Table):
    """`[[server]]`."""

    id: int = Field(ge=1, le=MAX_SERVER_ID, description=f"an integer from 1 to {MAX_SERVER_ID}")
    switches: list[str] = Field(min_length=1, description=_SWITCH_LIST)
    addresses: dict[str, str] = Field(default_factory=dict, description=_ADDRESSES)
    role: Literal["participant", "observer"] = Field(default="participant", description='"participant", "observer"')
    version: Version | None = Field(default=None, description=VERSION_FORM)


class ClientHostTable(Table):
    """`[[client_host]]`."""

    name: Name = Field(description=NAME_FORM)
    switches: list[str] = Field(min_length=1, description=_SWITCH_LIST)
    addresses: dict[str, str] = Field(default_factory=dict, description=_ADDRESSES)


class ZooKeeperTable(Table):
    """`[zookeeper]`."""

    version: Version = Field(default=DEFAULT_VERSION, description=VERSION_FORM)
    settings: Settings = Field(
        default_factory=dict, description="lines of zoo.cfg that the harness does not write itself"
    )
    multi_address: bool | None = Field(default=None, description="true, false")
    jvm: list[JvmOption] = Field(
        default_factory=list, max_length=32, description='a list of at most 32 options, such as ["-Xmx512m"]'
    )


class ProxiesTable(Table):
    """`[proxies]`."""

    clients: bool = Field(default=False, description="true, false")
    servers: bool = Field(default=False, description="true, false")


class TopologyTable(Table):
    """The whole file."""

    title: str = Field(min_length=1, max_length=200, description="one line that says what it is")
    zookeeper: ZooKeeperTable = Field(default_factory=ZooKeeperTable, description="a table")
    switch: list[SwitchTable] = Field(
        min_length=1, max_length=MAX_SWITCHES, description=f"from 1 to {MAX_SWITCHES} tables [[switch]]"
    )
    server: list[ServerTable] | None = Field(
        default=None, min_length=1, max_length=MAX_SERVERS, description=f"from 1 to {MAX_SERVERS} tables [[server]]"
    )
    servers: int | None = Field(
        default=None, ge=1, le=MAX_SERVERS, description=f"a number of servers, from 1 to {MAX_SERVERS}"
    )
    client_host: list[ClientHostTable] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CLIENT_HOSTS,
        description=f"from 1 to {MAX_CLIENT_HOSTS} tables [[client_host]]",
    )
    clients: int | None = Field(
        default=None, ge=1, le=MAX_CLIENT_HOSTS, description=f"a number of client hosts, from 1 to {MAX_CLIENT_HOSTS}"
    )
    proxies: ProxiesTable = Field(
        default_factory=ProxiesTable, description="a table, such as { clients = true, servers = true }"
    )

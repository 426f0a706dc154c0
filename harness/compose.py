"""A topology as a Compose file: one service per server, one bridge network per switch, every address fixed.

The text is a pure function of the topology. The servers are configured by the environment of the official image
`zookeeper`, which comes to the zoo.cfg that `harness.zookeeper.config` writes for the other testbeds. The files in
`compose/` are what this module writes, and a test fails if they differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from harness.errors import TopologyError
from harness.topology.addresses import gateway_address
from harness.topology.model import CLIENT_PORT, Nic, Server, Topology
from harness.topology.proxies import refuse_proxies
from harness.topology.schema import release_line
from harness.topology.toml_document import one_line, value_text
from harness.zookeeper.config import DEFAULTS, dynamic_config, setting_text, system_properties
from harness.zookeeper.java import JVM_FLAGS, PROPERTIES
from harness.zookeeper.lock import locked_version

#: Server N is published on this port + N of the loopback.
_FIRST_PORT = 21810

#: Lines of zoo.cfg that the entry point always writes, and the variables that it takes their values from.
_VARIABLES = {
    "tickTime": "ZOO_TICK_TIME",
    "initLimit": "ZOO_INIT_LIMIT",
    "syncLimit": "ZOO_SYNC_LIMIT",
    "maxClientCnxns": "ZOO_MAX_CLIENT_CNXNS",
    "standaloneEnabled": "ZOO_STANDALONE_ENABLED",
    "admin.enableServer": "ZOO_ADMINSERVER_ENABLED",
    "autopurge.snapRetainCount": "ZOO_AUTOPURGE_SNAPRETAINCOUNT",
    "autopurge.purgeInterval": "ZOO_AUTOPURGE_PURGEINTERVAL",
    "4lw.commands.whitelist": "ZOO_4LW_COMMANDS_WHITELIST",
}

_ASK = f"exec 3<>/dev/tcp/127.0.0.1/{CLIENT_PORT} || exit 1; printf srvr >&3; while read -t 2 -r line <&3; do "
#: Bash that prints what the server answers to `srvr` on its own loopback; the image need not have `nc`.
PRINT_STATUS = _ASK + 'echo "$line"; done'
#: Bash that succeeds if it serves; without a quorum it answers, too, but names no mode.
_IS_SERVING = _ASK + "[[ $line == Mode:* ]] && exit 0; done; exit 1"

#: Words that a YAML reader takes for something else than a string.
_NO_STRINGS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])


@dataclass(frozen=True)
class _Service:
    host: str
    id: int
    image: str
    nics: tuple[Nic, ...]
    port: int


@dataclass(frozen=True)
class _Network:
    switch: str
    subnet: IPv4Network
    gateway: IPv4Address


def compose_file(topology: Topology) -> str:
    """The text of the topology's Compose file.

    Client hosts are not in it: who attaches to the ensemble makes those.

    Raises:
        TopologyError: the official image cannot do what the topology asks for.
        UsageError: the topology names a line of versions of which none is known.
    """
    refuse_proxies(topology, "a Compose file")
    settings = {**DEFAULTS, **topology.zookeeper.settings}
    extra = {key: f"{key}={setting_text(value)}" for key, value in settings.items() if key not in _VARIABLES}
    for key, word in extra.items():
        _refuse_blanks(topology, f"zookeeper.settings.{key}", word)
    for word in topology.zookeeper.jvm:
        _refuse_blanks(topology, "zookeeper.jvm", word)
    jvm = (*JVM_FLAGS, *PROPERTIES, *system_properties(topology), *topology.zookeeper.jvm)
    return _template().render(
        title=one_line(topology.title),
        name=topology.name,
        project=project_name(topology.name),
        is_serving=_escaped(_IS_SERVING),
        servers_list=dynamic_config(topology).splitlines(),
        variables={_VARIABLES[k]: _escaped(setting_text(v)) for k, v in settings.items() if k in _VARIABLES},
        extra=_all_escaped(extra.values()),
        jvm=_all_escaped(jvm),
        client_port=CLIENT_PORT,
        services=[_service(topology, server) for server in topology.servers],
        networks=[
            _Network(switch.name, switch.subnet, gateway_address(topology, switch)) for switch in topology.switches
        ],
    )


def project_name(topology_name: str) -> str:
    """The Compose project's name: `zkchaos-dual-net`."""
    return "zkchaos-" + re.sub(r"[^a-z0-9_-]", "-", topology_name.lower())


def published_port(server: Server) -> int:
    """The port of the loopback that leads to the server's client port: 21811 for server 1."""
    return _FIRST_PORT + server.id


def image_variables(topology: Topology) -> Mapping[str, str]:
    """The variables that replace the images of the Compose file, each with the version it is for, as declared."""
    return {_variable(server): server.version or topology.zookeeper.version for server in topology.servers}


def _service(topology: Topology, server: Server) -> _Service:
    image = f"${{{_variable(server)}{_otherwise(server.version or topology.zookeeper.version)}}}"
    return _Service(server.host, server.id, image, server.nics, published_port(server))


def _variable(server: Server) -> str:
    """`ZOOKEEPER_IMAGE`, or `ZOOKEEPER_IMAGE_3_8` for a server that has version 3.8 of its own."""
    return "_".join(["ZOOKEEPER_IMAGE", *re.findall(r"[A-Z0-9]+", (server.version or "").upper())])


def _otherwise(version: str) -> str:
    """What Compose does where the variable is not set: the official image; of what is installed here there is none."""
    if release_line(version) is None:
        return ":?there is no official image of what is installed here"
    full = version if re.fullmatch(r"\d+\.\d+\.\d.*", version) else locked_version(version).version
    return f":-zookeeper:{full}"


def _refuse_blanks(topology: Topology, key: str, word: str) -> None:
    if " " in word:
        raise TopologyError(
            f"{value_text(word)} has a blank in it, at which the entry point of ZooKeeper's image splits",
            where=f"{topology.name}:{key}",
            next_step="leave it out to have this topology on a Docker engine",
        )


def _escaped(text: str) -> str:
    """With dollar signs that Compose does not take for variables."""
    return text.replace("$", "$$")


def _all_escaped(words: Iterable[str]) -> list[str]:
    return [_escaped(word) for word in words]


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("harness"),
        undefined=StrictUndefined,
        autoescape=False,  # it is not HTML; what YAML needs are the two filters
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({"json": _json, "scalar": _scalar})
    return environment.get_template("compose.yml.j2")


def _json(text: str) -> str:
    """A string in double quotes, as JSON and YAML have it."""
    return json.dumps(text, ensure_ascii=False)


def _scalar(name: str) -> str:
    """A name, in quotes only where YAML needs them."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name) and name.lower() not in _NO_STRINGS
    return name if plain else _json(name)

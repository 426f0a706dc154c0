"""Compose files: that those of the library are what their topologies give, and that any topology gives a sound one."""

import re
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.compose import compose_file, image_variables, project_name
from harness.errors import TopologyError
from harness.history.folder import ServerFolder
from harness.testbed.engine import LABEL_HOST, LABEL_SWITCH, LABEL_TOPOLOGY
from harness.topology.addresses import client_nics, default_subnet, server_nics
from harness.topology.library import library_names
from harness.topology.loader import load_topology, parse_topology
from harness.topology.model import ClientHost, Role, Server, Setting, Switch, Topology, ZooKeeperOptions
from harness.zookeeper.config import dynamic_config, static_config, system_properties

WRITTEN = Path(harness.__file__).parent.parent / "compose"

#: The one written in C is ten times as fast; not every installation has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: What Compose makes of a file is a tree of text, numbers and truth values; tests pick from it by its known shape.
Document = dict[str, Any]


def resolved(text: str, environment: dict[str, str] | None = None) -> Document:
    """The document as Compose understands it: merged, and with its variables replaced."""

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replace(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        return interpolated(value, environment or {}) if isinstance(value, str) else value

    document = replace(yaml.load(text, _LOADER))
    assert isinstance(document, dict)
    return document


def interpolated(text: str, environment: dict[str, str]) -> str:
    """`$$` is a dollar sign, `${NAME:-default}` and `${NAME:?message}` are variables, and there are no others."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["operator"] == ":-":
            return environment.get(match["name"], match["rest"])
        return environment[match["name"]]

    pattern = r"\$\$|\$\{(?P<name>[A-Z0-9_]+)(?P<operator>:-|:\?)(?P<rest>[^}]*)\}"
    assert "$" not in re.sub(pattern, "", text)
    return re.sub(pattern, one, text)


def entry_point(environment: dict[str, str]) -> dict[str, str]:
    """The zoo.cfg that the official image's entry point writes, as the server reads it: of a key, the last line."""
    lines = [
        "dataDir=/data",
        "dataLogDir=/datalog",
        f"tickTime={environment['ZOO_TICK_TIME']}",
        f"initLimit={environment['ZOO_INIT_LIMIT']}",
        f"syncLimit={environment['ZOO_SYNC_LIMIT']}",
        f"autopurge.snapRetainCount={environment.get('ZOO_AUTOPURGE_SNAPRETAINCOUNT', '3')}",
        f"autopurge.purgeInterval={environment.get('ZOO_AUTOPURGE_PURGEINTERVAL', '0')}",
        f"maxClientCnxns={environment['ZOO_MAX_CLIENT_CNXNS']}",
        f"standaloneEnabled={environment['ZOO_STANDALONE_ENABLED']}",
        f"admin.enableServer={environment['ZOO_ADMINSERVER_ENABLED']}",
        *environment["ZOO_SERVERS"].split(),
        f"4lw.commands.whitelist={environment['ZOO_4LW_COMMANDS_WHITELIST']}",
        *environment.get("ZOO_CFG_EXTRA", "").split(),
    ]
    return settings_of("\n".join(lines))


def settings_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def expected_settings(topology: Topology) -> dict[str, str]:
    """What the other testbeds write, with the official image's folders and its two defaults, which are ZooKeeper's."""
    written = settings_of(static_config(topology, ServerFolder(Path("/x"))) + dynamic_config(topology))
    defaults = {"autopurge.snapRetainCount": "3", "autopurge.purgeInterval": "0"}
    del written["dynamicConfigFile"]
    return {**defaults, **written, "dataDir": "/data", "dataLogDir": "/datalog"}


_words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
_switch_names = st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True) | st.sampled_from(
    ["y", "no", "on", "null", "net1"]
)
_settings = st.dictionaries(
    st.sampled_from(
        ["tickTime", "autopurge.purgeInterval", "maxClientCnxns", "jute.maxbuffer", "snapCount", "x-y_z.0"]
    ),
    _words | st.booleans() | st.integers(0, 10**6),
    max_size=4,
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    names = draw(st.lists(_switch_names, min_size=1, max_size=4, unique=True))
    switches = [Switch(name, default_subnet(number)) for number, name in enumerate(names, start=1)]
    plugged = st.lists(st.sampled_from(switches), min_size=1, unique_by=lambda s: s.name)
    servers = tuple(
        Server(
            number,
            server_nics(f"zk{number}", number, draw(plugged)),
            role=draw(st.sampled_from(Role)),
            version=draw(st.sampled_from([None, None, "3.8", "3.9.2", "debian"])),
        )
        for number in draw(st.lists(st.integers(1, 99), min_size=1, max_size=7, unique=True))
    )
    settings: dict[str, Setting] = draw(_settings)
    return Topology(
        name=draw(st.sampled_from(["dual-net", "no", "1.5", "Mine_2", "0x1F"])),
        title=draw(st.text(min_size=1, max_size=50)),
        switches=tuple(switches),
        servers=servers,
        client_hosts=(ClientHost("c1", client_nics("c1", 1, switches)),),
        zookeeper=ZooKeeperOptions(
            version=draw(st.sampled_from(["3.9", "3.9.5", "3.9.x", "3.8.4", "directory:/opt/my zookeeper"])),
            settings=settings,
            multi_address=draw(st.booleans()),
            jvm=tuple(f"-D{word}" for word in draw(st.lists(_words, max_size=3))),
        ),
    )


def images(topology: Topology) -> dict[str, str]:
    return {name: f"image-of-{version}" for name, version in image_variables(topology).items()}


@pytest.mark.parametrize("name", ["dual-net", "dual-net-five", "single-net"])
def test_the_library_has_a_compose_file(name: str) -> None:
    assert (WRITTEN / f"{name}.yml").is_file()


@pytest.mark.parametrize("path", sorted(WRITTEN.glob("*.yml")), ids=lambda path: path.name)
def test_a_written_file_is_what_its_topology_gives(path: Path) -> None:
    expected = compose_file(load_topology(path.stem))
    assert path.read_text(encoding="utf-8") == expected, f"write it again: zkchaos compose {path.stem} --write"


@given(topologies())
def test_every_nic_has_its_address_and_no_address_is_given_twice(topology: Topology) -> None:
    document = resolved(compose_file(topology), images(topology))
    found = {
        (host, switch): IPv4Address(network["ipv4_address"])
        for host, service in document["services"].items()
        for switch, network in service["networks"].items()
    }
    assert found == {(n.host, n.switch): n.address for s in topology.servers for n in s.nics}
    pools = {name: network["ipam"]["config"] for name, network in document["networks"].items()}
    assert {name: IPv4Network(pool["subnet"]) for name, (pool,) in pools.items()} == {
        s.name: s.subnet for s in topology.switches
    }
    gateways = [IPv4Address(pool["gateway"]) for (pool,) in pools.values()]
    everyone = Counter([*gateways, *(nic.address for nic in topology.nics())])
    assert everyone.most_common(1)[0][1] == 1
    for switch, gateway in zip(topology.switches, gateways, strict=True):
        assert gateway in switch.subnet
        assert gateway != switch.subnet.broadcast_address


def test_the_gateway_gives_way_to_a_host_that_has_its_address() -> None:
    topology = parse_topology(
        """
        title = "T"
        [[switch]]
        name = "net1"
        [[server]]
        id = 1
        switches = ["net1"]
        addresses = { net1 = "10.77.1.254" }
        """,
        "t",
    )
    (pool,) = resolved(compose_file(topology))["networks"]["net1"]["ipam"]["config"]
    assert pool["gateway"] == "10.77.1.253"


@given(topologies())
def test_the_entry_point_comes_to_the_same_configuration_as_the_other_testbeds(topology: Topology) -> None:
    services = resolved(compose_file(topology), images(topology))["services"]
    for server in topology.servers:
        environment = services[server.host]["environment"]
        assert all(isinstance(value, str) for value in environment.values())
        assert entry_point(environment) == expected_settings(topology)
        assert environment["ZOO_MY_ID"] == str(server.id)
        flags = environment["SERVER_JVMFLAGS"].split()
        assert tuple(flags[-len(topology.zookeeper.jvm) :] if topology.zookeeper.jvm else ()) == topology.zookeeper.jvm
        assert set(system_properties(topology)) <= set(flags)


@given(topologies())
def test_nothing_is_open_to_others_and_nothing_is_privileged(topology: Topology) -> None:
    document = resolved(compose_file(topology), images(topology))
    ports = []
    for service in document["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["user"] == "1000:1000"
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}
        sources = [volume.split(":")[0] for volume in service["volumes"]]
        assert set(sources) <= set(document["volumes"])  # none is a folder of the machine, or the engine's socket
        ports += service["ports"]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len(set(ports)) == len(topology.servers)


@given(topologies())
def test_everything_is_labelled_and_nothing_as_a_run_s(topology: Topology) -> None:
    document = resolved(compose_file(topology), images(topology))
    for host, service in document["services"].items():
        assert service["labels"] == {LABEL_TOPOLOGY: topology.name, LABEL_HOST: host}
    for name, network in document["networks"].items():
        assert network["labels"] == {LABEL_TOPOLOGY: topology.name, LABEL_SWITCH: name}
    for volume in document["volumes"].values():
        assert volume["labels"][LABEL_TOPOLOGY] == topology.name
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", document["name"])
    assert document["name"] == project_name(topology.name)


@pytest.mark.parametrize("name", [name for name in library_names("topologies") if name != "proxied"])
def test_the_health_check_needs_bash_alone(name: str) -> None:
    for service in resolved(compose_file(load_topology(name)))["services"].values():
        check = service["healthcheck"]
        *shell, script = check["test"]
        assert shell == ["CMD", "bash", "-c"]
        commands = re.findall(r"(?:^|; |\|\| |&& |do )([a-z\[]+)", script)
        assert set(commands) <= {"exec", "exit", "printf", "while", "read", "done", "do", "[["}
        assert check["interval"] == "1s"


def image_of(server: str, source: str) -> str:
    services = yaml.safe_load(compose_file(parse_topology(source, "t")))["services"]
    return str(services[server]["image"])


_TWO = 'title = "T"\n[[switch]]\nname = "net1"\n[[server]]\nid = 1\nswitches = ["net1"]\n'


def test_the_image_is_the_official_one_of_a_full_version_unless_a_variable_names_another() -> None:
    assert image_of("zk1", _TWO) == "${ZOOKEEPER_IMAGE:-zookeeper:3.9.5}"
    assert image_of("zk1", f'{_TWO}[zookeeper]\nversion = "3.8.1"') == "${ZOOKEEPER_IMAGE:-zookeeper:3.8.1}"


def test_a_server_of_another_version_has_a_variable_of_its_own() -> None:
    source = f'{_TWO}[[server]]\nid = 2\nswitches = ["net1"]\nversion = "3.8.4"'
    assert image_of("zk1", source) == "${ZOOKEEPER_IMAGE:-zookeeper:3.9.5}"
    assert image_of("zk2", source) == "${ZOOKEEPER_IMAGE_3_8_4:-zookeeper:3.8.4}"
    assert image_variables(parse_topology(source, "t")) == {"ZOOKEEPER_IMAGE": "3.9", "ZOOKEEPER_IMAGE_3_8_4": "3.8.4"}


def test_of_an_installed_version_there_is_no_official_image() -> None:
    assert image_of("zk1", f'{_TWO}[zookeeper]\nversion = "debian"').startswith("${ZOOKEEPER_IMAGE:?")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('settings = { "quorum.cnxn" = "a b" }', "zookeeper.settings.quorum.cnxn"),
        ('jvm = ["-Dx=a b"]', "zookeeper.jvm"),
    ],
)
def test_what_the_entry_point_would_split_is_refused(lines: str, key: str) -> None:
    topology = parse_topology(f"{_TWO}[zookeeper]\n{lines}", "t")
    with pytest.raises(TopologyError) as caught:
        compose_file(topology)
    assert caught.value.where == f"t:{key}"
    assert "a b" in caught.value.what


def test_proxies_are_refused() -> None:
    with pytest.raises(TopologyError, match="a Compose file has no proxies, and topology proxied declares some"):
        compose_file(load_topology("proxied"))

"""What is found running becomes a topology, or is refused in words; whatever people have set up."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import TestbedError
from harness.topology.model import Role, Topology
from harness.zookeeper.found_config import (
    Member,
    config_path,
    hindrance,
    id_of,
    members_of,
    number_of,
    settings_of,
    version_of,
    without_secrets,
)
from harness.zookeeper.found_topology import PlacedNetwork, PlacedServer, free_address, switch_names, topology_of

LINES = {f"server.{n}": f"zoo{n}:2888:3888;2181" for n in (1, 2, 3)}
JAVA = (
    "java -Xmx1000m -cp /apache-zookeeper/lib/zookeeper-3.9.5.jar:/conf "
    "org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg"
)


def network(key: str, subnet: str, *names: str, label: str = "", pool: str | None = None) -> PlacedNetwork:
    found = IPv4Network(subnet)
    return PlacedNetwork(
        key,
        names or (key,),
        found,
        frozenset({found.network_address + 1}),
        label,
        IPv4Network(pool) if pool is not None else None,
    )


def server(number: int, config: dict[str, str] | None = None, **addresses: str) -> PlacedServer:
    return PlacedServer(
        number, {**LINES, **(config or {})}, {key: IPv4Address(address) for key, address in addresses.items()}
    )


# --- a server's own words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (JAVA, "/conf/zoo.cfg"),
        (JAVA.replace("/conf/zoo.cfg", "/opt/bitnami/zookeeper/conf/zoo.cfg"), "/opt/bitnami/zookeeper/conf/zoo.cfg"),
        ("bash /docker-entrypoint.sh zkServer.sh start-foreground", None),
        ("java org.apache.zookeeper.ZooKeeperMain -server zoo1", None),
        ("java org.apache.zookeeper.server.quorum.QuorumPeerMain", None),
        ("", None),
    ],
)
def test_a_server_is_known_by_its_command_line(line: str, path: str | None) -> None:
    assert config_path(line) == path


@pytest.mark.parametrize(
    ("line", "image", "version"),
    [
        (JAVA, "mine:latest", "3.9.5"),
        (JAVA.replace("3.9.5", "3.10.0-beta"), "mine", "3.10.0"),
        ("", "zookeeper:3.8.4", "3.8.4"),
        ("", "registry.local:5000/zookeeper", ""),
        ("", "somebodys/zoo:1.2.3", ""),
        ("", "zookeeper:3.9", ""),
        ("java -cp /usr/share/java/zookeeper.jar", "debian", ""),
    ],
)
def test_the_jar_says_the_version_before_the_image_does(line: str, image: str, version: str) -> None:
    assert version_of(line, image) == version


def test_zoo_cfg_is_read_as_java_reads_it() -> None:
    text = (
        "# a = b\n! c = d\n\ntickTime=2000\n  initLimit : 5\nsyncLimit 2\ndataDir = /d a=b\r\nserver.1=a:1:2;3\nx\nx="
    )
    assert settings_of(text) == {
        "tickTime": "2000",
        "initLimit": "5",
        "syncLimit": "2",
        "dataDir": "/d a=b",
        "server.1": "a:1:2;3",
        "x": "",
    }


def test_the_servers_of_a_configuration() -> None:
    settings = {
        "server.1": "zoo1:2888:3888;2181",
        "server.2": "10.0.0.1:2888:3888|10.0.1.1:2888:3888:participant;0.0.0.0:2181",
        "server.3": "zoo3:2888:3888:observer",
        "server.4": "[fd00::4]:2888:3888",
        "server.x": "no",
        "servers.5": "no",
    }
    assert members_of(settings) == {
        1: Member(("zoo1",), False, "2181"),
        2: Member(("10.0.0.1", "10.0.1.1"), False, "0.0.0.0:2181"),
        3: Member(("zoo3",), True, ""),
        4: Member(("fd00::4",), False, ""),
    }


@given(st.text(max_size=300))
def test_no_text_is_too_strange(text: str) -> None:
    settings = settings_of(text)
    for number, member in members_of(settings).items():
        assert 0 <= number < 1000
        hindrance(settings, member)
    hindrance(settings, None)
    for key in settings:
        number_of(settings, key)
    id_of(text)
    config_path(text)
    version_of(text, text)


@pytest.mark.parametrize(("text", "number"), [("1\n", 1), (" 12 ", 12), ("", None), ("²", None), ("1 2", None)])
def test_the_number_of_a_server(text: str, number: int | None) -> None:
    assert id_of(text) == number


@pytest.mark.parametrize(
    ("settings", "client", "complaint"),
    [
        ({"clientPort": "2181"}, "", None),
        ({}, "2181", None),
        ({"clientPort": "9"}, "0.0.0.0:2181", None),
        ({"clientPort": "2181", "clientPortAddress": "0.0.0.0"}, "", None),
        ({}, "[::]:2181", None),
        ({}, "2182", 'port "2182"'),
        ({"clientPort": "21811"}, "", 'port "21811"'),
        ({}, "", "no plain port"),
        ({"secureClientPort": "2281"}, "", "no plain port"),
        ({}, "10.0.0.1:2181", '"10.0.0.1" alone'),
        ({"4lw.commands.whitelist": "mntr, ruok"}, "2181", "srvr"),
        ({"4lw.commands.whitelist": "mntr, srvr"}, "2181", None),
        ({"4lw.commands.whitelist": "*"}, "2181", None),
        ({"group.1": "1:2:3"}, "2181", "hierarchical"),
    ],
)
def test_what_the_harness_cannot_work_with(settings: dict[str, str], client: str, complaint: str | None) -> None:
    found = hindrance(settings, Member(("zoo1",), False, client))
    if complaint is None:
        assert found is None
    else:
        assert found is not None
        assert complaint in found[0]


def test_no_secret_goes_to_a_run_folder() -> None:
    kept = without_secrets({"ssl.keyStore.password": "x", "ssl.quorum.trustStore.passwordPath": "y", "tickTime": "1"})
    assert kept == {"ssl.keyStore.password": "(not kept)", "ssl.quorum.trustStore.passwordPath": "(not kept)"} | {
        "tickTime": "1"
    }


# --- as a topology --------------------------------------------------------------------------------------------


def test_three_servers_on_the_engines_own_network() -> None:
    found = topology_of(
        "shop",
        [server(n, {"tickTime": "2000", "syncLimit": "2"}, a=f"172.18.0.{9 - n}") for n in (1, 2, 3)],
        [network("a", "172.18.0.0/16", "default", "shop_default")],
    )
    assert found.name == "shop"
    assert found.switch_names == ("net1",)
    assert [str(s.nics[0].address) for s in found.servers] == ["172.18.0.8", "172.18.0.7", "172.18.0.6"]
    assert str(found.client_hosts[0].nics[0].address) == "172.18.255.254"
    assert found.zookeeper.tick_ms == 2000
    assert not found.zookeeper.multi_address


def test_what_zoo_cfg_does_not_say_is_what_zookeeper_takes() -> None:
    found = topology_of("x", [PlacedServer(1, {}, {"a": IPv4Address("10.1.0.2")})], [network("a", "10.1.0.0/24")])
    assert found.zookeeper.tick_ms == 3000


def test_observers_and_versions_are_kept() -> None:
    servers = [
        server(1, a="10.1.0.2"),
        PlacedServer(2, {**LINES, "server.2": "zoo2:2888:3888:observer;2181"}, {"a": IPv4Address("10.1.0.3")}),
        PlacedServer(3, {**LINES, "peerType": "observer"}, {"a": IPv4Address("10.1.0.4")}, version="3.8.4"),
    ]
    found = topology_of("x", servers, [network("a", "10.1.0.0/24")])
    assert [s.role for s in found.servers] == [Role.PARTICIPANT, Role.OBSERVER, Role.OBSERVER]
    assert found.zookeeper.version == "3.8.4"


def test_several_addresses_are_told_by_the_bars() -> None:
    two = [network("a", "10.1.0.0/24"), network("b", "10.2.0.0/24")]
    lines = {f"server.{n}": f"zoo{n}-a:2888:3888|zoo{n}-b:2888:3888;2181" for n in (1, 2, 3)}
    servers = [server(n, lines, a=f"10.1.0.{n + 1}", b=f"10.2.0.{n + 1}") for n in (1, 2, 3)]
    assert topology_of("x", servers, two).zookeeper.multi_address


def test_with_one_address_the_first_nic_is_the_one_that_the_others_know() -> None:
    """So that the prediction of what survives the death of a switch is right."""
    two = [network("a", "10.1.0.0/24"), network("b", "10.2.0.0/24")]
    servers = [
        PlacedServer(
            n,
            LINES,
            {"a": IPv4Address(f"10.1.0.{n + 1}"), "b": IPv4Address(f"10.2.0.{n + 1}")},
            (IPv4Address(f"10.2.0.{n + 1}"),),
        )
        for n in (1, 2, 3)
    ]
    found = topology_of("x", servers, two)
    assert {s.nics[0].switch for s in found.servers} == {"net2"}
    assert not found.zookeeper.multi_address


@pytest.mark.parametrize(
    ("networks", "names"),
    [
        ([("front",), ("back",)], ["net1", "net2"]),  # the plans of the library are aimed at these
        ([("net1",), ("net2",)], ["net1", "net2"]),
        ([("net2",), ("other",)], ["net2", "net1"]),
        ([("default", "shop_net2"), ("net1",)], ["net2", "net1"]),
        ([("net1",), ("net1", "shop_net1")], ["net1", "net2"]),
        ([("c1",), ("lo",)], ["net1", "net2"]),
    ],
)
def test_what_a_network_is_called_as_a_switch(networks: list[tuple[str, ...]], names: list[str]) -> None:
    found = switch_names([network(str(n), f"10.{n}.0.0/24", *own) for n, own in enumerate(networks)])
    assert list(found.values()) == names


def test_a_label_names_a_switch() -> None:
    placed = [network("a", "10.1.0.0/24", label="back"), network("b", "10.2.0.0/24", label="leader")]
    assert list(switch_names(placed).values()) == ["back", "net1"]


def test_the_clients_address_is_one_that_the_engine_gives_nobody() -> None:
    whole = network("a", "10.1.0.0/24")
    assert str(free_address(whole, ())) == "10.1.0.254"
    assert str(free_address(whole, {IPv4Address("10.1.0.254"), IPv4Address("10.1.0.253")})) == "10.1.0.252"
    upper = network("a", "10.1.0.0/24", pool="10.1.0.128/25")
    assert str(free_address(upper, ())) == "10.1.0.127"
    lower = network("a", "10.1.0.0/24", pool="10.1.0.0/25")
    assert str(free_address(lower, ())) == "10.1.0.254"
    full = {IPv4Address(f"10.1.0.{n}") for n in range(1, 255)}
    with pytest.raises(TestbedError, match="no address is free"):
        free_address(whole, full)
    assert str(free_address(whole, full - {IPv4Address("10.1.0.77")})) == "10.1.0.77"


@pytest.mark.parametrize(
    ("servers", "networks", "complaint"),
    [
        ([server(n, a=f"10.1.0.{n}") for n in range(2, 24)], [network("a", "10.1.0.0/24")], "a list of 22"),
        ([server(120, a="10.1.0.2")], [network("a", "10.1.0.0/24")], "120"),
        ([server(1, a="10.1.0.2")], [network("a", "10.1.0.0/29")], "too small"),
        ([server(1, a="100.64.0.2")], [network("a", "100.64.0.0/24")], "somebody's on the internet"),
        (
            [server(1, a="10.1.0.2"), server(2, b="10.2.0.2")],
            [network("a", "10.1.0.0/24"), network("b", "10.2.0.0/24")],
            "no switch",
        ),
        ([server(1, {"tickTime": "5"}, a="10.1.0.2")], [network("a", "10.1.0.0/24")], "5"),
    ],
)
def test_what_no_topology_can_say_is_refused_in_words(
    servers: list[PlacedServer], networks: list[PlacedNetwork], complaint: str
) -> None:
    with pytest.raises(TestbedError, match="no topology like this") as refused:
        topology_of("shop", servers, networks)
    assert complaint in str(refused.value)
    assert str(refused.value).startswith("shop: ")


# --- whatever it is -------------------------------------------------------------------------------------------

words = st.text(max_size=12) | st.sampled_from(["net1", "net2", "c1", "default", "leader", "zk1", "front", "net9"])
subnets = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1) | st.integers(0x0A000000, 0x0A00FFFF) | st.integers(0xAC100000, 0xAC1FFFFF),
    st.integers(8, 30),
)


@st.composite
def ensembles(draw: st.DrawFn, *, plausible: bool) -> tuple[str, list[PlacedServer], list[PlacedNetwork]]:
    """Any; where they are plausible, every server is on the first network, and numbers and subnets are allowed."""
    private = st.integers(0, 99).map(lambda n: IPv4Network(f"172.{16 + n % 16}.{n}.0/24"))
    networks = [
        PlacedNetwork(
            str(number),
            tuple(draw(st.lists(words, min_size=1, max_size=3))),
            subnet,
            frozenset(draw(st.lists(st.integers(0, 2**32 - 1).map(IPv4Address), max_size=3))),
            draw(words),
            draw(st.none() | subnets),
        )
        for number, subnet in enumerate(
            draw(st.lists(private, min_size=1, max_size=8, unique=True) if plausible else st.lists(subnets, max_size=9))
        )
    ]
    values = words | st.just("a:1:2;2181") | st.just("a:1:2|b:1:2;2181")
    if not plausible:
        values |= st.integers(0, 10**8).map(str) | st.just("a:1:2:observer;2181") | st.just("observer")
    keys = words | st.sampled_from(["tickTime", "peerType", "server.1", "initLimit", "maxSessionTimeout"])
    numbers = st.integers(1, 99) if plausible else st.integers(0, 300)
    servers: list[PlacedServer] = []
    for number in draw(st.lists(numbers, min_size=1, max_size=9 if plausible else 25, unique=True)):
        on = networks[:1] if plausible else []
        if networks:
            on = on + draw(st.lists(st.sampled_from(networks), max_size=4))
        places = {n.key: n.subnet[len(servers) + 2 if plausible else draw(st.integers(0, 3))] for n in on}
        known = tuple(draw(st.lists(st.sampled_from(list(places.values())), max_size=3))) if places else ()
        version = draw(st.sampled_from(["", "3.9.5", "3.8.4"]))
        config = draw(st.dictionaries(keys, values, max_size=6))
        servers.append(PlacedServer(number, config, places, known, version))
    return draw(words), servers, networks


def follows(topology: Topology, servers: Sequence[PlacedServer], networks: Sequence[PlacedNetwork]) -> None:
    """A topology says what was found, and its client takes nobody's address."""
    assert [s.id for s in topology.servers] == [s.id for s in servers]
    for ours, theirs in zip(topology.servers, servers, strict=True):
        assert {nic.address for nic in ours.nics} == set(theirs.addresses.values())
        known = [a for a in theirs.quorum_addresses if a in theirs.addresses.values()]
        assert not known or ours.nics[0].address == known[0]
    taken = {a for n in networks for a in n.taken} | {a for s in servers for a in s.addresses.values()}
    assert not {nic.address for nic in topology.client_hosts[0].nics} & taken


@given(ensembles(plausible=True))
def test_what_is_plausible_becomes_a_topology(
    found: tuple[str, list[PlacedServer], list[PlacedNetwork]],
) -> None:
    name, servers, networks = found
    try:
        topology = topology_of(name, servers, networks)
    except TestbedError as refusal:
        # with one address each, servers that know each other by different networks never meet
        assert "no quorum can ever form" in refusal.what
        return
    follows(topology, servers, networks)


@given(ensembles(plausible=False))
def test_whatever_is_found_is_a_topology_or_refused_in_words(
    found: tuple[str, list[PlacedServer], list[PlacedNetwork]],
) -> None:
    name, servers, networks = found
    try:
        topology = topology_of(name, servers, networks)
    except TestbedError as refusal:
        assert len(str(refusal).splitlines()) == 1
        return
    follows(topology, servers, networks)

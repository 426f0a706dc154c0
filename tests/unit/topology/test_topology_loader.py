"""Topology files that are right: the library, the short forms, the address plan."""

import pytest

from harness.topology.loader import library_topologies, load_topology, parse_topology, with_overrides
from harness.topology.model import Role, ZooKeeperOptions

SMALL = 'title = "T"\nservers = 3\n[[switch]]\nname = "net1"\n'


@pytest.mark.parametrize("name", library_topologies())
def test_library_topology_round_trips_through_its_source(name: str) -> None:
    topology = load_topology(name)
    assert topology.name == name
    assert parse_topology(topology.source, topology.name) == topology


def test_the_library() -> None:
    assert {"single-net", "dual-net", "dual-net-five", "uneven-addresses"} <= set(library_topologies())


def test_dual_net_is_three_servers_and_a_client_host_on_two_switches() -> None:
    topology = load_topology("dual-net")
    assert [n.name for n in topology.nics()] == [
        *("zk1:net1", "zk1:net2", "zk2:net1", "zk2:net2", "zk3:net1", "zk3:net2", "c1:net1", "c1:net2")
    ]
    assert topology.zookeeper.multi_address
    assert topology.zookeeper.tick_ms == 500
    assert topology.quorum_size == 2


def test_uneven_addresses_has_one_server_with_a_single_address() -> None:
    assert [len(s.nics) for s in load_topology("uneven-addresses").servers] == [2, 2, 1]


def test_a_path_is_a_file_of_ones_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("mine") / "my own.toml"
    path.write_text(SMALL)
    topology = load_topology(str(path))
    assert topology.name == "my-own"
    assert topology.source == SMALL


def test_short_forms() -> None:
    topology = parse_topology(
        'title = "T"\nservers = 2\nclients = 2\n[[switch]]\nname = "a"\n[[switch]]\nname = "b"', "t"
    )
    assert [str(s.subnet) for s in topology.switches] == ["10.77.1.0/24", "10.77.2.0/24"]
    assert [s.host for s in topology.servers] == ["zk1", "zk2"]
    assert [c.name for c in topology.client_hosts] == ["c1", "c2"]
    assert [str(n.address) for n in topology.nics() if n.switch == "b"] == [
        *("10.77.2.1", "10.77.2.2", "10.77.2.101", "10.77.2.102")
    ]


def test_long_forms() -> None:
    topology = parse_topology(
        """
        title = "Everything"
        [zookeeper]
        version = "3.8.4"
        multi_address = false
        jvm = ["-Xmx512m"]
        [zookeeper.settings]
        tickTime = 1000
        autopurge.purgeInterval = 1
        "admin.enableServer" = false
        [[switch]]
        name = "west"
        subnet = "192.168.7.0/25"
        [[server]]
        id = 7
        switches = ["west"]
        [[server]]
        id = 9
        switches = ["west"]
        role = "observer"
        version = "3.9.4"
        [[client_host]]
        name = "app"
        switches = ["west"]
        """,
        "folder/everything.toml",
    )
    assert topology.name == "everything"
    assert topology.zookeeper.version == "3.8.4"
    assert topology.zookeeper.jvm == ("-Xmx512m",)
    assert dict(topology.zookeeper.settings) == {
        "tickTime": 1000,
        "autopurge.purgeInterval": 1,
        "admin.enableServer": False,
    }
    assert topology.server(9).role is Role.OBSERVER
    assert topology.server(9).version == "3.9.4"
    assert [str(n.address) for n in topology.nics()] == ["192.168.7.7", "192.168.7.9", "192.168.7.101"]


def test_multi_address_follows_the_number_of_addresses() -> None:
    assert not parse_topology(SMALL, "t").zookeeper.multi_address
    assert parse_topology(SMALL + '[[switch]]\nname = "net2"\n', "t").zookeeper.multi_address


def test_first_listed_switch_gives_the_first_address() -> None:
    text = 'title = "T"\n[[switch]]\nname = "a"\n[[switch]]\nname = "b"\n[[server]]\nid = 1\nswitches = ["b", "a"]\n'
    assert [n.switch for n in parse_topology(text, "t").servers[0].nics] == ["b", "a"]


def test_overrides() -> None:
    topology = load_topology("dual-net")
    assert with_overrides(topology) == topology
    changed = with_overrides(topology, version="3.8", multi_address=False)
    assert changed.zookeeper.version == "3.8"
    assert not changed.zookeeper.multi_address
    assert changed.source == topology.source
    assert topology.zookeeper.multi_address, "the original stays as it was"


@pytest.mark.parametrize(
    "version", ["3.9", "3.9.x", "3.8.4", "3.10.0-SNAPSHOT", "3.5.4-beta", "debian", "directory", "directory:~/zk 3.9"]
)
def test_versions(version: str) -> None:
    changed = with_overrides(load_topology("single-net"), version=version)
    assert changed.zookeeper.version == version
    assert parse_topology(SMALL + f'[zookeeper]\nversion = "{version}"\n', "t").zookeeper == ZooKeeperOptions(
        version, multi_address=False
    )


def test_a_host_may_have_addresses_of_its_own() -> None:
    text = """
title = "As somebody else numbered it"
[[switch]]
name = "net1"
[[server]]
id = 1
switches = ["net1"]
addresses = { net1 = "10.77.1.17" }
[[server]]
id = 2
switches = ["net1"]
[[client_host]]
name = "c1"
switches = ["net1"]
addresses = { net1 = "10.77.1.1" }
"""
    topology = parse_topology(text, "own")
    assert [str(nic.address) for nic in topology.nics()] == ["10.77.1.17", "10.77.1.2", "10.77.1.1"]

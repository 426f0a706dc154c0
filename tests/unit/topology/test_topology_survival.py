"""Predictions of what a topology survives, against brute force and against what is known."""

from collections import Counter
from ipaddress import IPv4Network
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.topology.addresses import client_nics, server_nics
from harness.topology.loader import load_topology, parse_topology, with_overrides
from harness.topology.model import ClientHost, Role, Server, Switch, Topology, ZooKeeperOptions
from harness.topology.survival import survives


@pytest.mark.parametrize("switch", ["net1", "net2"])
def test_dual_net_survives_either_switch(switch: str) -> None:
    survival = survives(load_topology("dual-net"), {switch})
    assert survival.undisturbed
    assert survival.members == (1, 2, 3)
    assert survival.reason == "zk1, zk2, zk3 reach each other, and every client host reaches them"


def test_dual_net_dies_with_both_switches() -> None:
    survival = survives(load_topology("dual-net"), {"net1", "net2"})
    assert not survival.quorum
    assert survival.cut_off == ("c1",)


def test_without_multi_address_the_first_switch_is_everything() -> None:
    control = with_overrides(load_topology("dual-net"), multi_address=False)
    assert not survives(control, {"net1"}).quorum
    assert survives(control, {"net2"}).undisturbed


def test_single_net_dies_with_its_switch() -> None:
    survival = survives(load_topology("single-net"), {"net1"})
    assert survival.reason == "no quorum: at most 1 of 3 participants reach each other (zk1), and 2 are needed"


def test_uneven_addresses_lose_the_single_one() -> None:
    survival = survives(load_topology("uneven-addresses"), {"net1"})
    assert survival.undisturbed
    assert survival.members == (1, 2)


@pytest.mark.parametrize(("dead", "quorum"), [((), True), ((1,), True), ((1, 2), True), ((1, 2, 3), False)])
def test_five_survive_two(dead: tuple[int, ...], quorum: bool) -> None:
    assert survives(load_topology("dual-net-five"), dead_servers=dead).quorum is quorum


def test_crossed_links_leave_no_quorum_of_three_isolated_pairs() -> None:
    """NR-04: net1 dead for zk1, net2 dead for zk2: they no longer meet, but zk3 still meets both."""
    survival = survives(load_topology("dual-net"), dead_links={"zk1:net1", "zk2:net2"})
    assert survival.members == (1, 3)
    assert survival.serving == (1, 3)


def test_client_host_may_be_cut_off_from_a_healthy_quorum() -> None:
    survival = survives(load_topology("dual-net"), dead_links={"c1:net1", "c1:net2"})
    assert survival.quorum
    assert not survival.undisturbed
    assert survival.reason == "zk1, zk2, zk3 reach each other, but c1 reaches no server of that quorum"


def test_clients_reach_a_quorum_through_an_observer() -> None:
    text = (
        'title = "T"\n[[switch]]\nname = "a"\n[[switch]]\nname = "b"\n'
        '[[server]]\nid = 1\nswitches = ["a"]\n'
        '[[server]]\nid = 2\nswitches = ["a", "b"]\nrole = "observer"\n'
        '[[client_host]]\nname = "c1"\nswitches = ["b"]\n'
    )
    survival = survives(parse_topology(text, "t"))
    assert survival.members == (1,)
    assert survival.serving == (1, 2)
    assert survival.clients == ("c1",)


def test_the_largest_topology_is_answered_at_once() -> None:
    switches = tuple(Switch(f"s{n}", IPv4Network(f"10.1.{n}.0/24")) for n in range(8))
    for seed in range(20):
        rng = Random(seed)
        servers = tuple(Server(n, server_nics(f"zk{n}", n, rng.sample(switches, 2))) for n in range(1, 22))
        members = survives(Topology("t", "T", switches, servers, (), ZooKeeperOptions("3.9"))).members
        plugged = [{n.switch for n in servers[server_id - 1].nics} for server_id in members]
        assert all(one & other for one, other in combinations(plugged, 2))
        assert len(members) >= max(Counter(n.switch for s in servers for n in s.nics).values())


@st.composite
def _situations(draw: st.DrawFn) -> tuple[Topology, frozenset[str], frozenset[str], frozenset[int]]:
    switches = tuple(Switch(f"s{n}", IPv4Network(f"10.1.{n}.0/24")) for n in range(draw(st.integers(1, 3))))
    plugged = st.lists(st.sampled_from(switches), min_size=1, unique=True)
    servers = tuple(
        Server(n, server_nics(f"zk{n}", n, draw(plugged)), draw(st.sampled_from(Role)))
        for n in range(1, draw(st.integers(1, 6)) + 1)
    )
    clients = tuple(
        ClientHost(f"c{n}", client_nics(f"c{n}", n, draw(plugged))) for n in range(1, draw(st.integers(1, 2)) + 1)
    )
    options = ZooKeeperOptions("3.9", multi_address=draw(st.booleans()))
    topology = Topology("t", "T", switches, servers, clients, options)
    nics = [n.name for n in topology.nics()]
    return (
        topology,
        frozenset(draw(st.lists(st.sampled_from([s.name for s in switches])))),
        frozenset(draw(st.lists(st.sampled_from(nics), max_size=4))),
        frozenset(draw(st.lists(st.sampled_from([s.id for s in servers]), max_size=3))),
    )


@settings(max_examples=250)
@given(_situations())
def test_prediction_is_what_brute_force_finds(
    situation: tuple[Topology, frozenset[str], frozenset[str], frozenset[int]],
) -> None:
    topology, dead_switches, dead_links, dead_servers = situation

    def cable(host: Server | ClientHost, switch: str) -> bool:
        plugged = any(n.switch == switch for n in host.nics)
        return plugged and switch not in dead_switches and f"{host.host}:{switch}" not in dead_links

    def path(one: Server | ClientHost, other: Server | ClientHost, *switches: str) -> bool:
        return all(cable(one, s) and cable(other, s) for s in switches)

    def joined(one: Server, other: Server) -> bool:
        if topology.zookeeper.multi_address:
            return any(path(one, other, s) for s in topology.switch_names)
        return path(one, other, one.nics[0].switch, other.nics[0].switch)

    alive = [s for s in topology.participants if s.id not in dead_servers]
    groups = [
        group
        for size in range(len(alive) + 1)
        for group in combinations(alive, size)
        if all(joined(a, b) for a, b in combinations(group, 2))
    ]
    largest = max(len(group) for group in groups)
    survival = survives(topology, dead_switches, dead_links, dead_servers)
    assert len(survival.members) == largest
    assert survival.members == min(tuple(s.id for s in group) for group in groups if len(group) == largest)
    assert survival.quorum == (largest >= topology.quorum_size)
    members = [topology.server(server_id) for server_id in survival.members]
    for client in topology.client_hosts:
        direct = survival.quorum and any(path(client, m, s) for m in members for s in topology.switch_names)
        if direct:
            assert client.name in survival.clients
        if client.name in survival.clients:
            assert any(
                path(client, topology.server(server_id), s)
                for server_id in survival.serving
                for s in topology.switch_names
            )
    assert set(survival.clients) | set(survival.cut_off) == {c.name for c in topology.client_hosts}

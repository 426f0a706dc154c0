"""Drawings of topologies, as people see them."""

import pytest

from harness.topology.drawing import describe, draw
from harness.topology.loader import library_topologies, load_topology, parse_topology

UNEVEN = """\
uneven-addresses: Three servers, the third on the first of two switches only
  3 participants, quorum 2; ZooKeeper 3.9, every address of a server is used

                               net1            net2
                           10.77.1.0/24    10.77.2.0/24
                                ┃               ┃
  ┌─ zk1 participant ─┐         ┃               ┃
  │         10.77.1.1 ├─────────●               ┃
  │         10.77.2.1 ├─────────┃───────────────●
  └───────────────────┘         ┃               ┃
                                ┃               ┃
  ┌─ zk2 participant ─┐         ┃               ┃
  │         10.77.1.2 ├─────────●               ┃
  │         10.77.2.2 ├─────────┃───────────────●
  └───────────────────┘         ┃               ┃
                                ┃               ┃
  ┌─ zk3 participant ─┐         ┃               ┃
  │         10.77.1.3 ├─────────●               ┃
  └───────────────────┘         ┃               ┃
                                ┃               ┃
  ┌─ c1 client host ──┐         ┃               ┃
  │       10.77.1.101 ├─────────●               ┃
  │       10.77.2.101 ├─────────┃───────────────●
  └───────────────────┘         ┃               ┃
                                ┃               ┃

  Predicted when one switch dies:
    net1  zk1, zk2 reach each other, and every client host reaches them
    net2  zk1, zk2, zk3 reach each other, and every client host reaches them
"""

MIXED_ROLES = """\
t: One voter and a watcher
  1 participant, quorum 1; ZooKeeper 3.8, one address per server

                                  west
                            192.168.100.0/24
                                   ┃
  ┌─ zk1 participant ──┐           ┃
  │      192.168.100.1 ├───────────●
  └────────────────────┘           ┃
                                   ┃
  ┌─ zk2 observer 3.9 ─┐           ┃
  │      192.168.100.2 ├───────────●
  └────────────────────┘           ┃
                                   ┃
  ┌─ app client host ──┐           ┃
  │    192.168.100.101 ├───────────●
  └────────────────────┘           ┃
                                   ┃

  Predicted when one switch dies:
    west  zk1 is a quorum by itself, but app reaches no server of that quorum
"""

MIXED_ROLES_FILE = """
title = "One voter and a watcher"
zookeeper.version = "3.8"
[[switch]]
name = "west"
subnet = "192.168.100.0/24"
[[server]]
id = 1
switches = ["west"]
[[server]]
id = 2
switches = ["west"]
role = "observer"
version = "3.9"
[[client_host]]
name = "app"
switches = ["west"]
"""


def test_drawing_of_uneven_addresses() -> None:
    assert draw(load_topology("uneven-addresses")) == UNEVEN


def test_drawing_of_roles_and_versions() -> None:
    assert draw(parse_topology(MIXED_ROLES_FILE, "t")) == MIXED_ROLES


@pytest.mark.parametrize("name", library_topologies())
def test_drawing_fits_a_terminal_and_names_everything(name: str) -> None:
    topology = load_topology(name)
    drawing = draw(topology)
    assert max(map(len, drawing.splitlines())) <= 100
    assert all(line == line.rstrip() for line in drawing.splitlines())
    for word in (*topology.switch_names, *(h.host for h in topology.hosts), *(str(n.address) for n in topology.nics())):
        assert word in drawing
    assert drawing.count("●") == len(list(topology.nics()))


def test_one_line() -> None:
    assert describe(load_topology("dual-net")) == "3 servers, 2 switches, 1 client host, quorum 2, multi-address"
    assert describe(parse_topology(MIXED_ROLES_FILE, "t")) == (
        "2 servers (1 observer), 1 switch, 1 client host, quorum 1"
    )

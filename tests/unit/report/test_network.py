"""The drawing of the network."""

from __future__ import annotations

import pytest

from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory
from harness.report.network import draw
from harness.topology.loader import library_topologies, load_topology, parse_topology
from tests.unit.report.sample import TOPOLOGY

S = 1_000_000_000
AXIS = TimeAxis(0, 0.0, 20.0)


def fault(kind: str, target: str) -> FaultStory:
    return FaultStory(0, kind, target, "", 3 * S, injected=3 * S, healing=11 * S, healed=11 * S)


def test_what_faults_hit_is_marked() -> None:
    faults = [fault("switch-down", "net1"), fault("link-down", "zk2:net2"), fault("kill", "zk1,zk3")]
    drawing = draw(parse_topology(TOPOLOGY, "dual-net"), faults, AXIS)
    assert {s.name for s in drawing.switches if s.fault} == {"net1"}
    assert {c.name for c in drawing.cables if c.fault} == {"zk2:net2"}
    assert {h.name for h in drawing.hosts if h.fault} == {"zk1", "zk3"}
    assert "link-down" in drawing.description


def test_an_observer_and_a_client_are_named_as_such() -> None:
    text = TOPOLOGY.replace("id = 3\n", 'id = 3\nrole = "observer"\n') + '[[server]]\nid = 4\nswitches = ["net1"]\n'
    drawing = draw(parse_topology(text, "t"), (), AXIS)
    assert [h.role for h in drawing.hosts] == ["", "", "observer", "", "client", "client"]


@pytest.mark.parametrize("name", library_topologies())
def test_every_topology_of_the_library_is_drawn_within_its_frame(name: str) -> None:
    topology = load_topology(name)
    drawing = draw(topology, (), AXIS)
    assert len(drawing.cables) == sum(len(h.nics) for h in topology.hosts)
    assert all(0 < s.y < drawing.height for s in drawing.switches)
    assert all(h.x + drawing.box_width <= drawing.width for h in drawing.hosts)
    levels = [s.y for s in drawing.switches]
    assert len(set(levels)) == len(levels)
    assert not any(drawing.box_y <= y <= drawing.box_y + drawing.box_height for y in levels)

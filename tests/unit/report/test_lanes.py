"""Lanes of servers and clients."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.history.records import Sample, SessionEvent, SessionState
from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory
from harness.report.lanes import MAX_SEGMENTS, Segment, client_lanes, role_lanes

S = 1_000_000_000
AXIS = TimeAxis(0, 0.0, 10.0)


def sample(at: float, role: str, server: int = 1) -> Sample:
    return Sample(round(at * S), server, role)


def test_equal_neighbours_are_merged() -> None:
    roles = ("follower", "follower", "looking", "leader", "leader")
    samples = [sample(at, role) for at, role in enumerate(roles)]
    lanes = role_lanes(samples, (), AXIS)
    assert lanes[1] == (Segment(0, 2, "follower"), Segment(2, 3, "looking"), Segment(3, 5, "leader"))


def test_a_role_from_before_the_axis_begins_at_its_edge() -> None:
    assert role_lanes([sample(-3, "leader"), sample(2, "down")], (), AXIS)[1][0] == Segment(0, 2, "leader")


def test_a_paused_server_is_told_as_paused_and_not_as_down() -> None:
    pause = FaultStory(0, "pause", "zk1,zk2", "minority", round(2 * S), round(2 * S), round(4 * S), round(4 * S))
    samples = [sample(0, "follower"), sample(1, "down"), sample(6, "follower"), sample(0, "leader", 3)]
    lanes = role_lanes(samples, [pause], AXIS)
    assert [s.state for s in lanes[1]] == ["follower", "down", "paused", "down", "follower"]
    assert Segment(2, 4, "paused") in lanes[1]
    assert [s.state for s in lanes[3]] == ["leader"]


ROLES = st.sampled_from(["leader", "follower", "looking", "down"])


@given(st.lists(st.tuples(st.floats(-2, 12), ROLES), max_size=80))
def test_a_lane_is_in_order_without_overlap_and_on_the_axis(items: list[tuple[float, str]]) -> None:
    for lane in role_lanes([sample(at, role) for at, role in items], (), AXIS).values():
        assert all(AXIS.start <= s.start < s.end <= AXIS.end for s in lane)
        for one, other in pairwise(lane):
            assert one.end <= other.start + 1e-9
            assert one.state != other.state or other.start > one.end


def test_a_flapping_server_has_a_bounded_lane_in_which_the_worst_is_seen() -> None:
    samples = [sample(k / 1000, "leader" if k % 2 else "follower") for k in range(10_000)]
    samples.append(sample(5.0001, "down"))
    lane = role_lanes(samples, (), AXIS)[1]
    assert len(lane) <= MAX_SEGMENTS
    assert "down" in {s.state for s in lane}


def test_clients_have_gaps_until_they_are_connected_again() -> None:
    events = [
        SessionEvent("c1.0", 0, SessionState.CONNECTED),
        SessionEvent("c1.0", 2 * S, SessionState.SUSPENDED),
        SessionEvent("c1.0", 3 * S, SessionState.EXPIRED),
        SessionEvent("c1.0", 4 * S, SessionState.CONNECTED),
        SessionEvent("c1.10", 0, SessionState.CONNECTED),
        SessionEvent("c1.2", 0, SessionState.CONNECTED),
        SessionEvent("c1.2", 8 * S, SessionState.SUSPENDED),
    ]
    lanes = client_lanes(events, AXIS)
    assert [lane.process for lane in lanes] == ["c1.0", "c1.2", "c1.10"]
    assert lanes[0].gaps == (Segment(2, 3, "suspended"), Segment(3, 4, "expired"))
    assert lanes[1].gaps == (Segment(8, 10, "suspended"),)
    assert lanes[2].gaps == ()

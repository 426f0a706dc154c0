"""The lives of faults, and the sentences about them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history.records import FaultAction, FaultEvent, ProbeEvent
from harness.nemesis.kinds import KINDS
from harness.report.axis import TimeAxis
from harness.report.faults import FaultStory, fault_stories, how_long, parts_hit, what_happened
from harness.report.network import fault_marks
from harness.report.timeline import CHARACTER, fault_bars

S = 1_000_000_000


def event(at: float, action: FaultAction, *, id_: int = 0, kind: str = "kill", target: str = "zk3") -> FaultEvent:
    return FaultEvent(round(at * S), id_, action, kind, target, asked="leader")


def probe(stage: str, bites: bool | None) -> ProbeEvent:
    return ProbeEvent(0, 0, stage, bites, "seen")


def life() -> list[FaultEvent]:
    steps = ((1.0, FaultAction.INJECT), (1.1, FaultAction.INJECTED), (4.1, FaultAction.HEAL), (4.5, FaultAction.HEALED))
    return [event(at, action) for at, action in steps]


def test_a_whole_life() -> None:
    (fault,) = fault_stories(life(), [probe("before", False), probe("during", True), probe("after", False)])
    assert (fault.name, fault.role, fault.proved) == ("kill zk3", "leader", True)
    assert fault.inject_took == pytest.approx(0.1)
    assert fault.lasted == pytest.approx(3.0)
    assert fault.heal_took == pytest.approx(0.4)
    assert what_happened(fault) == "server zk3 (leader) was killed"
    assert how_long(fault).replace("\u202f", " ") == "for 3.0 s"


def test_the_last_probe_of_a_stage_counts() -> None:
    (fault,) = fault_stories(life(), [probe("during", False), probe("during", True), probe("after", False)])
    assert fault.proved is True


@pytest.mark.parametrize(
    ("during", "after", "proved"), [(False, False, False), (True, True, False), (True, None, None), (None, False, None)]
)
def test_what_the_probes_leave_open_is_not_proved(during: bool | None, after: bool | None, proved: bool | None) -> None:
    (fault,) = fault_stories(life(), [probe("during", during), probe("after", after)])
    assert fault.proved is proved


def test_a_fault_that_was_never_healed() -> None:
    (fault,) = fault_stories([*life()[:2], event(9, FaultAction.FAILED)], [])
    assert (fault.healed, fault.lasted) == (None, None)
    assert fault.failure
    assert how_long(fault) == "and was never healed"
    axis = TimeAxis(0, 0.0, 10.0)
    (bar,) = fault_bars([fault], axis)
    assert (bar.left, bar.width, bar.healed) == (10.0, 90.0, False)
    assert fault_marks([fault], axis, {"zk3"})["zk3"].endswith("and never healed")


def test_a_fault_that_could_not_be_injected() -> None:
    (fault,) = fault_stories([event(1, FaultAction.INJECT), event(2, FaultAction.FAILED)], [])
    assert how_long(fault) == "but could not be injected"
    assert fault_marks([fault], TimeAxis(0, 0.0, 10.0), {"zk3"}) == {}


def test_several_targets_and_unknown_kinds_have_sentences_too() -> None:
    assert what_happened(FaultStory(0, "pause", "zk1,zk2", "", 0)) == "servers zk1 and zk2 were paused"
    assert what_happened(FaultStory(0, "melt", "{zk1}", "", 0)) == "melt hit {zk1}"


SENTENCES = {
    ("switch-flap", "net1:200ms/1s", ""): "switch net1 came and went (200ms/1s)",
    ("switch-split", "net1:zk1,c1 | zk2", ""): "switch net1 fell into islands (zk1,c1 | zk2)",
    (
        "link-flap",
        "zk2:net1:500ms",
        "a follower:net1:500ms",
    ): "the link zk2:net1 (a follower:net1) came and went (500ms)",
    ("partition", "zk1 | zk2,zk3", "isolate leader"): "a partition held (zk1 | zk2,zk3)",
    ("packets", "delay 200ms on net1", ""): "packets suffered (delay 200ms on net1)",
    ("limit", "zk3:cpu 5%", ""): "server zk3 was limited (cpu 5%)",
    ("damage", "zk1,zk2:wipe", ""): "servers zk1 and zk2 were killed and their data damaged (wipe)",
    ("rolling-restart", "zk1,zk2,zk3", "all"): "servers zk1, zk2 and zk3 (all) were restarted in turn",
}


@pytest.mark.parametrize("fault", SENTENCES, ids=lambda fault: fault[0])
def test_every_target_makes_a_sentence(fault: tuple[str, str, str]) -> None:
    kind, target, asked = fault
    assert what_happened(FaultStory(0, kind, target, asked, 0)) == SENTENCES[fault]


def test_every_kind_of_fault_has_a_sentence_of_its_own() -> None:
    said = {kind: what_happened(FaultStory(0, kind, "zk1:x", "", 0)) for kind in KINDS}
    assert [kind for kind, text in said.items() if f"{kind} hit" in text] == []
    assert len(set(said.values())) == len(KINDS)


KNOWN = {"zk1", "zk2", "zk3", "c1", "net1", "net2", "zk1:net1", "zk2:net1"}


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ("net1", ("net1",)),
        ("net1:500ms", ("net1",)),
        ("zk2:net1:500ms", ("zk2:net1",)),
        ("zk1,zk3", ("zk1", "zk3")),
        ("zk2:ahead 5s", ("zk2",)),
        ("zk1,c1 | zk2,zk3", ("zk1", "c1", "zk2", "zk3")),
        ("loss 10% on zk2:net1 in", ("zk2:net1",)),
        ("zk1 > zk2 over net2", ("zk1", "zk2", "net2")),
        ("delay 50ms on everything", ()),
    ],
)
def test_the_parts_that_a_target_names(target: str, hit: tuple[str, ...]) -> None:
    assert parts_hit(FaultStory(0, "any", target, "", 0), KNOWN) == hit


def test_of_a_switch_that_falls_into_islands_no_host_is_hit() -> None:
    assert parts_hit(FaultStory(0, "switch-split", "net1:zk1,c1 | zk2,zk3", "", 0), KNOWN) == ("net1",)


times = st.tuples(st.floats(0, 99), st.floats(0, 60), st.sampled_from(["kill zk1", "switch-down network-number-one"]))


@given(st.lists(times, max_size=40))
def test_bars_and_their_labels_never_overlap(items: list[tuple[float, float, str]]) -> None:
    axis = TimeAxis(0, 0.0, 100.0)
    faults = [
        FaultStory(n, name.split()[0], name.split()[1], "", round(start * S), healed=round((start + length) * S))
        for n, (start, length, name) in enumerate(sorted(items))
    ]
    rows: dict[int, list[tuple[float, float]]] = {}
    for bar in fault_bars(faults, axis):
        label = len(bar.label) * CHARACTER
        right = bar.left + bar.width
        begin, end = (right - label, right) if bar.at_end else (bar.left, bar.left + label)
        assert begin >= -0.01
        rows.setdefault(bar.row, []).append((min(bar.left, begin), max(right, end)))
    for spans in rows.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in pairwise(spans))

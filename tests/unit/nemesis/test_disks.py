"""Disks: what their words mean, what is refused, and what a scratch file has to show for a disk to ail."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.nemesis.disk_fault import ails, text_of
from harness.nemesis.disks import Trouble, parse
from harness.nemesis.kinds import Aim
from harness.nemesis.targets import check_target
from harness.testbed.disk_words import Ailment, DiskState, Tried
from harness.topology.loader import load_topology

MEANT = {
    "full": Trouble(DiskState(Ailment.FULL), restart=True),
    "read-only": Trouble(DiskState(Ailment.READ_ONLY), restart=True),
    "failing": Trouble(DiskState(Ailment.FAILING), restart=True),
    "full unattended": Trouble(DiskState(Ailment.FULL)),
    "read-only unattended": Trouble(DiskState(Ailment.READ_ONLY)),
    "failing unattended": Trouble(DiskState(Ailment.FAILING)),
    "stuck": Trouble(DiskState(Ailment.STUCK)),
    "slow 50ms": Trouble(DiskState(Ailment.SLOW, 50.0)),
    "slow 1ms": Trouble(DiskState(Ailment.SLOW, 1.0)),
    "slow 1.5s": Trouble(DiskState(Ailment.SLOW, 1500.0)),
    "slow 1m": Trouble(DiskState(Ailment.SLOW, 60_000.0)),
}
WRONG = {
    "": '"" is nothing that a disk can be; allowed: "full", "read-only", "failing", "stuck"',
    "Full": '"Full" is nothing that a disk can be',
    "full ": '"full " is nothing that a disk can be',
    "full  unattended": '"full  unattended" is nothing that a disk can be',
    "full attended": '"full attended" is nothing that a disk can be',
    "stuck unattended": '"stuck unattended" is nothing that a disk can be',
    "broken": '"broken" is nothing that a disk can be',
    "slow": "\"slow\": '' is not a duration; allowed: ",
    "slow 50": "\"slow 50\": '50' is not a duration; allowed: ",
    "slow 0ms": '"slow 0ms" is not from 1 ms to 60 s',
    "slow 61s": '"slow 61s" is not from 1 ms to 60 s',
    "slow 50ms unattended": "\"slow 50ms unattended\": '50ms unattended' is not a duration",
}
WELL = Tried("", 0, 0.4)
SEEN = {
    Ailment.FULL: Tried("create", errno.ENOSPC, 0.1),
    Ailment.READ_ONLY: Tried("create", errno.EROFS, 0.1),
    Ailment.FAILING: Tried("write", errno.EIO, 0.1),
    Ailment.SLOW: Tried("", 0, 50.2),
    Ailment.STUCK: None,
}


@pytest.mark.parametrize("text", MEANT)
def test_what_is_meant(text: str) -> None:
    assert parse(text) == MEANT[text]


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value).startswith(WRONG[text]), str(caught.value)


@given(st.sampled_from(list(MEANT)) | st.integers(1, 60_000).map("slow {}ms".format))
def test_what_is_written_is_read_as_the_same(text: str) -> None:
    assert parse(str(parse(text))) == parse(text)


@given(st.text() | st.builds("{} {}".format, st.sampled_from(["full", "slow", "stuck"]), st.text()))
def test_junk_is_refused_as_such(text: str) -> None:
    try:
        parse(text)
    except ValueError as problem:
        assert str(problem)  # no other error may come out of it, and a few texts are no junk


def test_a_target_is_servers_and_a_disk() -> None:
    topology = load_topology("dual-net")
    check_target(Aim.DISK, "leader:slow 50ms", topology)
    with pytest.raises(ValueError, match='there is no server "zk9"'):
        check_target(Aim.DISK, "zk9:full", topology)
    with pytest.raises(ValueError, match="is not server:disk"):
        check_target(Aim.DISK, "full", topology)


@pytest.mark.parametrize("ailment", Ailment)
def test_each_ailment_is_seen_by_what_it_alone_does(ailment: Ailment) -> None:
    """Of all that a scratch file may meet, only its own shows it, and a well disk shows none."""
    state = DiskState(ailment, slow_ms=50.0)
    assert {shown for shown, tried in SEEN.items() if ails(state, tried)} == {ailment}
    assert not ails(state, WELL)
    assert not ails(DiskState(), SEEN[ailment])


def test_a_disk_that_is_quicker_than_asked_for_is_not_slow() -> None:
    assert not ails(DiskState(Ailment.SLOW, 50.0), Tried("", 0, 49.9))
    assert not ails(DiskState(Ailment.SLOW, 50.0), Tried("fsync", errno.EIO, 80.0))


def test_what_was_seen_is_told_with_the_call_and_the_kernels_word() -> None:
    assert text_of(SEEN[Ailment.FULL], 0.5) == "create: ENOSPC (No space left on device)"
    assert text_of(None, 0.5) == "did not take 4 kB within 500 ms"
    assert text_of(WELL, 0.5) == "wrote 4 kB, and forced it in 0.4 ms"

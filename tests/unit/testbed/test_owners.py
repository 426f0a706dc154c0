"""Nobody is ever taken for dead who may live."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.testbed import owners
from harness.testbed.owners import Life, Owner, life_of

HEX = "0123456789abcdef"
OWNERS = st.builds(
    Owner,
    machine=st.text(HEX, min_size=12, max_size=12),
    boot=st.uuids().map(str),
    space=st.integers(0, 2**32).map("pid:[{}]".format),
    pid=st.integers(1, 2**22),
    start=st.integers(0, 2**63),
)


@given(OWNERS)
def test_an_owner_is_read_as_it_was_written(owner: Owner) -> None:
    assert Owner.parse(str(owner)) == owner


@given(st.text() | OWNERS.map(str).flatmap(lambda text: st.sampled_from([text[1:], text[:-1], f"{text}/", f" {text}"])))
def test_whatever_is_read_is_what_would_be_written(text: str) -> None:
    owner = Owner.parse(text)
    assert owner is None or str(owner) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me",
        "0123456789ab/9cdd4f45-2db5-4d5f-bb1e-8d3d37b2fa4c/pid:[1]/0/5",
        "0123456789ab/9cdd4f45-2db5-4d5f-bb1e-8d3d37b2fa4c/pid:[1]/-1/5",
        "0123456789ab/9cdd4f45-2db5-4d5f-bb1e-8d3d37b2fa4c/pid:[1]/007/5",
        "0123456789ab/9cdd4f45-2db5-4d5f-bb1e-8d3d37b2fa4c/pid:[1]/7/5\n",
        "0123456789ab/9cdd4f45-2db5-4d5f-bb1e-8d3d37b2fa4c/pid:[1]/\u0667/5",
    ],
)
def test_what_is_no_owner_is_kept(text: str) -> None:
    assert Owner.parse(text) is None
    assert life_of(text) is Life.UNREADABLE


@given(OWNERS, OWNERS, st.booleans(), st.booleans(), st.booleans())
def test_only_certain_death_is_death(owner: Owner, here: Owner, machine: bool, boot: bool, space: bool) -> None:
    """The decision table: same machine, same boot, same pid namespace."""
    owner = dataclasses.replace(
        owner,
        machine=here.machine if machine else owner.machine,
        boot=here.boot if boot else owner.boot,
        space=here.space if space else owner.space,
        start=owner.start + 2**40,  # no process of this boot started then
    )
    same_machine, same_boot, same_space = (
        owner.machine == here.machine,
        owner.boot == here.boot,
        owner.space == here.space,
    )
    life = life_of(str(owner), here)
    if not same_boot:
        assert life is (Life.DEAD if same_machine else Life.OTHER_MACHINE)
    elif not same_space:
        assert life is Life.OTHER_SPACE
    else:
        assert life is Life.DEAD


@pytest.fixture(params=["proc", "psutil"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to tell of a process: the kernel's own, and the one where there is no /proc, as on a Mac."""
    monkeypatch.setattr(owners, "_HAS_PROC", request.param == "proc")


@pytest.mark.usefixtures("way")
def test_this_process_lives_and_one_with_its_number_before_it_does_not() -> None:
    me = Owner.of_this_process()
    assert life_of(str(me)) is Life.ALIVE
    assert life_of(str(dataclasses.replace(me, start=me.start - 1))) is Life.DEAD


def test_a_host_that_was_renamed_is_the_same_while_it_runs() -> None:
    me = Owner.of_this_process()
    assert life_of(str(dataclasses.replace(me, machine="0" * 12))) is Life.ALIVE


def test_where_boots_have_no_names_another_machine_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_HAS_PROC", False)
    me = Owner.of_this_process()
    assert Owner.parse(str(me)) == me
    monkeypatch.setattr(owners, "_machine", lambda: "0" * 12)
    other = Owner.of_this_process()
    assert life_of(str(other), me) is Life.OTHER_MACHINE


@pytest.mark.usefixtures("way")
def test_a_process_lives_until_it_is_killed_and_is_dead_before_its_parent_looks() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    with child:
        owner = str(Owner.of(child.pid))
        assert life_of(owner) is Life.ALIVE
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
        assert life_of(owner) is Life.DEAD
    assert life_of(owner) is Life.DEAD
    with pytest.raises(OSError, match="No such"):
        Owner.of(child.pid)


def test_a_process_that_proc_does_not_show_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc is mounted with hidepid, which a test without privileges cannot do."""
    me = Owner.of_this_process()

    def hidden(pid: int) -> owners._Stat:
        raise FileNotFoundError(pid)

    monkeypatch.setattr(owners, "_stat", hidden)
    assert life_of(str(me), me) is Life.HIDDEN


@given(st.text(st.characters(min_codepoint=1, max_codepoint=126, exclude_characters="/"), max_size=15))
def test_a_process_may_be_called_anything(name: str) -> None:
    """A name with spaces and parentheses, as ") S 1 (", does not shift the fields behind it."""
    fields = ["S", *map(str, range(4, 22)), "777", *map(str, range(23, 53))]
    assert owners._read_stat(f"42 ({name}) {' '.join(fields)}\n") == owners._Stat("S", 777)

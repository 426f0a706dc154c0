"""What a leftover is called, and the command that removes it by hand."""

from __future__ import annotations

import pytest

from harness.testbed.leftovers import Kind, Leftover
from harness.testbed.owners import Life


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (Kind.CONTAINER, "docker rm --force --volumes it"),
        (Kind.NETWORK, "docker network rm it"),
        (Kind.VOLUME, "docker volume rm it"),
    ],
)
def test_a_thing_says_what_it_is_and_how_it_goes(kind: Kind, command: str) -> None:
    thing = Leftover(kind, "0123", "it", "a1b2", "", Life.UNREADABLE)
    assert str(thing) == f"{kind} it of run a1b2"
    assert thing.removal == command


def test_containers_go_before_the_networks_and_volumes_that_they_use() -> None:
    assert list(Kind) == [Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME]

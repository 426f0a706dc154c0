"""Caller and agent understand each other, whatever is cut off."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.testbed import wire

REQUESTS = st.one_of(
    st.builds(wire.SetLinks, st.tuples(st.builds(wire.LinkChange, st.text(), st.none() | st.text(), st.booleans()))),
    st.builds(wire.Reach, st.tuples(st.text()), st.integers(0, 10_000)),
    st.builds(
        wire.Spawn, st.text(), st.tuples(st.text()), st.dictionaries(st.text(), st.text()), st.text(), st.booleans()
    ),
    st.builds(wire.Signal, st.integers(1, 2**22), st.integers(1, 64)),
    st.builds(wire.OpenSocket, st.text()),
    st.just(wire.GetLinks()),
    st.just(wire.GetProcesses()),
)


@given(st.lists(REQUESTS, max_size=5))
def test_requests_arrive_as_they_were_sent(requests: list[wire.Request]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for request in requests:
            wire.send(ours, request)
        for request in requests:
            body, descriptor = wire.receive(theirs)
            assert wire.REQUESTS.decode(body) == request
            assert descriptor is None


def test_a_descriptor_arrives_and_works() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with ours, theirs:
        wire.send(ours, wire.SocketOpened(), write)
        os.close(write)
        body, descriptor = wire.receive(theirs)
        assert isinstance(wire.REPLIES.decode(body), wire.SocketOpened)
        assert descriptor is not None
        os.write(descriptor, b"through")
        os.close(descriptor)
        assert os.read(read, 100) == b"through"
        os.close(read)


@given(st.integers(0, 30))
def test_a_frame_cut_short_is_the_end_of_the_connection(length: int) -> None:
    ours, theirs = socket.socketpair()
    frame = b"\x00\x00\x00\x40" + b"x" * 64
    with theirs:
        with ours:
            ours.sendall(frame[:length])
        with pytest.raises(wire.ConnectionEnded):
            wire.receive(theirs)


def test_a_frame_that_claims_to_be_huge_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(wire.ConnectionEnded, match="not one of ours"):
            wire.receive(theirs)


def test_sending_to_nobody_is_the_end_of_the_connection() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(wire.ConnectionEnded):
        wire.send(ours, wire.GetLinks())

"""Whatever two sockets say to each other arrives through two relays, and nobody who is slow stops anybody else."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.testbed import relay, wire
from harness.testbed.relay import ByteStream, Kind, PipeStream, Relay, SocketStream

#: Far more than anything here takes.
TIMEOUT = 10.0


class Trickle:
    """A stream that takes few bytes at a time, as a busy connection may."""

    def __init__(self, stream: ByteStream, at_most: int) -> None:
        self._stream, self._at_most = stream, at_most
        self.descriptors, self.read, self.close = stream.descriptors, stream.read, stream.close

    def write(self, data: bytes | bytearray) -> int:
        return self._stream.write(data[: self._at_most])


@dataclass
class Ends:
    """What caller and agent hold: their Unix sockets, with two relays between them."""

    caller: socket.socket
    agent: socket.socket
    threads: list[threading.Thread] = field(default_factory=list)

    def hand_over(self, carried: socket.socket) -> socket.socket:
        """Let the agent hand over a socket; returns what the caller gets for it."""
        with carried:
            wire.send(self.agent, wire.SocketOpened(), carried.fileno())
        body, descriptor = wire.receive(self.caller)
        assert isinstance(wire.REPLIES.decode(body), wire.SocketOpened)
        assert descriptor is not None
        got = socket.socket(fileno=descriptor)
        got.settimeout(TIMEOUT)
        return got

    def opened(self) -> tuple[socket.socket, socket.socket]:
        """A relayed pair: the agent's end, and the caller's."""
        far, carried = socket.socketpair()
        far.settimeout(TIMEOUT)
        return far, self.hand_over(carried)

    def ask(self) -> float:
        """A request and its reply; returns how long they took, seconds."""
        began = time.monotonic()
        wire.send(self.caller, wire.GetLinks())
        body, _ = wire.receive(self.agent)
        assert wire.REQUESTS.decode(body) == wire.GetLinks()
        wire.send(self.agent, wire.Done(1, 2))
        body, _ = wire.receive(self.caller)
        assert wire.REPLIES.decode(body) == wire.Done(1, 2)
        return time.monotonic() - began


@contextmanager
def relayed(kind: str = "socket", at_most: int | None = None) -> Iterator[Ends]:
    caller, callers = socket.socketpair()
    agent, agents = socket.socketpair()
    streams: list[ByteStream]
    if kind == "socket":
        streams = [SocketStream(end) for end in socket.socketpair()]
    else:
        (there_out, there_in), (back_out, back_in) = os.pipe(), os.pipe()
        streams = [PipeStream(back_out, there_in), PipeStream(there_out, back_in)]
    if at_most is not None:
        streams = [Trickle(stream, at_most) for stream in streams]
    ends = Ends(caller, agent)
    for local, stream in zip((callers, agents), streams, strict=True):
        ends.threads.append(threading.Thread(target=Relay(local, stream).run, daemon=True))
        ends.threads[-1].start()
    for end in (caller, agent):
        end.settimeout(TIMEOUT)
    try:
        with caller, agent:
            yield ends
    finally:
        for thread in ends.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a relay did not end with its connection"


def read_all(connection: socket.socket) -> bytes:
    data = bytearray()
    while piece := connection.recv(65536):
        data += piece
    return bytes(data)


def say_all(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_requests_and_replies_arrive_in_turn(kind: str) -> None:
    with relayed(kind) as ends:
        for _ in range(50):
            ends.ask()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(1, 20))
def test_messages_arrive_whole_over_a_stream_that_takes_little_at_a_time(bodies: list[bytes], at_most: int) -> None:
    with relayed("socket", at_most) as ends:
        for body in bodies:
            wire.send_frame(ends.caller, body)
            assert wire.receive(ends.agent) == (body, None)
            wire.send_frame(ends.agent, body[::-1])
            assert wire.receive(ends.caller) == (body[::-1], None)


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_a_message_as_large_as_allowed(kind: str) -> None:
    body = os.urandom(1024) * (wire.MAX_FRAME // 1024)
    with relayed(kind) as ends:
        sender = threading.Thread(target=wire.send_frame, args=(ends.caller, body))
        sender.start()
        assert wire.receive(ends.agent)[0] == body
        sender.join()


#: Of which stream (number), at which end (the agent's or not), and what: bytes to send, or None: no more will come.
STEPS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.none() | st.binary(min_size=1, max_size=5000)))


@settings(deadline=None)
@given(STEPS, st.none() | st.integers(100, 3000))
def test_what_is_said_on_many_sockets_in_any_order_arrives_on_each(
    steps: list[tuple[int, bool, bytes | None]], at_most: int | None
) -> None:
    with relayed("socket", at_most) as ends:
        pairs = [ends.opened() for _ in range(4)]
        said = {(number, far): bytearray() for number in range(4) for far in (False, True)}
        ended: set[tuple[int, bool]] = set()
        for number, far, data in steps:
            if (number, far) in ended:
                continue
            end = pairs[number][0 if far else 1]
            if data is None:
                end.shutdown(socket.SHUT_WR)
                ended.add((number, far))
            else:
                end.sendall(data)
                said[number, far] += data
        for number, far in said.keys() - ended:
            pairs[number][0 if far else 1].shutdown(socket.SHUT_WR)
        for number, (there, here) in enumerate(pairs):
            with there, here:
                assert read_all(here) == said[number, True]
                assert read_all(there) == said[number, False]
        ends.ask()


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_much_data_in_both_directions_at_once(kind: str) -> None:
    data = os.urandom(1000) * 5000
    with relayed(kind) as ends:
        there, here = ends.opened()
        with there, here:
            got: dict[str, bytes] = {}
            threads = [
                threading.Thread(target=say_all, args=(there, data)),
                threading.Thread(target=say_all, args=(here, data)),
                threading.Thread(target=lambda: got.update(there=read_all(there))),
            ]
            for thread in threads:
                thread.start()
            assert read_all(here) == data
            for thread in threads:
                thread.join(TIMEOUT)
            assert got["there"] == data


def send_until_full(connection: socket.socket, pause: float = 0.3) -> int:
    """Send until nothing more is taken; returns how much was."""
    connection.settimeout(pause)
    sent = 0
    try:
        while True:
            sent += connection.send(bytes(8192))
    except TimeoutError:
        connection.settimeout(TIMEOUT)
        return sent


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_who_does_not_read_stops_nobody_else_and_loses_nothing(kind: str) -> None:
    with relayed(kind) as ends:
        full = [ends.opened() for _ in range(3)]
        sent = [send_until_full(there) for there, _here in full]
        back = [send_until_full(here) for _there, here in full]
        for amount in sent + back:
            # The window, and what the two socket pairs' own buffers hold.
            assert relay.WINDOW < amount < 4 * relay.WINDOW + 4 * 256 * 1024
        assert sorted(ends.ask() for _ in range(20))[10] < 0.05
        there, here = ends.opened()
        with there, here:
            there.sendall(b"still")
            assert here.recv(100) == b"still"
            here.sendall(b"flows")
            assert there.recv(100) == b"flows"
        for (there, here), amount, amount_back in zip(full, sent, back, strict=True):
            with there, here:
                there.shutdown(socket.SHUT_WR)
                assert len(read_all(here)) == amount
                here.shutdown(socket.SHUT_WR)
                assert len(read_all(there)) == amount_back


def test_no_more_is_taken_in_than_the_way_out_takes() -> None:
    """Else a request would wait behind all that is taken in already."""
    ours, theirs = socket.socketpair()
    agent, local = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    thread = threading.Thread(target=Relay(local, SocketStream(theirs)).run, daemon=True)
    thread.start()
    talking = []
    for _ in range(8):
        far, carried = socket.socketpair()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with carried:
            wire.send(agent, wire.SocketOpened(), carried.fileno())
        talking.append(far)
    assert sum(send_until_full(far, 0.1) for far in talking) < 2 * relay.WINDOW
    for end in (*talking, ours, agent):
        end.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_no_processor_time_is_spent_while_nothing_moves() -> None:
    with relayed() as ends:
        there, here = ends.opened()
        send_until_full(there)
        there.close()  # the relay sees its end, and can do nothing about it before somebody reads
        half, half_here = ends.opened()
        half.shutdown(socket.SHUT_WR)
        assert half_here.recv(10) == b""
        began = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - began < 0.2
        with here, half, half_here:
            assert len(read_all(here)) > relay.WINDOW


@pytest.mark.parametrize("far", [True, False])
def test_the_last_words_before_a_close_arrive_and_then_the_end(far: bool) -> None:
    with relayed() as ends:
        there, here = ends.opened()
        closing, staying = (there, here) if far else (here, there)
        with staying:
            staying.sendall(b"never read")
            closing.sendall(b"x" * 100_000)
            closing.close()
            try:
                got = read_all(staying)
            except ConnectionResetError:  # as with any Unix socket whose other end closes with something unread
                got = b"x" * 100_000
            assert got == b"x" * 100_000
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                for _ in range(1000):
                    staying.sendall(b"to nobody")
                    time.sleep(0.005)
        ends.ask()


@pytest.mark.parametrize("far", [True, False])
def test_a_close_after_an_end_is_seen_although_nothing_is_sent(far: bool) -> None:
    with relayed() as ends:
        there, here = ends.opened()
        first, second = (there, here) if far else (here, there)
        with second:
            first.shutdown(socket.SHUT_WR)
            assert second.recv(1) == b""
            first.close()
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                for _ in range(1000):
                    second.sendall(b"to nobody")
                    time.sleep(0.005)


def connecting(port: int) -> socket.socket:
    started = socket.socket()
    started.setblocking(False)
    started.connect_ex(("127.0.0.1", port))
    return started


def test_a_socket_that_is_still_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, relayed() as ends:
        here = ends.hand_over(connecting(listener.getsockname()[1]))
        here.sendall(b"first")
        accepted, _address = listener.accept()
        with here, accepted:
            accepted.settimeout(TIMEOUT)
            assert accepted.recv(100) == b"first"
            accepted.sendall(b"second")
            assert here.recv(100) == b"second"
            here.close()
            assert accepted.recv(100) == b""


def test_a_connection_that_does_not_come_about_is_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with relayed() as ends, ends.hand_over(connecting(port)) as refused, ends.hand_over(socket.socket()) as never:
        assert refused.recv(1) == b""
        assert never.recv(1) == b""


def test_a_reset_is_an_end_after_all_that_was_said_before() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        relayed() as ends,
        ends.hand_over(connecting(listener.getsockname()[1])) as here,
    ):
        accepted, _address = listener.accept()
        accepted.sendall(b"before")
        assert here.recv(100) == b"before"
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        assert here.recv(100) == b""


def test_more_sockets_than_allowed_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_STREAMS", 2)
    with relayed() as ends:
        pairs = [ends.opened() for _ in range(3)]
        assert pairs[2][1].recv(1) == b""
        pairs[0][0].sendall(b"ok")
        assert pairs[0][1].recv(10) == b"ok"
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_when_the_agent_ends_its_last_message_arrives_and_sockets_close(kind: str) -> None:
    with relayed(kind) as ends:
        there, here = ends.opened()
        with there, here:
            wire.send(ends.agent, wire.Failed("TestbedError", "last words"))
            ends.agent.close()
            body, _ = wire.receive(ends.caller)
            assert wire.REPLIES.decode(body) == wire.Failed("TestbedError", "last words")
            with pytest.raises(wire.ConnectionEnded):
                wire.receive(ends.caller)
            assert here.recv(1) == b""
            assert there.recv(1) == b""


def test_last_words_wait_for_a_busy_connection() -> None:
    ours, theirs = socket.socketpair()
    agent, local = socket.socketpair()
    thread = threading.Thread(target=Relay(local, SocketStream(theirs)).run, daemon=True)
    thread.start()
    body = os.urandom(3_000_000)
    with agent:
        wire.send_frame(agent, body)
    time.sleep(0.1)
    with ours:
        ours.settimeout(TIMEOUT)
        assert read_all(ours) == struct.pack(">BII", Kind.MESSAGE, 0, len(body)) + body
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_small_writes_do_not_wait_for_one_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, relayed() as ends:
        started = connecting(listener.getsockname()[1])
        with started.dup() as same, ends.hand_over(started) as here:
            here.sendall(b"x")
            accepted, _address = listener.accept()
            with accepted:
                assert accepted.recv(1) == b"x"
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_when_the_caller_ends_so_does_the_agents_connection() -> None:
    with relayed("pipe") as ends:
        there, here = ends.opened()
        with there, here:
            ends.caller.close()
            with pytest.raises(wire.ConnectionEnded):
                wire.receive(ends.agent)
            assert there.recv(1) == b""


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(
        st.builds(
            lambda kind, number, payload: struct.pack(">BII", kind, number, len(payload)) + payload,
            st.sampled_from([*Kind, 0, 77]),
            st.integers(0, 3),
            st.binary(max_size=10),
        )
    ).map(b"".join)
)
def test_nonsense_ends_the_connection_at_worst(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair()
    caller, local = socket.socketpair()
    thread = threading.Thread(target=Relay(local, SocketStream(theirs)).run, daemon=True)
    thread.start()
    with caller, ours:
        ours.sendall(nonsense)
        ours.shutdown(socket.SHUT_WR)
        thread.join(TIMEOUT)
        assert not thread.is_alive()

"""The engine's framing of a container's output is taken off, however it is cut; what cannot be polled is made so."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.testbed.attached import AttachedStream

PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=400)))


def framed(pieces: Sequence[tuple[int, bytes]]) -> bytes:
    """As the engine sends it."""
    return b"".join(struct.pack(">BxxxI", kind, len(data)) + data for kind, data in pieces)


def raw_file(connection: socket.socket) -> socket.SocketIO:
    """A connection as the SDK has it."""
    return socket.SocketIO(connection, "rwb")


def read_all(stream: AttachedStream, seconds: float = 10.0) -> bytes:
    data = bytearray()
    deadline = time.monotonic() + seconds
    while (piece := stream.read()) != b"":
        assert time.monotonic() < deadline
        data += piece or b""
    return bytes(data)


@given(PIECES, st.lists(st.integers(1, 50)))
def test_output_and_errors_are_told_apart_however_they_are_cut(
    pieces: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    engine, ours = socket.socketpair()
    stream = AttachedStream(raw_file(ours))
    sent, got = framed(pieces), bytearray()
    with engine:
        for cut in [*cuts, len(sent)]:
            engine.sendall(sent[:cut])
            sent = sent[cut:]
            got += stream.read() or b""
        engine.shutdown(socket.SHUT_WR)
        got += read_all(stream)
    stream.close()
    assert got == b"".join(data for kind, data in pieces if kind == 1)
    errors = b"".join(data for kind, data in pieces if kind == 2)
    assert stream.errors == errors[-8192:].decode(errors="replace").strip()


def test_input_is_sent_as_it_is_and_close_is_its_end() -> None:
    engine, ours = socket.socketpair()
    stream = AttachedStream(raw_file(ours))
    with engine:
        assert stream.read() is None
        assert stream.write(b"\x10\x11words") == 7
        assert engine.recv(100) == b"\x10\x11words"
        closed = [stream.closed]
        for _ in range(2):
            stream.close()
            closed.append(stream.closed)
        assert closed == [False, True, True]
        assert engine.recv(100) == b""


def encrypted(kind: int) -> ssl.SSLContext:
    """Without certificates: this is about how such a socket is read and written."""
    context = ssl.SSLContext(kind)
    if kind == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


@settings(deadline=None)
@given(PIECES)
def test_a_connection_with_tls(pieces: list[tuple[int, bytes]]) -> None:
    far, near = socket.socketpair()
    with ThreadPoolExecutor(1) as executor:
        served = executor.submit(encrypted(ssl.PROTOCOL_TLS_SERVER).wrap_socket, far, server_side=True)
        stream = AttachedStream(encrypted(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(near))
        engine = served.result()
    engine.settimeout(10)
    with engine:
        assert stream.read() is None
        assert stream.write(b"request") == 7
        assert engine.recv(100) == b"request"
        engine.sendall(framed([*pieces, (1, b"x" * 40_000)]))
        got, deadline = b"", time.monotonic() + 10
        while not got.endswith(b"x" * 40_000):
            got += stream.read() or b""
            assert time.monotonic() < deadline
        assert got == b"".join(data for kind, data in pieces if kind == 1) + b"x" * 40_000
        stream.close()
        with contextlib.suppress(ConnectionResetError):
            assert engine.recv(100) == b""


class Blocking:
    """A connection over SSH as the SDK has it with an `ssh` program: `recv` waits until all is there."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def recv(self, count: int) -> bytes:
        return self._file.read(count)

    def sendall(self, data: bytes) -> None:
        self._connection.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        self._connection.settimeout(seconds)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # its other end is closed, or it is
            self._connection.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._connection.close()


@settings(deadline=None)
@given(PIECES)
def test_a_connection_that_only_blocks(pieces: list[tuple[int, bytes]]) -> None:
    engine, ours = socket.socketpair()
    before = threading.active_count()
    stream = AttachedStream(Blocking(ours))
    with engine:
        engine.settimeout(10)
        assert stream.write(b"request") == 7
        assert engine.recv(100) == b"request"
        engine.sendall(framed([(1, b"reply")]))
        got = b""
        deadline = time.monotonic() + 10
        while got != b"reply":
            got += stream.read() or b""
            assert time.monotonic() < deadline
        engine.sendall(framed(pieces))
        engine.shutdown(socket.SHUT_WR)
        assert read_all(stream) == b"".join(data for kind, data in pieces if kind == 1)
        stream.close()
        assert engine.recv(100) == b""
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "its threads go on"
        time.sleep(0.001)


def test_the_end_of_a_blocking_connection_in_the_middle_of_a_frame_is_an_end() -> None:
    engine, ours = socket.socketpair()
    stream = AttachedStream(Blocking(ours))
    with engine:
        engine.sendall(framed([(1, b"reply")])[:-2])
        engine.shutdown(socket.SHUT_WR)
        assert read_all(stream) == b""
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            for _ in range(1000):
                stream.write(b"x")
                time.sleep(0.005)
    stream.close()

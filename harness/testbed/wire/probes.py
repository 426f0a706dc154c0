"""Datagrams that show what becomes of packets."""

from __future__ import annotations

import msgspec


class Reach(msgspec.Struct, frozen=True, tag=True):
    """Send datagrams from every NIC to every other NIC of these switches and see from which to which one arrives."""

    switches: tuple[str, ...]
    timeout_ms: int
    #: How many on each path; more than one where some are lost on purpose.
    count: int = 1
    #: One to all at once, as a broadcast, which needs no ARP; else one to each.
    broadcast: bool = False


class Path(msgspec.Struct, frozen=True):
    """Whether one datagram went from one host to another over one switch, and how long it took, microseconds."""

    source: str
    destination: str
    switch: str
    micros: float | None
    #: Why it could not even be sent, if so.
    error: str = ""


class Paths(msgspec.Struct, frozen=True, tag=True):
    """Reply to Reach."""

    paths: tuple[Path, ...]


class Train(msgspec.Struct, frozen=True):
    """Numbered datagrams from a host to another over one switch, one every so many microseconds."""

    source: str
    destination: str
    switch: str
    count: int
    gap_us: float
    #: Bytes, without the headers.
    size: int


class StartTrains(msgspec.Struct, frozen=True, tag=True):
    """Begin to send, all at once; what arrives later than the timeout after the last was sent counts as lost."""

    trains: tuple[Train, ...]
    timeout_ms: float
    #: How long to wait for duplicates when all have arrived.
    linger_ms: float = 0.0
    #: After so long no more are sent: a busy machine sends fewer, and not for ever.
    limit_ms: float = 30_000.0


class GetTrains(msgspec.Struct, frozen=True, tag=True):
    """Ask what has arrived."""


class Arrivals(msgspec.Struct, frozen=True):
    """What became of a train."""

    #: When each datagram was sent, microseconds after the first of all.
    sent: tuple[float, ...]
    #: How long each one took, microseconds; None where none arrived unharmed. The first copy counts.
    micros: tuple[float | None, ...]
    #: Copies beyond the first.
    duplicates: int
    #: Those that arrived with other bytes than were sent.
    damaged: int
    #: Why they could not be sent, if so.
    error: str = ""


class Trains(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetTrains: in the order of the request; None while they are on their way."""

    arrivals: tuple[Arrivals, ...] | None

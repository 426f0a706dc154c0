"""What caller and agent say to each other over one Unix socket.

A frame is a 4-byte big-endian length and a JSON message tagged by its type; a reply may carry one descriptor
(SCM_RIGHTS). One request, one reply, in order.
"""

from __future__ import annotations

import array
import socket
import struct
from enum import StrEnum

import msgspec

#: Largest frame, bytes; the largest topology's Build request has about 20 kB.
MAX_FRAME = 4 * 1024 * 1024


#: Descriptors that arrive are nobody's heirloom. A Mac has no such flag.
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class NicSpec(msgspec.Struct, frozen=True):
    """A NIC to make."""

    switch: str
    address: str
    prefix_length: int


class HostSpec(msgspec.Struct, frozen=True):
    """A host: a network namespace with a loopback and NICs, to be made, or a container's that comes with `Join`."""

    name: str
    nics: tuple[NicSpec, ...]
    container: bool = False


class EngineSpec(msgspec.Struct, frozen=True):
    """Where the switches are the bridges of a Docker engine, in its network namespace."""

    #: The bridge's interface name, by switch.
    bridges: dict[str, str]
    #: A process in the engine's network namespace, as the machine's first pid namespace counts; None: that is the
    #: namespace that the agent was started in.
    pid: int | None
    #: Begins the names of the ports that are made, so that two runs never collide; at most 8 characters.
    tag: str


class Build(msgspec.Struct, frozen=True, tag=True):
    """Make switches and hosts. Sent once."""

    switches: tuple[str, ...]
    hosts: tuple[HostSpec, ...]
    #: None: the switches are made, too.
    engine: EngineSpec | None = None


class Join(msgspec.Struct, frozen=True, tag=True):
    """A container runs: its network namespace is the host's from now on; links that are cut stay cut."""

    host: str
    #: Of its first process, as the machine's first pid namespace counts.
    pid: int


class Leave(msgspec.Struct, frozen=True, tag=True):
    """A container has ended: its host is down until it joins again."""

    host: str


class GetStates(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of processes that Spawn did not start, as the machine's first pid namespace counts."""

    pids: tuple[int, ...]


class LinkChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cut or restore one switch (all its ports lose their carrier) or one port of one switch."""

    switch: str
    #: None: the whole switch.
    host: str | None
    up: bool
    #: Of a whole switch: the hosts whose ports stay as they are.
    but: tuple[str, ...] = ()


class SetLinks(msgspec.Struct, frozen=True, tag=True):
    """Apply changes as one batch."""

    changes: tuple[LinkChange, ...]


class NicChange(msgspec.Struct, frozen=True):
    """Set one NIC of one host up or down, as its host does it."""

    host: str
    switch: str
    up: bool


class SetNics(msgspec.Struct, frozen=True, tag=True):
    """Apply changes as one batch; a NIC that was up before has its addresses and routes back afterwards."""

    changes: tuple[NicChange, ...]


class Split(msgspec.Struct, frozen=True):
    """A switch in islands of hosts. Whatever else is plugged into it is in the last one."""

    switch: str
    islands: tuple[tuple[str, ...], ...]

    def parts(self, switch: str, one: str, other: str) -> bool:
        """Whether it is between two hosts on a switch."""
        return switch == self.switch and not any(one in island and other in island for island in self.islands)


class SetSplits(msgspec.Struct, frozen=True, tag=True):
    """Let these splits hold, of all switches, and no others."""

    splits: tuple[Split, ...]


class Manner(StrEnum):
    """What becomes of a packet."""

    #: It vanishes, and the sender waits.
    DROP = "drop"
    #: The sender is told at once, by a reset or by ICMP.
    REJECT = "reject"
    #: It vanishes by chance.
    LOSE = "lose"


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of packets that arrive at a host."""

    host: str
    #: The address that they come from.
    source: str
    manner: Manner
    #: Only TCP to this port; None: all.
    port: int | None = None
    #: Of `Manner.LOSE`: which share of them, from 0 to 1.
    share: float = 1.0


class SetRules(msgspec.Struct, frozen=True, tag=True):
    """Let these rules hold, on all hosts, and no others."""

    rules: tuple[Rule, ...]


class Spread(StrEnum):
    """How delays are spread around their middle."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


class Chain(msgspec.Struct, frozen=True):
    """Loss that comes in bursts (Gilbert and Elliott): a path is good or bad, and may change with each packet."""

    to_bad: float
    to_good: float
    lost_in_bad: float = 1.0
    lost_in_good: float = 0.0


class Effects(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of packets that pass a NIC. Shares are from 0 to 1."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    spread: Spread = Spread.UNIFORM
    #: How much of each delay's deviation is the one before it.
    correlation: float = 0.0
    loss: float = 0.0
    bursts: Chain | None = None
    duplicate: float = 0.0
    #: The share that is not delayed, and so overtakes.
    reorder: float = 0.0
    #: The share in which one bit is turned over.
    corrupt: float = 0.0
    #: Bits per second, of whole frames; 0: as many as may be.
    rate: int = 0


class Side(StrEnum):
    """Which way packets go through a NIC, as its host sees it."""

    OUT = "out"
    IN = "in"


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of packets that go one way through one NIC."""

    host: str
    switch: str
    side: Side
    effects: Effects
    #: Only those to (`OUT`) or from (`IN`) this address; None: all others.
    peer: str | None = None


class SetShapes(msgspec.Struct, frozen=True, tag=True):
    """Let these shapes hold, on all NICs, and no others; at most one for a NIC, side and peer."""

    shapes: tuple[Shape, ...]


class GetLacking(msgspec.Struct, frozen=True, tag=True):
    """Try in an empty namespace what shapes are made of, and tell what the kernel refuses."""


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


class GetLinks(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every switch and port as the kernel has it."""


class GetNics(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every NIC on these switches, as its host's kernel has it."""

    switches: tuple[str, ...]


class Reach(msgspec.Struct, frozen=True, tag=True):
    """Send datagrams from every NIC to every other NIC of these switches and see from which to which one arrives."""

    switches: tuple[str, ...]
    timeout_ms: int
    #: How many on each path; more than one where some are lost on purpose.
    count: int = 1
    #: One to all at once, as a broadcast, which needs no ARP; else one to each.
    broadcast: bool = False


class Spawn(msgspec.Struct, frozen=True, tag=True):
    """Start a process on a host. With `channel`, it gets one end of a socket pair as descriptor 3."""

    host: str
    argv: tuple[str, ...]
    env: dict[str, str]
    #: File that its output is appended to.
    output: str
    channel: bool
    #: Files of control groups that its pid is written to before anything else is done with it.
    entrances: tuple[str, ...] = ()


class Enclose(msgspec.Struct, frozen=True, tag=True):
    """Move a process that Spawn started into control groups."""

    pid: int
    entrances: tuple[str, ...]


class Signal(msgspec.Struct, frozen=True, tag=True):
    """Send a signal to a process that Spawn started."""

    pid: int
    number: int


class GetProcesses(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every process that Spawn started."""


class OpenSocket(msgspec.Struct, frozen=True, tag=True):
    """Open a TCP socket in a host's namespace and begin to connect it; its descriptor comes with the reply.

    It is non-blocking, and may still be connecting.
    """

    host: str
    address: str
    port: int


Change = Build | Join | Leave | SetLinks | SetNics | SetSplits | SetRules | SetShapes | StartTrains | Signal | Enclose
Look = GetStates | GetLinks | GetNics | GetLacking | GetTrains | Reach | GetProcesses
Request = Change | Look | Spawn | OpenSocket


class Ready(msgspec.Struct, frozen=True, tag=True):
    """First message of the agent: it stands in its namespaces."""

    rootless: bool
    #: The Python that it runs in, and the PYTHONPATH that it was started with.
    python: str
    pythonpath: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """Carried out, between two monotonic instants in nanoseconds."""

    started: int
    ended: int


class LinkState(msgspec.Struct, frozen=True):
    """One switch (`host` None) or one port, and whether it is up."""

    switch: str
    host: str | None
    up: bool


class Links(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetLinks."""

    links: tuple[LinkState, ...]


class NicState(msgspec.Struct, frozen=True):
    """A host's end of a cable; one of a container that does not run is as it will find it."""

    switch: str
    host: str
    #: Its interface index there, which a container's next NIC does not have again; 0 while there is none.
    index: int
    up: bool
    #: Whether there is somebody at the other end, and how often there was suddenly not.
    carrier: bool = False
    losses: int = 0


class Nics(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetNics."""

    nics: tuple[NicState, ...]


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


class Lacking(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetLacking: what the kernel said, by the name of what it refused (`netem`, ...)."""

    refusals: dict[str, str]


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


class Spawned(msgspec.Struct, frozen=True, tag=True):
    """Reply to Spawn: the process id within the agent's pid namespace."""

    pid: int
    at: int


class ProcessState(msgspec.Struct, frozen=True):
    """A process: `state` as in /proc/pid/stat (`R`, `S`, `T` stopped, ...), or `X` with its exit `code`."""

    pid: int
    state: str
    code: int | None
    #: When it ended, monotonic nanoseconds.
    ended: int | None


class Processes(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetProcesses."""

    processes: tuple[ProcessState, ...]


class States(msgspec.Struct, frozen=True, tag=True):
    """Reply to GetStates, in its order: as in /proc/pid/stat, or `X` where there is no such process."""

    states: tuple[str, ...]


class SocketOpened(msgspec.Struct, frozen=True, tag=True):
    """Reply to OpenSocket; the descriptor comes with it."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The agent could not do it. The fields are those of `ZkChaosError`; `errno` as the kernel gave it."""

    kind: str
    what: str
    where: str = ""
    cause: str = ""
    next_step: str = ""
    errno: int = 0


Reply = Ready | Done | Links | Nics | Lacking | Paths | Trains | Spawned | Processes | States | SocketOpened | Failed

_encoder = msgspec.json.Encoder()
REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_LENGTH = struct.Struct(">I")


class ConnectionEnded(Exception):
    """The other side is gone. Not: a time-out."""


def send(connection: socket.socket, message: Request | Reply, descriptor: int | None = None) -> None:
    """Send one message, with a descriptor if one is given."""
    send_frame(connection, _encoder.encode(message), descriptor)


def send_frame(connection: socket.socket, body: bytes, descriptor: int | None = None) -> None:
    """Send one frame's body, with a descriptor if one is given.

    Raises:
        ConnectionEnded: the other side closed the socket.
    """
    frame = _LENGTH.pack(len(body)) + body
    try:
        if descriptor is not None:
            rights = array.array("i", [descriptor])
            sent = connection.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            frame = frame[sent:]
        connection.sendall(frame)
    except (BrokenPipeError, ConnectionResetError) as gone:
        raise ConnectionEnded from gone


def receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Receive one frame's body and the descriptor that came with it.

    Raises:
        ConnectionEnded: the other side closed the socket.
    """
    header, descriptor = _read(connection, _LENGTH.size)
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ConnectionEnded(f"a frame of {length} bytes is not one of ours")
    body, late = _read(connection, length)
    return body, descriptor if descriptor is not None else late


def _read(connection: socket.socket, length: int) -> tuple[bytes, int | None]:
    data = bytearray()
    descriptor: int | None = None
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    while len(data) < length:
        try:
            piece, ancillary, _flags, _address = connection.recvmsg(length - len(data), room, _CLOSE_ON_EXEC)
        except ConnectionResetError as gone:
            raise ConnectionEnded from gone
        if not piece:
            raise ConnectionEnded
        data += piece
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", rights)[0]
    return bytes(data), descriptor

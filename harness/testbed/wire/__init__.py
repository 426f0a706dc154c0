"""What caller and agent say to each other over one Unix socket.

A frame has a JSON message tagged by its type; a reply may carry one descriptor. One request, one reply, in order.
The messages are in a module for each thing that they are about; this one has all of them.
"""

from __future__ import annotations

import socket

import msgspec

from harness.testbed.wire.answers import Done, Failed, Ready
from harness.testbed.wire.filters import Manner, Rule, SetRules
from harness.testbed.wire.frames import MAX_FRAME, ConnectionEnded, receive, send_frame
from harness.testbed.wire.links import (
    GetLinks,
    GetNics,
    LinkChange,
    Links,
    LinkState,
    NicChange,
    Nics,
    NicState,
    SetLinks,
    SetNics,
    SetSplits,
    Split,
)
from harness.testbed.wire.plant import Build, EngineSpec, HostSpec, Join, Leave, NicSpec
from harness.testbed.wire.probes import Arrivals, GetTrains, Path, Paths, Reach, StartTrains, Train, Trains
from harness.testbed.wire.processes import (
    Enclose,
    GetProcesses,
    GetStates,
    OpenSocket,
    Processes,
    ProcessState,
    Signal,
    SocketOpened,
    Spawn,
    Spawned,
    States,
)
from harness.testbed.wire.shapes import Chain, Effects, GetLacking, Lacking, SetShapes, Shape, Side, Spread

__all__ = [
    "MAX_FRAME",
    "REPLIES",
    "REQUESTS",
    "Arrivals",
    "Build",
    "Chain",
    "Change",
    "ConnectionEnded",
    "Done",
    "Effects",
    "Enclose",
    "EngineSpec",
    "Failed",
    "GetLacking",
    "GetLinks",
    "GetNics",
    "GetProcesses",
    "GetStates",
    "GetTrains",
    "HostSpec",
    "Join",
    "Lacking",
    "Leave",
    "LinkChange",
    "LinkState",
    "Links",
    "Look",
    "Manner",
    "NicChange",
    "NicSpec",
    "NicState",
    "Nics",
    "OpenSocket",
    "Path",
    "Paths",
    "ProcessState",
    "Processes",
    "Reach",
    "Ready",
    "Reply",
    "Request",
    "Rule",
    "SetLinks",
    "SetNics",
    "SetRules",
    "SetShapes",
    "SetSplits",
    "Shape",
    "Side",
    "Signal",
    "SocketOpened",
    "Spawn",
    "Spawned",
    "Split",
    "Spread",
    "StartTrains",
    "States",
    "Train",
    "Trains",
    "receive",
    "send",
    "send_frame",
]

Change = Build | Join | Leave | SetLinks | SetNics | SetSplits | SetRules | SetShapes | StartTrains | Signal | Enclose
Look = GetStates | GetLinks | GetNics | GetLacking | GetTrains | Reach | GetProcesses
Request = Change | Look | Spawn | OpenSocket

Reply = Ready | Done | Links | Nics | Lacking | Paths | Trains | Spawned | Processes | States | SocketOpened | Failed

_encoder = msgspec.json.Encoder()
REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def send(connection: socket.socket, message: Request | Reply, descriptor: int | None = None) -> None:
    """Send one message, with a descriptor if one is given."""
    send_frame(connection, _encoder.encode(message), descriptor)

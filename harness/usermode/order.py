"""What the machine asks of the guest, and the words in which they talk while a command runs."""

from __future__ import annotations

from pathlib import Path

import msgspec

#: Files and folders of the scratch folder, which both sides see.
ORDER_FILE = "order.json"
INIT_FILE = "init"
TOP_FOLDER = "top"

#: The guest's terminals: one for the conversation, one for each of the command's streams.
CONTROL, STDOUT, STDERR = "tty1", "tty2", "tty3"

#: How long a command that was told to end may take to heal, judge and tell, seconds; then it is killed.
GRACE_S = 60


class Screen(msgspec.Struct, frozen=True):
    """The size of the caller's terminal, in characters."""

    rows: int
    columns: int


class Order(msgspec.Struct, frozen=True):
    """A command, and the surroundings that it shall find."""

    command: tuple[str, ...]
    directory: str
    environ: dict[str, str]
    #: Folders of the machine that it may write to; each exists. All else that it writes is gone at the end.
    writable: tuple[str, ...] = ()
    #: The terminal that a stream leads to; None if it leads elsewhere.
    stdout: Screen | None = None
    stderr: Screen | None = None
    #: Whether it shall find a Docker engine of its own.
    docker: bool = False


class Running(msgspec.Struct, frozen=True, tag="running"):
    """The guest says: the command was started."""

    #: Since the kernel was started, in its own time.
    uptime_s: float


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The guest says: the command has ended, everything that it wrote is on the machine's disk, and I power off."""

    #: As a shell has it: 128 and the signal's number if a signal ended it.
    code: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The guest says: the command was not started, as these surroundings could not be made."""

    why: str


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """The machine says: send this signal to the command."""

    number: int


#: One JSON object a line.
Answer = Running | Ended | Refused
ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
SIGNALS: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(Signal)


def line(message: Answer | Signal) -> bytes:
    """A message as it is sent."""
    return msgspec.json.encode(message) + b"\n"


def read_order(scratch: Path) -> Order:
    """The order that lies in a scratch folder."""
    return msgspec.json.decode((scratch / ORDER_FILE).read_bytes(), type=Order)


class Lines:
    """Cuts what comes over a terminal into lines; a line without an end is kept until the rest comes."""

    #: Longer lines are nobody's of ours.
    MAX = 65536

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The whole lines that there are now, without their ends."""
        *whole, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[-self.MAX :]
        return [one for one in whole if one.strip()]

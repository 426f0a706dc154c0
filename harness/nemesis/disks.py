"""What becomes of a server's disk: the grammar.

::

    full         whatever needs space is refused (ENOSPC); what is there can be read and removed
    read-only    whatever would change something is refused (EROFS), as by a kernel that has found an error there
    failing      writing, and forcing to the disk what was written, fails (EIO)
    slow 50ms    forcing data to the disk takes so much longer, from 1 ms to 60 s
    stuck        whatever would change something, or force data to the disk, hangs until the fault is healed

    full unattended, read-only unattended, failing unattended

A server's transaction logs and its snapshots are on that disk; its configuration and its own log are not.

ZooKeeper does not end when it cannot write. It goes on with what it has in memory, and when the disk takes writes again
its log lacks what it could not write, or is spoilt; 3.9.5 then refuses to start with it some day. So healing does what
an operator should do, and restarts the server before its disk is well again; `unattended` leaves it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.testbed.disk_words import Ailment, DiskState
from harness.topology.duration import format_duration, parse_duration
from harness.topology.toml_document import allowed_words, value_text

_REFUSING = {str(ailment): ailment for ailment in (Ailment.FULL, Ailment.READ_ONLY, Ailment.FAILING)}
_UNATTENDED = "unattended"
_ALLOWED = (
    f'{allowed_words([*_REFUSING, Ailment.STUCK])}, such as "slow 50ms", or one of the first three with '
    f'"{_UNATTENDED}" behind it'
)
#: The longest that a disk may take longer, seconds: its server counts as dead long before.
_MOST_S = 60.0


@dataclass(frozen=True)
class Trouble:
    """What is to become of a disk."""

    state: DiskState
    #: Whether healing restarts the server.
    restart: bool = False

    def __str__(self) -> str:
        ailment = self.state.ailment or ""
        if self.state.ailment is Ailment.SLOW:
            return f"{ailment} {format_duration(self.state.slow_ms / 1000)}"
        return f"{ailment} {_UNATTENDED}" if ailment in _REFUSING and not self.restart else str(ailment)


def parse(text: str) -> Trouble:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form.
    """
    word, _space, rest = text.partition(" ")
    if word in _REFUSING and rest in ("", _UNATTENDED) and not text.endswith(" "):
        return Trouble(DiskState(_REFUSING[word]), restart=not rest)
    if text == Ailment.STUCK:
        return Trouble(DiskState(Ailment.STUCK))
    if word != Ailment.SLOW:
        raise ValueError(f"{value_text(text)} is nothing that a disk can be; allowed: {_ALLOWED}")
    try:
        seconds = parse_duration(rest)
    except ValueError as problem:
        raise ValueError(f"{value_text(text)}: {problem}") from problem
    if not 0 < seconds <= _MOST_S:
        raise ValueError(f"{value_text(text)} is not from 1 ms to {_MOST_S:g} s; allowed: {_ALLOWED}")
    return Trouble(DiskState(Ailment.SLOW, round(seconds * 1000)))

"""What becomes of a server's disk: the grammar.

::

    full         whatever needs space is refused (ENOSPC); what is there can be read and removed
    read-only    whatever would change something is refused (EROFS), as by a kernel that has found an error there
    failing      writes are taken, and forcing them to the disk fails (EIO), as a broken disk does behind a page cache
    slow 50ms    forcing data to the disk takes so much longer, from 1 ms to 60 s
    stuck        whatever would change something, or force data to the disk, hangs until the fault is healed

A server's transaction logs and its snapshots are on that disk; its configuration and its own log are not.
"""

from __future__ import annotations

from harness.testbed.disk_words import Ailment, DiskState
from harness.topology.duration import format_duration, parse_duration
from harness.topology.toml_document import allowed_words, value_text

_PLAIN = {str(ailment): ailment for ailment in Ailment if ailment is not Ailment.SLOW}
_ALLOWED = f'{allowed_words(_PLAIN)}, or such as "slow 50ms"'
#: The longest that a disk may take longer, seconds: its server counts as dead long before.
_MOST_S = 60.0


def parse(text: str) -> DiskState:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form.
    """
    if text in _PLAIN:
        return DiskState(_PLAIN[text])
    word, _space, rest = text.partition(" ")
    if word != Ailment.SLOW:
        raise ValueError(f"{value_text(text)} is nothing that a disk can be; allowed: {_ALLOWED}")
    try:
        seconds = parse_duration(rest)
    except ValueError as problem:
        raise ValueError(f"{value_text(text)}: {problem}") from problem
    if not 0 < seconds <= _MOST_S:
        raise ValueError(f"{value_text(text)} is not from 1 ms to {_MOST_S:g} s; allowed: {_ALLOWED}")
    return DiskState(Ailment.SLOW, round(seconds * 1000))


def format_state(state: DiskState) -> str:
    """The text that `parse` reads."""
    if state.ailment is Ailment.SLOW:
        return f"{state.ailment} {format_duration(state.slow_ms / 1000)}"
    return str(state.ailment or "well")

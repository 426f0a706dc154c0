"""What becomes of a server's data while it is down: the grammar.

::

    truncate log        its transaction log ends in the middle of the last record
    corrupt log         a byte of the last record of its transaction log is another one
    corrupt snapshot    a byte of its newest snapshot is another one
    wipe                its logs, its snapshots and its epochs are gone; who it is, and its configuration, are not

The server is killed, its data is damaged, and when the fault is healed it is started with what it has.
"""

from __future__ import annotations

from enum import StrEnum

from harness.topology.toml_document import allowed_words, value_text


class Damage(StrEnum):
    """What is done."""

    TRUNCATE_LOG = "truncate log"
    CORRUPT_LOG = "corrupt log"
    CORRUPT_SNAPSHOT = "corrupt snapshot"
    WIPE = "wipe"


def parse(text: str) -> Damage:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form.
    """
    try:
        return Damage(text)
    except ValueError as problem:
        allowed = allowed_words(str(damage) for damage in Damage)
        raise ValueError(f"{value_text(text)} is no damage that can be done; allowed: {allowed}") from problem

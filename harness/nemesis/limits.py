"""What a server's process gets of the machine: the grammar."""

from __future__ import annotations


def parse(text: str) -> object:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form.
    """
    raise NotImplementedError(text)

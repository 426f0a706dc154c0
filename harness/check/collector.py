"""Keeps Python's cyclic garbage collector out of the way of millions of records."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch the cyclic collector off for a while.

    Records and the lists that judges make of them have no cycles, so there is nothing for it to find; but it would
    walk all of them each time a few thousand more are made, which takes longer than judging them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""Packet filters: whom a host does not hear."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Manner(StrEnum):
    """What becomes of a packet."""

    #: It vanishes, and the sender waits.
    DROP = "drop"
    #: The sender is told at once, by a reset or by ICMP.
    REJECT = "reject"
    #: It vanishes by chance.
    LOSE = "lose"


class Rule(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
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

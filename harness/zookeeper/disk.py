"""Servers whose disks can be told to ail, each by itself: their folders are mounted through a process of ours.

`txnlog` and `snapshot` of a server are one disk. Configuration and logs are on another, as it were, so that a server
can say what it suffers from. Nothing of the host's own disk is touched: the run folder keeps what the server wrote.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import TestbedError
from harness.history.folder import ServerFolder
from harness.testbed.disk import Disk, find_fuse
from harness.testbed.disk_words import DiskState, Tried
from harness.testbed.handles import Testbed
from harness.topology.model import Server

#: What faults ask the ensemble for.
DISKS = "disks"
#: What its process has to say, which is mostly nothing.
_LOG = "disk.log"


@dataclass
class _Held:
    disk: Disk
    #: How each fault wants it, by the fault's id, in the order that they came.
    states: dict[int, DiskState] = field(default_factory=dict)


class Disks:
    """The disks of an ensemble's servers; a `Preparation`. Safe to use from several threads.

    Where several faults hold one disk, it is as the last of them wants it.

    Args:
        testbed: where the servers are.

    Raises:
        FuseMissing: this machine lacks what disks are made of.
    """

    def __init__(self, testbed: Testbed) -> None:
        find_fuse()
        self._testbed = testbed
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()

    # --- the servers' start ------------------------------------------------------------------------------

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Begin to mount it."""
        names = (folder.txnlog.name, folder.snapshot.name)
        self._held[server.id] = _Held(Disk(self._testbed, server.host, folder.root, names, folder.logs / _LOG))

    def environment(self, server: Server) -> Mapping[str, str]:
        """Nothing; its process is started when its disk is there.

        Raises:
            TestbedError: it could not be mounted.
        """
        self._held[server.id].disk.wait_mounted()
        return {}

    # --- faults ------------------------------------------------------------------------------------------

    def hold(self, fault: int, server: int, state: DiskState) -> None:
        """Let a server's disk be so, instead of what this fault wanted before.

        Raises:
            TestbedError: the disk does not answer.
        """
        with self._lock:
            held = self._held[server]
            held.states.pop(fault, None)
            held.states[fault] = state
            held.disk.set(state)

    def release(self, fault: int, server: int) -> None:
        """Let it be as the others want it, or well. Idempotent.

        Raises:
            TestbedError: the disk does not answer.
        """
        with self._lock:
            held = self._held[server]
            held.states.pop(fault, None)
            held.disk.set(next(reversed(held.states.values()), DiskState()))

    def others(self, fault: int, server: int) -> DiskState | None:
        """How another fault that came later, or that is left, wants it; None where there is none."""
        with self._lock:
            last = next(reversed(self._held[server].states.items()), None)
            return last[1] if last is not None and last[0] != fault else None

    def attempt(self, server: int, timeout: float) -> Tried | None:
        """Make, write and force a scratch file there, as `Disk.attempt`."""
        with self._lock:
            return self._held[server].disk.attempt(timeout)


def disks_of(preparation: object) -> Disks:
    """The preparation of that name as what it is.

    Raises:
        TestbedError: it is something else.
    """
    if not isinstance(preparation, Disks):
        raise TestbedError(f"the servers' disks are {type(preparation).__name__}, which cannot ail")
    return preparation

"""Servers in control groups of their own from their start, so that their memory can be limited later.

The kernel counts what memory a process has from the moment on at which it comes into a group, and never moves what was
counted before. A container is in a group of its own anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.history.folder import ServerFolder
from harness.testbed.namespaces import NamespacesTestbed
from harness.topology.model import Server

#: What faults ask the ensemble for.
LIMITS = "limits"


@dataclass(frozen=True)
class Enclosed:
    """Has a testbed make the groups; where that is not allowed, nothing, and limits of memory are refused."""

    testbed: NamespacesTestbed

    def prepare(self, server: Server, folder: ServerFolder) -> None:
        """Make the server's groups."""
        del folder
        self.testbed.enclose(server.host)

    def environment(self, server: Server) -> Mapping[str, str]:
        """Nothing."""
        del server
        return {}

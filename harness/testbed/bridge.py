"""A bridge of a Docker engine: set down and up again, it is as it was."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

_LINK_SCOPE = 253  # RT_SCOPE_LINK


class EngineBridge:
    """A bridge that outlives us, with addresses of its engine's.

    The kernel takes its IPv6 addresses from an interface that is set down. It is told to keep them; those of link
    scope, which it takes all the same, are given back.

    Args:
        name: the interface.
        index: its index.
    """

    def __init__(self, name: str, index: int) -> None:
        self._name, self._index = name, index
        self._local: list[tuple[str, int]] = []

    def set(self, netlink: IPRoute, *, up: bool) -> None:
        """Set it up or down. Idempotent. The calling thread, as `netlink`, stands in the bridge's namespace.

        Raises:
            NetlinkError: the kernel refused.
        """
        if not up:
            self._keep_addresses(yes=True)
            self._local = self._local or self._local_addresses(netlink)
        netlink.link("set", index=self._index, state="up" if up else "down")
        if up:
            for address, length in self._local:
                with contextlib.suppress(NetlinkError):  # mostly: it has it already
                    netlink.addr("add", index=self._index, address=address, prefixlen=length)
            self._local = []
            self._keep_addresses(yes=False)

    def _local_addresses(self, netlink: IPRoute) -> list[tuple[str, int]]:
        return [
            (str(address.get_attr("IFA_ADDRESS")), int(address["prefixlen"]))
            for address in netlink.get_addr(family=socket.AF_INET6, index=self._index)
            if address["scope"] == _LINK_SCOPE
        ]

    def _keep_addresses(self, *, yes: bool) -> None:
        setting = Path("/proc/sys/net/ipv6/conf", self._name, "keep_addr_on_down")
        with contextlib.suppress(OSError):  # without IPv6 there is nothing to write, and nothing to keep
            setting.write_text("1" if yes else "0", encoding="ascii")

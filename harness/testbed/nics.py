"""A host's own end of a cable: set down and up again as its host does it, it is as it was.

With the interface the kernel takes away what went through it: routes, and addresses of IPv6. When it is up again,
the routes of its own networks come back by themselves, and so do addresses of link scope. All else, as a container's
default route, is kept here and given back.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from harness.testbed import kernel, wire
from harness.testbed.netlink import set_link
from harness.testbed.spaces import Cable, Space

#: Finds a NIC's namespace and its interface there; None while it is not there.
Find = Callable[[Cable], tuple[Space, int] | None]

#: Of the kernel's headers: if.h, rtnetlink.h, if_addr.h.
_UP = 1
_OF_A_LINK = 253
#: Routes that the kernel or a router makes again by itself: redirects, those of addresses, and advertised ones.
_COME_BACK = (1, 2, 9)
#: An address that was there before need not be looked for on the network again.
_NO_DUPLICATES = 0x02
_REQUEST = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL


class HostNics:
    """Remembers which NICs shall be down, so that a container that starts meanwhile has them down, too.

    Args:
        find: finds interfaces.
        is_container: whether a host is one; others were made here, with the routes of their own networks alone.
    """

    def __init__(self, find: Find, is_container: Callable[[str], bool]) -> None:
        self._find, self._is_container = find, is_container
        self.down: set[Cable] = set()
        self._kept: dict[Cable, HostNic] = {}

    def set(self, cable: Cable, *, up: bool) -> None:
        """Set a NIC up or down, or have it so when it is there.

        Raises:
            OSError, NetlinkError: the kernel refused, or the interface has just gone.
        """
        (self.down.discard if up else self.down.add)(cable)
        self.apply(cable)

    def apply(self, cable: Cable) -> None:
        """Let a NIC be as it shall be, if it is there.

        Raises:
            OSError, NetlinkError: as above.
        """
        if (found := self._find(cable)) is None:
            return
        space, index = found
        up = cable not in self.down
        if not self._is_container(cable[0]):
            space.route.send_all([set_link(index, up=up)])
        else:
            self._kept.setdefault(cable, HostNic(index)).set(space.netlink, up=up)

    def forget(self, cable: Cable) -> None:
        """A NIC has gone."""
        self._kept.pop(cable, None)

    def restore(self) -> None:
        """Set those of containers up again, in whatever thread; raises nothing."""
        for cable, nic in list(self._kept.items()):
            if (found := self._find(cable)) is not None:
                kernel.setns(found[0].descriptor, kernel.CLONE_NEWNET)
                with IPRoute() as netlink, contextlib.suppress(NetlinkError):
                    nic.set(netlink, up=True)


class HostNic:
    """One NIC in its host's namespace.

    Args:
        index: of its interface.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._routes: list[rtmsg] = []
        self._addresses: list[tuple[str, int]] = []
        self._down = False

    def set(self, netlink: IPRoute, *, up: bool) -> None:
        """Set it up or down. Idempotent.

        Args:
            netlink: a socket in its host's namespace.
            up: which.

        Raises:
            NetlinkError: the kernel refused.
        """
        if not up and not self._down:
            self._keep(netlink)
        netlink.link("set", index=self._index, state="up" if up else "down")
        if up and self._down:
            self._give_back(netlink)
        self._down = not up

    def _keep(self, netlink: IPRoute) -> None:
        addresses = netlink.get_addr(family=socket.AF_INET6, index=self._index)
        self._addresses = [
            (str(a.get_attr("IFA_ADDRESS")), int(a["prefixlen"])) for a in addresses if a["scope"] != _OF_A_LINK
        ]
        self._routes = [
            _again(route)
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in netlink.get_routes(family=family, oif=self._index)
            if route["proto"] not in _COME_BACK
        ]

    def _give_back(self, netlink: IPRoute) -> None:
        for address, length in self._addresses:
            with contextlib.suppress(NetlinkError):  # it may have it already
                netlink.addr("add", index=self._index, address=address, prefixlen=length, flags=_NO_DUPLICATES)
        # a route may lead through another: those that it takes come first
        for route in sorted(self._routes, key=lambda one: one.get_attr("RTA_GATEWAY") is not None):
            with contextlib.suppress(NetlinkError):  # as above
                netlink.nlm_request_batch([route])
        self._addresses, self._routes = [], []


def nic_state(netlink: IPRoute, host: str, switch: str, index: int) -> wire.NicState:
    """What a host's kernel says of its NIC.

    Raises:
        NetlinkError: it has gone.
    """
    (link,) = netlink.link("get", index=index)
    return wire.NicState(
        switch,
        host,
        index,
        up=bool(link["flags"] & _UP),
        carrier=bool(link.get_attr("IFLA_CARRIER")),
        losses=int(link.get_attr("IFLA_CARRIER_DOWN_COUNT") or 0),
    )


def _again(route: rtmsg) -> rtmsg:
    """A route as the kernel tells it, as it can be asked for."""
    asked = rtmsg()
    for name in ("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type"):
        asked[name] = route[name]
    asked["header"]["type"], asked["header"]["flags"] = RTM_NEWROUTE, _REQUEST
    asked["attrs"] = [pair for pair in route["attrs"] if pair[0] != "RTA_CACHEINFO"]
    return asked

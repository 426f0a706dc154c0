"""Packet filters: whom a host does not hear, or hears by chance, or refuses; all of it in one batch.

What shall vanish, always or by chance, vanishes in the switches: one table of nftables in the namespace of the bridges,
by the addresses that a packet comes from and goes to. It is replaced in one transaction, so a partition of fifty hosts
begins and ends everywhere at the same moment, and costs less than a millisecond. Nothing is needed in a host.

A bridge cannot refuse, so packets that are refused are refused where they arrive, by a table in that host's namespace:
of nftables, or of ip_tables where the kernel's nftables know no IPv4.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from harness.testbed import wire
from harness.testbed.iptables import RefusingTable
from harness.testbed.nft import ADDRESSES_ONLY, BRIDGE, IPV4, Group, Table, key, packed, packed_port
from harness.testbed.spaces import Cable
from harness.testbed.wire import Manner

#: What a kernel says of a family of addresses that it does not know.
_UNKNOWN_FAMILY = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
#: Lets the thread stand on a host, or with the switches (None).
Stand = Callable[[str | None], AbstractContextManager[None]]


class Filters:
    """All filters of a network.

    Args:
        stand: where filters are made.
        is_up: whether a host is there; a container may not run.
    """

    def __init__(self, stand: Stand, is_up: Callable[[str], bool]) -> None:
        self._stand, self._is_up = stand, is_up
        self._rules: tuple[wire.Rule, ...] = ()
        self._switches: Table | None = None
        self._hosts: dict[str, HostFilter] = {}
        #: As they are until somebody joins with others.
        self._addresses: _Addresses | None = None

    def set(self, rules: Sequence[wire.Rule], cables: Mapping[Cable, wire.NicSpec]) -> None:
        """Let these rules hold and no others.

        Args:
            rules: what shall become of packets.
            cables: every NIC, for the addresses that packets go to.

        Raises:
            OSError: the kernel refused.
        """
        self._rules = tuple(rules)
        self._apply(cables)

    def joined(self, cables: Mapping[Cable, wire.NicSpec]) -> None:
        """A host is there again, maybe with other addresses: let the same hold of it.

        Raises:
            OSError: the kernel refused.
        """
        self._addresses = None
        if self._rules:
            self._apply(cables)

    def _apply(self, cables: Mapping[Cable, wire.NicSpec]) -> None:
        if self._addresses is None:
            self._addresses = _Addresses(cables)
        fates = _Fates(self._rules, self._addresses)
        passing = fates.passing()
        if passing or self._switches is not None:
            if self._switches is None:
                with self._stand(None):
                    self._switches = Table(BRIDGE)
            self._switches.set(passing)
        for host in {**self._hosts, **fates.refused}:
            if self._is_up(host):
                if host not in self._hosts:
                    with self._stand(host):
                        self._hosts[host] = HostFilter()
                self._hosts[host].set(fates.refused_by(host))

    def forget(self, host: str) -> None:
        """A host has gone, and its filter with it."""
        if (old := self._hosts.pop(host, None)) is not None:
            old.close()

    def restore(self) -> None:
        """Lift all of them, in whatever thread; raises nothing."""
        for table in (self._switches, *self._hosts.values()):
            if table is not None:
                with contextlib.suppress(OSError):
                    table.set(())


class HostFilter:
    """What one host refuses; to be made while the thread stands there."""

    def __init__(self) -> None:
        self._tables: list[Table | RefusingTable] = [Table(IPV4), RefusingTable()]

    def set(self, groups: Sequence[Group]) -> None:
        """Let packets be refused so. Whatever the kernel has for it is found at the first time.

        Raises:
            OSError: the kernel refused.
        """
        while True:
            try:
                self._tables[0].set(groups)
            except OSError as problem:
                if problem.errno not in _UNKNOWN_FAMILY or len(self._tables) == 1:
                    raise
                self._tables.pop(0).close()
            else:
                return

    def close(self) -> None:
        """Let go of the sockets."""
        for table in self._tables:
            table.close()


class _Addresses:
    """Who has which address, as it stands in a packet."""

    def __init__(self, cables: Mapping[Cable, wire.NicSpec]) -> None:
        #: By address: its switch, and its bytes.
        self.sources: dict[str, tuple[str | None, bytes]] = {}
        #: By host and switch, or None for all of a host's.
        self.of: dict[tuple[str, str | None], list[bytes]] = {}
        for (host, switch), nic in cables.items():
            address = packed(nic.address)
            self.sources[nic.address] = switch, address
            self.of.setdefault((host, switch), []).append(address)
            self.of.setdefault((host, None), []).append(address)


class _Fates:
    """What becomes of packets: of those that vanish, and by host of those that are refused.

    Of several rules that lose the same packets by chance, each has its own chance.
    """

    def __init__(self, rules: Iterable[wire.Rule], addresses: _Addresses) -> None:
        self._dropped: dict[bytes, None] = {}
        self._lost: dict[bytes, float] = {}
        self.refused: dict[str, dict[bytes, None]] = {}
        # there may be thousands of rules, so nothing is made for each of them but its keys
        sources, of = addresses.sources, addresses.of
        for rule in rules:
            host, manner = rule.host, rule.manner
            switch, source = sources.get(rule.source) or (None, packed(rule.source))
            for address in of.get((host, switch), ()):
                one = source + address if rule.port is None else source + address + packed_port(rule.port)
                if manner is Manner.DROP:
                    self._dropped[one] = None
                elif manner is Manner.REJECT:
                    self.refused.setdefault(host, {})[one] = None
                else:
                    self._lost[one] = 1 - (1 - self._lost.get(one, 0.0)) * (1 - rule.share)

    def passing(self) -> list[Group]:
        """Of packets that pass a switch."""
        by_share: dict[float, list[bytes]] = {}
        for packets, share in self._lost.items():
            by_share.setdefault(share, []).append(packets)
        groups = _groups(Manner.DROP, self._dropped)
        for share, some in by_share.items():
            groups += _groups(Manner.LOSE, some, share)
        return groups

    def refused_by(self, host: str) -> list[Group]:
        """Of packets that arrive at a host."""
        return _groups(Manner.REJECT, self.refused.get(host, ()))


def _groups(manner: Manner, keys: Iterable[bytes], share: float = 1.0) -> list[Group]:
    """Those that share a fate; keys with a port are longer, and in a set of their own."""
    short = tuple(some for some in keys if len(some) == ADDRESSES_ONLY)
    long = tuple(some for some in keys if len(some) > ADDRESSES_ONLY)
    return [Group(manner, some, port, share) for some, port in ((short, False), (long, True)) if some]


def refusals() -> dict[str, str]:
    """What this kernel refuses of all that is used here, tried in the empty namespace that the thread stands in.

    `bridge`: filters in the switches; `numgen`: by chance; `reject`: packets that are refused.
    """
    one = (key("10.0.0.1", "10.0.0.2", None),)
    trials: dict[str, tuple[Callable[[], Table | HostFilter], Group]] = {
        "bridge": (lambda: Table(BRIDGE), Group(Manner.DROP, one)),
        "numgen": (lambda: Table(BRIDGE), Group(Manner.LOSE, one, share=0.1)),
        "reject": (HostFilter, Group(Manner.REJECT, one)),
    }
    found: dict[str, str] = {}
    for name, (make, group) in trials.items():
        try:
            with contextlib.closing(make()) as trial:
                trial.set([group])
                trial.set([])
        except OSError as problem:
            found[name] = str(problem.strerror)
    return found

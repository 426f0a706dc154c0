"""Packet filters in the hosts' namespaces: what a host does not want to hear, by nftables, and from whom.

A filter is put where a packet arrives, so one direction of a path can be cut and the other left. The whole set of rules
that shall hold is given each time; a host whose rules change gets them in one transaction, so there is no moment at
which half of them hold.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence

from pyroute2.nftables.expressions import genex, ipv4addr, verdict
from pyroute2.nftables.main import NFTables

from harness.testbed import wire
from harness.testbed.wire import Manner

_TABLE, _CHAIN = "zkchaos", "input"
_DROP, _ACCEPT = 0, 1
#: Of the kernel's headers: nf_tables.h (registers, comparison, reject) and the payload's bases.
_REGISTER = 1
_EQUAL, _LESS = 0, 2
_TRANSPORT_HEADER, _DESTINATION_PORT, _PORT_SIZE = 2, 2, 2
_META_PROTOCOL = 16
_REJECT_WITH_RESET, _REJECT_ICMP, _PORT_UNREACHABLE = 1, 0, 3
_RANDOM = 1
#: A share of packets is drawn among so many.
_PARTS = 1_000_000


class HostFilter:
    """The filter of one host; to be made while the thread stands there. It makes nothing before it is needed."""

    def __init__(self) -> None:
        self._netlink = NFTables(nfgen_family=socket.AF_INET)
        self._rules: tuple[wire.Rule, ...] = ()

    def set(self, rules: Sequence[wire.Rule]) -> None:
        """Let these rules hold and no others. Nothing is sent where that is so already."""
        wanted = tuple(rules)
        if wanted == self._rules:
            return
        self._netlink.begin()
        if self._rules:
            self._netlink.table("del", name=_TABLE)
        if wanted:
            self._netlink.table("add", name=_TABLE)
            self._netlink.chain("add", table=_TABLE, name=_CHAIN, hook="input", type="filter", policy=_ACCEPT)
            for rule in wanted:
                for expressions in _expressions(rule):
                    self._netlink.rule("add", table=_TABLE, chain=_CHAIN, expressions=expressions)
        self._netlink.commit()
        self._rules = wanted

    def close(self) -> None:
        """Let go of the socket; the rules stay."""
        self._netlink.close()


def remove_filter() -> None:
    """Remove whatever filter of ours there is where the calling thread stands.

    Raises:
        NetlinkError: there is none.
    """
    with NFTables(nfgen_family=socket.AF_INET) as netlink:
        netlink.begin()
        netlink.table("del", name=_TABLE)
        netlink.commit()


def by_host(rules: Iterable[wire.Rule], hosts: Iterable[str]) -> Mapping[str, tuple[wire.Rule, ...]]:
    """The rules of each host, none for those that have none."""
    found: dict[str, list[wire.Rule]] = {host: [] for host in hosts}
    for rule in rules:
        found[rule.host].append(rule)
    return {host: tuple(theirs) for host, theirs in found.items()}


def _expressions(rule: wire.Rule) -> list[tuple[object, ...]]:
    """What the kernel compares and does, for each of the rules that one of ours takes."""
    source = ipv4addr(src=rule.source)
    match rule.manner:
        case Manner.DROP:
            return [(source, *_to_port(rule.port), verdict(_DROP))]
        case Manner.LOSE:
            return [(source, *_to_port(rule.port), _chance(rule.share), verdict(_DROP))]
        case Manner.REJECT:
            # what speaks TCP is told by a reset, all else by ICMP, as a host does on whose port nobody listens
            reset = (source, *_to_port(rule.port or None, tcp=True), _reject(_REJECT_WITH_RESET))
            return [reset] if rule.port else [reset, (source, _reject(_REJECT_ICMP))]


def _to_port(port: int | None, *, tcp: bool = False) -> list[list[object]]:
    """Only TCP, and only to this port; all that comes where neither is asked for."""
    if port is None and not tcp:
        return []
    protocol = [genex("meta", {"key": _META_PROTOCOL, "dreg": _REGISTER}), _compare(bytes([socket.IPPROTO_TCP]))]
    if port is None:
        return [protocol]
    payload = {"dreg": _REGISTER, "base": _TRANSPORT_HEADER, "offset": _DESTINATION_PORT, "len": _PORT_SIZE}
    return [protocol, [genex("payload", payload), _compare(struct.pack(">H", port))]]


def _compare(value: bytes, how: int = _EQUAL) -> object:
    return genex("cmp", {"sreg": _REGISTER, "op": how, "data": {"attrs": [("NFTA_DATA_VALUE", value)]}})


def _chance(share: float) -> list[object]:
    number = {"dreg": _REGISTER, "modulus": _PARTS, "type": _RANDOM, "offset": 0}
    # numbers are compared from their first byte on, and the kernel draws them in the machine's own order
    order = genex("byteorder", {"sreg": _REGISTER, "dreg": _REGISTER, "op": 1, "len": 4, "size": 4})
    return [_expression("numgen", "NG", number), order, _compare(struct.pack(">I", round(share * _PARTS)), _LESS)]


def _expression(name: str, prefix: str, attributes: Mapping[str, object]) -> object:
    """As `genex`, for an expression whose attributes are not called as it is itself."""
    named = [(f"NFTA_{prefix}_{key.upper()}", value) for key, value in attributes.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": named})]}


def _reject(how: int) -> list[object]:
    return [genex("reject", {"type": how, "icmp_code": _PORT_UNREACHABLE})]

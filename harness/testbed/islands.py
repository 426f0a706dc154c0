"""A switch in islands: frames that would pass from one island of its ports to another are stopped in the bridge.

That is done by a filter of the bridge family of nftables, in the bridge's own forwarding, which every frame goes
through that leaves by another port than it came from: ARP, broadcasts and copies of unknown destination, too. Ports,
their carrier, and what the bridge has learned stay as they are, as on a switch whose halves have lost each other.

The bridge may be a Docker engine's, and must not be left changed, even by an agent that is killed. Isolated ports do
not do: the kernel knows two classes of ports alone, so there is one island at most, and the rest are single. A second
bridge, or VLANs on the first, would do, and would stay. This filter's table belongs to the socket that made it, and
the kernel removes it with that socket. It comes and goes for all switches at one moment.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from harness.testbed.netlink import (
    APPEND,
    CREATE,
    NETFILTER,
    Channel,
    Message,
    attribute,
    be32,
    nested,
    of_nftables,
    text,
    transaction,
)
from harness.testbed.spaces import Cable
from harness.testbed.wire import Split

#: The indexes of a switch's ports, by island; the last one has whatever else is plugged into that switch.
Islands = tuple[tuple[int, ...], ...]

_CHAIN = "forward"
#: Of the kernel's headers (netfilter.h, nf_tables.h): the family, requests, and what they are made of.
_BRIDGE = 7
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_ELEMENTS = 0, 2, 3, 6, 9, 12
#: The table goes when its socket does, however that ends.
_OWNED = 2
_FORWARD, _ACCEPT, _DROP = 2, 1, 0
_CAME_BY, _LEAVES_BY = 4, 5
_REGISTER, _NOT_IN = 1, 1
#: A set's keys are interface indexes, in the machine's own order.
_INDEX, _TYPE_INDEX = struct.Struct("=I"), 20


class Splits:
    """Remembers which switches are in islands, so that the port of a container that starts meanwhile is on its own.

    Args:
        make: makes the filter, where the switches are; at the first time that it is needed.
    """

    def __init__(self, make: Callable[[], SwitchFilter]) -> None:
        self._make = make
        self._wanted: tuple[Split, ...] = ()
        self._filter: SwitchFilter | None = None

    def want(self, splits: Sequence[Split]) -> None:
        """From now on, these and no others; nothing is changed before `apply`."""
        self._wanted = tuple(splits)

    def apply(self, ports: Mapping[Cable, int]) -> None:
        """Let the ports that there are be in their islands.

        Raises:
            OSError: the kernel refused; what held goes on holding.
        """
        if self._filter is None:
            if not self._wanted:
                return
            self._filter = self._make()
        self._filter.set(
            [
                tuple(tuple(ports[h, split.switch] for h in i if (h, split.switch) in ports) for i in split.islands)
                for split in self._wanted
            ]
        )

    def part(self, switch: str, one: str, other: str) -> bool:
        """Whether two hosts of a switch shall be on different islands."""
        return any(split.parts(switch, one, other) for split in self._wanted)


class SwitchFilter:
    """The filter of all switches in a namespace; to be made while the thread stands there.

    It makes nothing before it is needed.
    """

    def __init__(self) -> None:
        self._channel = Channel(NETFILTER)
        # an engine's bridges may have those of several runs
        self._name = f"zkchaos-islands-{self._channel.port}"
        self._held: tuple[Islands, ...] = ()

    def set(self, splits: Sequence[Islands]) -> None:
        """Let these splits hold and no others, from one moment on; of two of one switch, a frame must pass both.

        Raises:
            OSError: the kernel refused; what held goes on holding.
        """
        wanted = tuple(splits)
        if wanted == self._held:
            return
        messages = [_request(_DELETE_TABLE, text(1, self._name))] if self._held else []
        if wanted:
            hook = nested(4, be32(1, _FORWARD), be32(2, 0))
            messages.append(_request(_NEW_TABLE, text(1, self._name), be32(2, _OWNED)))
            messages.append(
                _request(_NEW_CHAIN, text(1, self._name), text(3, _CHAIN), hook, be32(5, _ACCEPT), text(7, "filter"))
            )
        for number, ports in enumerate((island for split in wanted for island in split[:-1]), start=1):
            messages += self._island(f"island{number}", number, ports)
        self._channel.send_all(transaction(messages))
        self._held = wanted

    def _island(self, island: str, number: int, ports: Sequence[int]) -> Iterator[Message]:
        """No frame leaves these ports for others, and none comes to them from others."""
        names = text(1, self._name) + text(2, island)
        yield _request(_NEW_SET, names, be32(3, 0), be32(4, _TYPE_INDEX), be32(5, _INDEX.size), be32(10, number))
        if ports:
            elements = (nested(1, nested(1, attribute(1, _INDEX.pack(port)))) for port in ports)
            yield _request(_NEW_ELEMENTS, names, be32(4, number), nested(3, *elements))
        inside, outside = be32(5, 0), be32(5, _NOT_IN)
        for came, leaves in ((inside, outside), (outside, inside)):
            tests = []
            for port, membership in ((_CAME_BY, came), (_LEAVES_BY, leaves)):
                tests.append(_expression("meta", be32(1, _REGISTER), be32(2, port)))
                looked_up = (text(1, island), be32(2, _REGISTER), be32(4, number), membership)
                tests.append(_expression("lookup", *looked_up))
            dropped = _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, _DROP))))
            yield _request(_NEW_RULE, text(1, self._name), text(2, _CHAIN), nested(4, *tests, dropped))

    def close(self) -> None:
        """Let go of the socket, and so lift everything."""
        self._channel.close()


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _request(kind: int, *attributes: bytes) -> Message:
    flags = 0 if kind == _DELETE_TABLE else CREATE | APPEND
    return of_nftables(kind, _BRIDGE, b"".join(attributes), flags)

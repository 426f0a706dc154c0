"""Which faults of streams hold on which proxies, so that faults that overlap heal right."""

from __future__ import annotations

from harness.errors import FaultError
from harness.nemesis.streams import Stream, Way
from harness.nemesis.toxics import Kind
from harness.topology.proxies import Proxy
from harness.toxiproxy.api import State, Toxic
from harness.toxiproxy.proxies import Proxies, Wanted


class StreamHolds:
    """What holds, by the fault's id.

    Args:
        proxies: those of the testbed; None where its topology has none.
    """

    def __init__(self, proxies: Proxies | None) -> None:
        self._proxies = proxies
        self._holds: dict[int, Stream] = {}

    @property
    def proxies(self) -> Proxies:
        """Those of the testbed.

        Raises:
            FaultError: it has none.
        """
        if self._proxies is None:
            raise FaultError(
                "this testbed has no proxies, which faults of streams are made of",
                next_step="write [proxies] into the topology, or take the topology `proxied`",
            )
        return self._proxies

    def hold(self, fault: int, stream: Stream) -> None:
        """Let it hold too."""
        self._holds[fault] = stream
        self._apply()

    def release(self, fault: int) -> None:
        """Lift it; what other faults hold stays. Idempotent. A proxy that was killed is there again afterwards."""
        self._holds.pop(fault, None)
        self._apply()

    def held_by_others(self, proxy: Proxy, *, but: int) -> bool:
        """Whether another fault than `but` is on a proxy."""
        return any(proxy in stream.proxies for fault, stream in self._holds.items() if fault != but)

    def is_on(self, fault: int, stream: Stream, proxy: Proxy, states: dict[str, State]) -> bool | None:
        """Whether a fault is on a proxy, by toxiproxy's own word; None where it says nothing."""
        state = states.get(proxy.name)
        if state is None:
            return None
        if stream.toxic.kind is Kind.DOWN:
            # one that others keep down is not this fault's doing once it has let go
            others = any(proxy in s.proxies and s.toxic.kind is Kind.DOWN for f, s in self._holds.items() if f != fault)
            return not state.enabled and (fault in self._holds or not others)
        there = {toxic.name for toxic in state.toxics}
        return any(_name(fault, way) in there for way in stream.ways)

    def _apply(self) -> None:
        wanted: dict[str, Wanted] = {}
        for fault, stream in self._holds.items():
            for proxy in stream.proxies:
                before = wanted.get(proxy.name, Wanted())
                down = before.down or stream.toxic.kind is Kind.DOWN
                wanted[proxy.name] = Wanted((*before.toxics, *_toxics(fault, stream)), down)
        self.proxies.set(wanted)


def _toxics(fault: int, stream: Stream) -> tuple[Toxic, ...]:
    if stream.toxic.kind is Kind.DOWN:
        return ()
    return tuple(
        Toxic(_name(fault, way), stream.toxic.kind.value, way.value, stream.toxicity, stream.toxic.attributes)
        for way in stream.ways
    )


def _name(fault: int, way: Way) -> str:
    return f"fault-{fault}-{way}"

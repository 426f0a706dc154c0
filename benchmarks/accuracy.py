"""Asked against measured: delay, loss and rate on the wire, in this kernel; writes docs/accuracy.md.

::

    zkchaos usermode --writable docs -- python benchmarks/accuracy.py docs/accuracy.md
    python benchmarks/accuracy.py            (to the terminal; where sch_netem is missing, rates alone)

Nothing runs beside it: no servers and no load. Takes about a minute.
"""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.nemesis.effects import parse_effects
from harness.nemesis.trials import Burst, bounds, on_wire
from harness.testbed.namespaces import NamespacesTestbed
from harness.testbed.shaping import bucket
from harness.testbed.wire import Arrivals, Shape, Side, Train
from harness.topology.loader import load_topology

PATH = ("zk1", "zk2", "net1")
DELAYS = ("1ms", "2ms", "5ms", "10ms", "20ms", "50ms", "100ms", "200ms", "500ms")
JITTERS = (
    "50ms jitter 10ms",
    "50ms jitter 10ms normal",
    "50ms jitter 10ms pareto",
    "50ms jitter 10ms paretonormal",
)
LOSSES = ("0.1%", "0.5%", "1%", "2%", "5%", "10%", "20%", "50%", "5% in bursts of 4", "10% in bursts of 5")
OTHERS = ("duplicate 5%", "corrupt 5%", "delay 10ms, reorder 25%")
RATES = ("100kbit", "500kbit", "1mbit", "5mbit", "10mbit", "50mbit", "100mbit")


def main() -> None:
    """Measure everything, and write it down."""
    testbed = NamespacesTestbed(load_topology("dual-net"))
    try:
        text = "\n".join(_document(testbed)) + "\n"
    finally:
        testbed.close()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def _document(testbed: NamespacesTestbed) -> Iterator[str]:
    yield "# Asked and measured"
    yield ""
    yield f"Measured on Linux {platform.release()}, one way from a host to another over one switch; nothing else runs."
    yield "Times are from before a datagram is sent until the kernel's stamp at its arrival. To measure it again, in a"
    yield "kernel with netem that needs no privileges, and to write this file:"
    yield ""
    yield "    zkchaos usermode --writable docs -- python benchmarks/accuracy.py docs/accuracy.md"
    yield ""
    yield "On this machine's own kernel, to the terminal: `python benchmarks/accuracy.py`; without netem, rates alone."
    if "netem" not in testbed.lacking():
        yield from _table(
            "Delay", ("asked", "median ms", "error", "earliest ms", "1 of 100 above ms"), _delays(testbed)
        )
        yield from _table("Jitter", ("asked", "median ms", "standard deviation ms"), _jitters(testbed))
        yield from _table("Loss", ("asked", "lost", "error", "of", "fair chance stays within"), _losses(testbed))
        yield from _table("Other effects", ("asked", "measured", "of"), _others(testbed))
    yield from _table("Rate", ("asked", "Mbit/s", "error", "offered Mbit/s"), _rates(testbed))
    yield ""
    yield "Bounds of loss are exact binomial ones that fair chance leaves once in a million measurements; of loss in"
    yield "bursts the count is divided by how much neighbours share a fate. A rate is that of whole frames. Errors are"
    yield "measured minus asked, as parts of what was asked."


def _table(title: str, head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield from ("", f"## {title}", "", f"| {' | '.join(head)} |", "|" + " --- |" * len(head))
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _measured(testbed: NamespacesTestbed, effects: str, train: Train, timeout_ms: float = 1000) -> Arrivals:
    testbed.set_shapes([Shape(PATH[1], PATH[2], Side.IN, parse_effects(effects))])
    (arrivals,) = testbed.send_trains([train], timeout_ms=timeout_ms, linger_ms=20)
    testbed.set_shapes([])
    return arrivals


def _milliseconds(arrivals: Arrivals) -> list[float]:
    return sorted(micros / 1000 for micros in arrivals.micros if micros is not None)


def _delays(testbed: NamespacesTestbed) -> Iterator[tuple[str, ...]]:
    for delay in DELAYS:
        times = _milliseconds(_measured(testbed, f"delay {delay}", Train(*PATH, 2000, 500.0, 64)))
        late = statistics.quantiles(times, n=100)[-1]
        median, asked = statistics.median(times), parse_effects(f"delay {delay}").delay_ms
        yield delay, f"{median:.3f}", _error(median, asked), f"{times[0]:.3f}", f"{late:.3f}"


def _jitters(testbed: NamespacesTestbed) -> Iterator[tuple[str, ...]]:
    for delay in JITTERS:
        times = _milliseconds(_measured(testbed, f"delay {delay}", Train(*PATH, 4000, 500.0, 64)))
        yield delay, f"{statistics.median(times):.2f}", f"{statistics.stdev(times):.2f}"


def _losses(testbed: NamespacesTestbed) -> Iterator[tuple[str, ...]]:
    for loss in LOSSES:
        bursts = parse_effects(f"loss {loss}").bursts
        share = float(loss.partition("%")[0]) / 100
        count, clumping = 20_000, 1.0
        if bursts is not None:
            alike = 1 - bursts.to_bad - bursts.to_good
            clumping = (1 + alike) / (1 - alike)
        arrivals = _measured(testbed, f"loss {loss}", Train(*PATH, count, 100.0, 64), 100)
        lost = arrivals.micros.count(None) / count
        low, high = bounds(share, count / clumping)
        yield loss, f"{lost:.3%}", _error(lost, share), str(count), f"{low:.3%} to {high:.3%}"


def _others(testbed: NamespacesTestbed) -> Iterator[tuple[str, ...]]:
    count = 10_000
    for effect in OTHERS:
        arrivals = _measured(testbed, effect, Train(*PATH, count, 200.0, 1000))
        latest, overtook = 0.0, 0
        for sent, micros in zip(arrivals.sent, arrivals.micros, strict=True):
            overtook += micros is not None and sent + micros < latest
            latest = max(latest, sent + (micros or 0.0))
        found = {"d": arrivals.duplicates, "c": arrivals.damaged}.get(effect[0], 0) or overtook
        yield effect, f"{found / count:.3%}", str(count)


def _rates(testbed: NamespacesTestbed) -> Iterator[tuple[str, ...]]:
    for rate in RATES:
        asked = parse_effects(f"rate {rate}").rate
        size = 7392 if asked >= 10_000_000 else 1000
        skip = bucket(asked) // on_wire(size) + 2
        count = skip + max(20, min(2000, asked // 8 // on_wire(size)))
        arrivals = _measured(testbed, f"rate {rate}", Train(*PATH, count, 0.0, size), 5000)
        burst = Burst.of(arrivals, size, skip=skip, delay_ms=0.0)
        yield rate, f"{burst.arrived / 1e6:.4g}", _error(burst.arrived, asked), f"{burst.offered / 1e6:.4g}"


def _error(measured: float, asked: float) -> str:
    return f"{measured / asked - 1:+.1%}"


if __name__ == "__main__":
    main()

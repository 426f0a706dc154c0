"""Which of ZooKeeper's documented promises a fault puts to the test, by their ids."""

from __future__ import annotations

import re

from harness.history.records import FaultEvent

_BY_KIND = {
    "switch-down": "NR-01",
    "link-down": "NR-03",
    "link-flap": "NR-03",
    "nic-down": "NR-03",
    "switch-split": "NR-04",
    "switch-flap": "NR-05",
    "kill": "SZ-01",
    "pause": "SZ-01",
    "crash-loop": "SZ-01",
    "restart-storm": "SZ-01",
    "slow-start": "SZ-01",
    "restart": "SE-09",
    "rolling-restart": "SE-09",
}
#: Kind, what its target says, and the promise; the first that fits.
_BY_TARGET = (
    ("partition", re.compile(r" port quorum\b"), "NR-08"),
    ("partition", re.compile(r"^(?!.*\|)[^>]+ > "), "NR-07"),
    ("packets", re.compile(r"\bloss .*( > | in$| out$)"), "NR-07"),
    ("packets", re.compile(r"\b(loss|delay) "), "NR-06"),
)


def claims_of(fault: FaultEvent) -> tuple[str, ...]:
    """The promises that its recovery speaks of."""
    if fault.fault in _BY_KIND:
        return (_BY_KIND[fault.fault],)
    fitting = (claim for kind, says, claim in _BY_TARGET if kind == fault.fault and says.search(fault.target))
    return tuple(fitting)[:1]

"""What a server's processes get of the machine: the grammar.

::

    cpu 5%          so much of one core, from 1% to 1000%; 150% is one core and a half
    memory 32MB     so much memory, from 16MB to 1024GB; 1MB is 2^20 bytes, as the JVM and container engines count

A server that does with less than it is allowed does not feel its limit, and such a fault is told not to bite. (With
little to do, ZooKeeper uses a twentieth of a core and has 40 to 120 MB.) One that already has more memory than it is
allowed is killed by the kernel as soon as it asks for more, with control groups of the second version at once: cached
files are taken back first, but a JVM has few. It is dead until the fault heals, unless another fault starts it again;
the limit holds of that process, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.topology.toml_document import value_text

_FORM = '"cpu 5%", "memory 32MB"'
_CPU = re.compile(r"cpu (\d{1,4})(\.\d{1,2})?%", re.ASCII)
_MEMORY = re.compile(r"memory (\d{1,7})(MB|GB)", re.ASCII)
#: In hundredths of a percent: the kernel's shortest quota is a millisecond in every 100.
_LEAST_CPU, _MOST_CPU = 100, 100_000
_UNITS = {"MB": 2**20, "GB": 2**30}
#: No JVM starts with less; the kernel's own bookkeeping of a process takes some.
_LEAST_MEMORY, _MOST_MEMORY = 16 * 2**20, 2**40


@dataclass(frozen=True)
class Limit:
    """One of both is said, the other is None."""

    #: Share of one core, to a ten-thousandth.
    cpu: float | None = None
    #: Bytes.
    memory: int | None = None

    def __str__(self) -> str:
        if self.memory is not None:
            unit = "MB" if self.memory % _UNITS["GB"] else "GB"
            return f"memory {self.memory // _UNITS[unit]}{unit}"
        return f"cpu {round((self.cpu or 0.0) * 100, 2):g}%"


def parse(text: str) -> Limit:
    """As the module describes it.

    Raises:
        ValueError: it is not of that form.
    """
    if match := _CPU.fullmatch(text):
        hundredths = int(match[1]) * 100 + int((match[2] or ".0")[1:].ljust(2, "0"))
        if not _LEAST_CPU <= hundredths <= _MOST_CPU:
            raise ValueError(f"{value_text(text)} is not a limit; allowed: from cpu 1% to cpu 1000% of one core")
        return Limit(cpu=hundredths / 10_000)
    if match := _MEMORY.fullmatch(text):
        size = int(match[1]) * _UNITS[match[2]]
        if not _LEAST_MEMORY <= size <= _MOST_MEMORY:
            raise ValueError(f"{value_text(text)} is not a limit; allowed: from memory 16MB to memory 1024GB")
        return Limit(memory=size)
    raise ValueError(f"{value_text(text)} is not a limit; allowed: such as {_FORM}")

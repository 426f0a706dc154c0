"""Whether servers' disks can be told to fail here, which takes file systems in user space. It is tried."""

from __future__ import annotations

from harness.doctor_finding import CapabilityFinding
from harness.errors import FuseMissing
from harness.testbed.disk import find_fuse


def examine_fuse() -> CapabilityFinding:
    """Only faults of disks need it."""
    try:
        version = find_fuse()
    except FuseMissing as problem:
        found = f"{problem.what} ({problem.cause}); faults of disks need it"
        return CapabilityFinding("FUSE", False, (), found, problem.next_step)
    return CapabilityFinding("FUSE", True, (), f"libfuse {version}; servers' disks can be full, slow, failing")

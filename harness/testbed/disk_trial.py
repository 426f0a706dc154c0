"""Tries a disk: makes a scratch file there, writes to it, forces that to the disk, and removes it; once for each line.

Started as ``python -I -S .../disk_trial.py FOLDER`` by the agent, so that it sees the disk as its server does. It knows
nothing of what the disk was told, and imports nothing of the harness. Orders come, and answers go, over the socket at
descriptor 3.
"""

import contextlib
import json
import os
import socket
import sys
import time

_CHANNEL = 3
_SCRATCH = ".zkchaos-trial"
_BLOCK = b"z" * 4096


def attempt(path: str) -> tuple[str, int, float]:
    """The call that failed, its errno, and how long the last call took, milliseconds."""
    step, descriptor = "create", -1
    begun = time.monotonic()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        step, begun = "write", time.monotonic()
        os.write(descriptor, _BLOCK)
        step, begun = "fsync", time.monotonic()
        os.fsync(descriptor)
    except OSError as problem:
        return step, problem.errno or 0, (time.monotonic() - begun) * 1000
    else:
        return "", 0, (time.monotonic() - begun) * 1000
    finally:
        with contextlib.suppress(OSError):
            if descriptor >= 0:
                os.close(descriptor)
            os.unlink(path)  # noqa: PTH108  # pathlib takes longer to import than the rest of this


def main() -> None:
    """Until nobody asks any more."""
    channel = socket.socket(fileno=_CHANNEL)
    with channel.makefile("rb") as orders:
        for _line in orders:
            failed, number, took = attempt(f"{sys.argv[1]}/{_SCRATCH}")
            channel.sendall(json.dumps({"failed": failed, "errno": number, "took_ms": took}).encode() + b"\n")


if __name__ == "__main__":
    main()

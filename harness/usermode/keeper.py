"""Starts a kernel and is there to kill it, whatever becomes of the caller.

A user-mode kernel leads a process group of its own, with helpers that outlive it, so a signal to its caller's group
does not reach it. The keeper kills that group at the deadline, on SIGTERM, and some time after the caller is gone. Only
the standard library is used, as it is a process of its own for every kernel:
`keeper.py DEADLINE_S FAREWELL_S CALLER_FD COMMAND...`
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

#: How long the processors are watched before one is chosen, seconds.
_LOOK_S = 0.1


def keep(deadline_s: float, farewell_s: float, caller: int, command: list[str]) -> int:
    """Run the kernel to its end, or to the deadline.

    Args:
        deadline_s: the kernel is killed after so many seconds.
        farewell_s: how long it may live on without its caller, to end by itself what it does.
        caller: a pipe's end, which the caller holds open at the other end.
        command: the kernel and its arguments.

    Returns:
        The kernel's exit code; as a shell has it, where a signal ended it.
    """
    deadline = time.monotonic() + deadline_s
    inherited = _inherited(caller)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)  # from now on it ends the kernel first
    _stay_on_one_processor()
    kernel = subprocess.Popen(command, pass_fds=inherited)
    for descriptor in inherited:
        os.close(descriptor)  # or nobody would ever see the end of a pipe
    ended = os.pidfd_open(kernel.pid)
    poller = select.poll()
    poller.register(ended, select.POLLIN)
    poller.register(caller, select.POLLIN)
    poller.register(wake, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        events = dict(poller.poll(left * 1000))
        if ended in events or wake in events:
            break
        if caller in events:  # it never writes: this is the end of it
            poller.unregister(caller)
            deadline = min(deadline, time.monotonic() + farewell_s)
    _kill(kernel)
    code = kernel.wait()
    return code if code >= 0 else 128 - code


def _inherited(caller: int) -> tuple[int, ...]:
    """The descriptors that the caller gave us for the kernel."""
    found = {int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2}  # noqa: PTH208  # pathlib costs 10 ms
    return tuple(number for number in sorted(found - {caller}) if _is_open(number))


def _is_open(descriptor: int) -> bool:
    """Not so of the one that read the listing."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stay_on_one_processor() -> None:
    """Take the processor that has the least to do, for good, and let the kernel inherit that.

    The kernel has one processor, and hands it to the processes in it and back at each of their calls. Where the two
    ends stand on different ones, somebody has to be woken each time: measured, all takes four to five times as long.
    """
    allowed = os.sched_getaffinity(0)
    before = _idle()
    time.sleep(_LOOK_S)  # the length of the look
    idle = {number: ticks - before.get(number, 0) for number, ticks in _idle().items() if number in allowed}
    if idle:
        with contextlib.suppress(OSError):  # forbidden where this is one container among others: then it is slow
            os.sched_setaffinity(0, {max(idle, key=lambda number: idle[number])})


def _idle() -> dict[int, int]:
    """How long each processor has had nothing to do since the boot, in ticks; nothing where nobody says it."""
    try:
        with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123  # pathlib costs 10 ms
            rows = [line.split() for line in file if line.startswith("cpu")]
    except OSError:
        return {}
    return {int(row[0][3:]): int(row[4]) for row in rows if row[0] != "cpu"}


def _kill(kernel: subprocess.Popen[bytes]) -> None:
    """Kill the kernel and its helpers; the kernel is not reaped yet, so its number is nobody else's."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(kernel.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(kernel.pid, signal.SIGKILL)


def main() -> int:
    """As the module says."""
    deadline, farewell, caller, *command = sys.argv[1:]
    return keep(float(deadline), float(farewell), int(caller), command)


if __name__ == "__main__":
    sys.exit(main())

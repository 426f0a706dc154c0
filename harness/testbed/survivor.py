"""Starts processes that tidy up behind this one when it has died, by whatever means.

Such a process is ``python -m MODULE OWNER WORDS...`` with one end of a socket pair as its standard input. OWNER is the
number of an inherited pidfd of this process; where there are no pidfds, as on a Mac, it is this process's label. The
socket exists before the process does, so an owner that dies while it is still being started is noticed, too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from harness.testbed.owners import Owner


def start_survivor(module: str, *words: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start one. It does not wait.

    Args:
        module: what it runs.
        words: what it is told, after its owner.

    Returns:
        The owner's end of the socket pair, and the process; no other child of the owner inherits anything of them.
    """
    ours, theirs = socket.socketpair()
    owner = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else None
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(Owner.of_this_process() if owner is None else owner), *words],
            pass_fds=() if owner is None else (owner,),
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,  # it may outlive its owner, and must not keep the owner's pipes open
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is the owner's to handle
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        if owner is not None:
            os.close(owner)
    return ours, process


def stay() -> None:
    """In such a process: do not end before the owner has.

    Whatever asks the owner to end asks its process group, its control group or its terminal. The owner ends, and the
    survivor soon after it; before that it has nothing to do but to stay.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)

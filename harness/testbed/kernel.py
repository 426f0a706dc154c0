"""The few system calls that Python 3.11 does not offer: unshare, setns, mount, prctl.

Each raises OSError with the kernel's errno; nothing here knows what the calls are for.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 1 << 18

_PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling thread (user and pid namespaces: its children) into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace behind an open `/proc/.../ns/*` descriptor."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, filesystem: str | None, flags: int, data: str = "") -> None:
    """Mount a filesystem."""
    kind = filesystem.encode() if filesystem else None
    words = data.encode() or None
    _check(_libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), words), f"mount {target}")


def set_process_name(name: str) -> None:
    """Name this process in `ps` (15 bytes at most)."""
    _check(_libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0), "prctl(PR_SET_NAME)")

"""What a first process needs of the kernel and Python does not offer: mounts with data, another root, powering off."""

from __future__ import annotations

import ctypes
import os

MNT_DETACH = 2
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8

_RB_POWER_OFF = 0x4321FEDC

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def mount(filesystem: str, target: str, data: str = "", flags: int = 0) -> None:
    """Mount a file system that is on no device."""
    words = (filesystem.encode(), os.fsencode(target), filesystem.encode())
    _check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data)), f"mount of {filesystem} on {target}")


def change_root(root: str) -> None:
    """Make this mount the root of every process, the kernel's own ones too, and let go of the old one."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), f"pivot_root to {root}")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def power_off() -> None:
    """End the kernel at once. What is not synced is lost."""
    _check(_libc.reboot(ctypes.c_int(_RB_POWER_OFF)), "reboot")

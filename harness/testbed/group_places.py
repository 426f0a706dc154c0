"""Where this process may make control groups, for the processor and for memory; and why not, where it may not.

In the first version each controller has a hierarchy of its own, and a group may be made below the one that we are in.
In the second there is one hierarchy, whose groups have either processes or groups with limits in them, never both: so
a group is made beside the one that we are in, at the nearest place above us that gives the controllers to what is
below it. That is so for root, and for whoever was given a part of the hierarchy, as systemd does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CPU, MEMORY = "cpu", "memory"
CONTROLLERS = (CPU, MEMORY)

#: Of the second version: which controllers a folder has, and which it gives to the groups below it.
HAS, GIVES = "cgroup.controllers", "cgroup.subtree_control"
#: What every group of the second version has, but for the one at the root of all.
_NOT_AT_ROOT = "cgroup.type"


@dataclass(frozen=True)
class Place:
    """A folder that groups can be made in."""

    folder: Path
    version: int
    #: Whether the folder must be told first to give its controllers to what is below it.
    closed: bool = False


@dataclass(frozen=True)
class Places:
    """The place for each controller; for those that have none, why."""

    found: Mapping[str, Place]
    refusals: Mapping[str, str]


@dataclass(frozen=True)
class _Mount:
    """A hierarchy, as it is mounted here; `root` is what of it."""

    root: str
    point: Path
    #: Empty in the second version.
    controllers: frozenset[str]


def find_places(process: Path = Path("/proc/self")) -> Places:
    """Look for them; nothing is changed."""
    mounts = list(_mounts((process / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")))
    try:
        groups = list(_groups((process / "cgroup").read_text(encoding="utf-8", errors="surrogateescape")))
    except FileNotFoundError:  # a kernel without any
        groups = []
    found: dict[str, Place] = {}
    refusals: dict[str, str] = {}
    for controller in CONTROLLERS:
        place = _in_first(controller, mounts, groups) or _in_second(mounts, groups)
        if place is not None and _offers(place, controller):
            found[controller] = place
        else:
            refusals[controller] = _reason(controller, mounts, place)
    return Places(found, refusals)


def _in_first(controller: str, mounts: list[_Mount], groups: list[tuple[frozenset[str], str]]) -> Place | None:
    for mount in mounts:
        for controllers, group in groups:
            if controller in mount.controllers and controller in controllers:
                folder = _folder(mount, group)
                return Place(folder, 1) if folder is not None else None
    return None


def _in_second(mounts: list[_Mount], groups: list[tuple[frozenset[str], str]]) -> Place | None:
    """The nearest place that gives both controllers to what is below it, or else one of them."""
    for mount in mounts:
        for controllers, group in groups:
            if mount.controllers or controllers or (own := _folder(mount, group)) is None:
                continue
            # at the root of all there may be processes and groups at the same time
            above = [p for p in own.parents if p.is_relative_to(mount.point)] if _is_below(own) else [own]
            ours = [p for p in above if os.access(p, os.W_OK) and os.access(p / "cgroup.procs", os.W_OK)]
            if not ours:
                return Place(above[0] if above else own, 2)
            best = max(ours, key=lambda p: len(_words(p / GIVES) & set(CONTROLLERS)))
            if _words(best / GIVES) & set(CONTROLLERS):
                return Place(best, 2)
            return Place(ours[-1], 2, closed=not _is_below(ours[-1]))
    return None


def _is_below(group: Path) -> bool:
    return (group / _NOT_AT_ROOT).exists()


def _offers(place: Place, controller: str) -> bool:
    """Whether a group that is made there will have the controller."""
    if not os.access(place.folder, os.W_OK):
        return False
    return place.version == 1 or controller in _words(place.folder / (HAS if place.closed else GIVES))


def _reason(controller: str, mounts: list[_Mount], place: Place | None) -> str:
    if place is None:
        mounted = any(controller in mount.controllers or not mount.controllers for mount in mounts)
        return "its control groups are out of sight" if mounted else "no control groups are mounted"
    if not os.access(place.folder, os.W_OK):
        return f"this user may make no control groups in {place.folder}"
    return f"no control group of it can be made in {place.folder}"


def _folder(mount: _Mount, group: str) -> Path | None:
    """Where a group is to be seen; None where what is mounted is another part of the hierarchy."""
    if mount.root == "/":
        inside = group
    elif group == mount.root or group.startswith(f"{mount.root}/"):
        inside = group[len(mount.root) :]
    else:
        return None
    folder = mount.point / inside.lstrip("/")
    return folder if ".." not in folder.parts and folder.is_dir() else None


def _mounts(text: str) -> Iterator[_Mount]:
    """Of `mountinfo`, see proc(5): after the dash come the file system's type, its source and its options."""
    for line in text.splitlines():
        left, _dash, right = line.partition(" - ")
        words, kind = left.split(), right.split()
        if len(words) > 4 and kind and kind[0] in ("cgroup", "cgroup2"):
            options = frozenset(kind[-1].split(",")) if kind[0] == "cgroup" else frozenset[str]()
            yield _Mount(words[3], Path(words[4].replace("\\040", " ")), options)


def _groups(text: str) -> Iterator[tuple[frozenset[str], str]]:
    """Of `/proc/.../cgroup`: the controllers of a hierarchy, none in the second version, and our group there."""
    for line in text.splitlines():
        _number, controllers, group = line.split(":", 2)
        yield frozenset(filter(None, controllers.split(","))), group


def _words(file: Path) -> set[str]:
    try:
        return set(file.read_text(encoding="ascii").split())
    except OSError:
        return set()

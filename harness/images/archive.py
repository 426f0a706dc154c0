"""Writes images: layers that depend on nothing but what is in them, and the archive that `docker load` reads.

An image's id is the SHA-256 of its configuration, which names its layers by their SHA-256. So an image that is made of
the same files has the same id, on every machine and at every time; nothing of its making (who, when, in which order)
gets into it. A `docker build` cannot promise that before BuildKit, nor does it work where there is no base image.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

#: Every file and every image is of this second, 2025-01-01 00:00:00 UTC.
EPOCH = 1_735_689_600
_CREATED = "2025-01-01T00:00:00Z"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link of a layer."""

    #: Absolute, as in the container.
    path: str
    #: A file's content; None: a folder, or a link.
    content: bytes | None = None
    mode: int = 0o755
    #: User and group.
    owner: int = 0
    #: Where a symbolic link leads.
    link: str = ""

    def member(self) -> tarfile.TarInfo:
        """The header of the archive."""
        member = tarfile.TarInfo(self.path.strip("/"))
        member.mode = self.mode
        member.uid = member.gid = self.owner
        member.mtime = EPOCH
        if self.link:
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, self.link, 0o777
        elif self.content is None:
            member.type = tarfile.DIRTYPE
        else:
            member.size = len(self.content)
        return member


def tree(root: Path, place: str, *, suffixes: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> Iterator[Entry]:
    """The files below a folder, in the order of their names.

    Args:
        root: a folder; links in it are followed.
        place: where its content shall lie.
        suffixes: only files whose names end so; empty: all.
        skip: names of folders and files that are left out.
    """
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if not path.is_file() or any(part in skip for part in relative.parts):
            continue
        if suffixes and not path.name.endswith(suffixes):
            continue
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        yield Entry(str(PurePosixPath(place) / relative.as_posix()), path.read_bytes(), mode)


@dataclass(frozen=True)
class Layer:
    """A layer's archive on the disk."""

    path: Path
    #: Of the file, in hexadecimal: what an image's configuration calls `diff_id`.
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Layer:
        """Read a layer that was written before."""
        with path.open("rb") as stream:
            return cls(path, hashlib.file_digest(stream, "sha256").hexdigest())

    def read(self, path: str) -> bytes:
        """The content of a file in it; empty where it has no such file."""
        with tarfile.open(self.path, "r:") as archive:
            for member in archive:
                if member.name == path.strip("/"):
                    content = archive.extractfile(member)
                    return content.read() if content is not None else b""
        return b""


def write_layer(entries: Iterable[Entry], path: Path) -> Layer:
    """Write a layer's archive. Neither the order of the entries matters, nor whether folders are among them.

    A folder that nobody names belongs to root and has mode 755. Of two entries with the same path the last one counts.
    """
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for entry in _complete(entries):
            archive.addfile(entry.member(), io.BytesIO(entry.content or b""))
    return Layer.of(path)


def _complete(entries: Iterable[Entry]) -> list[Entry]:
    """The entries in order, each after its folders."""
    wanted: dict[str, Entry] = {}
    for entry in entries:
        wanted["/" + entry.path.strip("/")] = entry
    for path in tuple(wanted):
        for folder in PurePosixPath(path).parents:
            if str(folder) != "/":
                wanted.setdefault(str(folder), Entry(str(folder)))
    return [wanted[path] for path in sorted(wanted, key=lambda path: PurePosixPath(path).parts)]


class Settings(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What a container of the image is started with; the names are those of the image specification."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    #: Number of user and group; empty: root.
    user: str = ""
    working_dir: str = "/"
    exposed_ports: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


def ports(*numbers: int) -> dict[str, dict[str, str]]:
    """`exposed_ports` of `Settings`, all of them TCP."""
    return {f"{number}/tcp": {} for number in sorted(numbers)}


@dataclass(frozen=True)
class Image:
    """An image, ready to be loaded."""

    #: Its name with its tag, as `zkchaos/zookeeper:3.9.5`.
    reference: str
    layers: tuple[Layer, ...]
    settings: Settings
    #: As Docker calls it: `amd64`, `arm64`.
    architecture: str
    #: One short line for each layer, for `docker history`.
    history: tuple[str, ...] = field(default=())

    def config(self) -> bytes:
        """The configuration, a JSON document whose keys are sorted."""
        document = {
            "architecture": self.architecture,
            "config": self.settings,
            "created": _CREATED,
            "history": [{"created": _CREATED, "created_by": line} for line in self.history],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in self.layers]},
        }
        return msgspec.json.encode(document, order="sorted")

    @property
    def id(self) -> str:
        """What the engine calls the image: `sha256:...`."""
        return f"sha256:{hashlib.sha256(self.config()).hexdigest()}"

    def archive(self) -> Iterator[bytes]:
        """What `docker load` reads, piece by piece: an image of 300 MB is never in memory."""
        config = self.config()
        name = f"{self.id.removeprefix('sha256:')}.json"
        paths = [f"{layer.sha256}/layer.tar" for layer in self.layers]
        manifest = msgspec.json.encode([{"Config": name, "RepoTags": [self.reference], "Layers": paths}])
        yield from _member("manifest.json", manifest)
        yield from _member(name, config)
        for layer, path in zip(self.layers, paths, strict=True):
            size = layer.path.stat().st_size
            yield _header(path, size)
            with layer.path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
            yield _padding(size)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content))
    yield content
    yield _padding(len(content))


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, EPOCH, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)

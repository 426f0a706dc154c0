"""What gets into the lowest layer, and what happens where it cannot be made."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import EngineUnavailable
from harness.images import filesystem
from harness.images.archive import EPOCH, Layer
from harness.images.filesystem import FileSystem, file_system, installed_packages, left_out, strip

STATUS = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\nPackage: bash\nVersion: 5.2\n"


def archive(noise: str, time: int) -> io.BytesIO:
    """What mmdebstrap might write at a time: a file, a link to it, dpkg's list, and things that differ each time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in (
            ("./", ""),
            ("./etc/", ""),
            ("./etc/machine-id", noise),
            ("./etc/ssl/certs/java/cacerts", noise),
            ("./etc/apt/sources.list", noise),
            ("./usr/bin/x", "program"),
            ("./var/lib/dpkg/status", STATUS),
            ("./var/log/dpkg.log", noise),
        ):
            member = tarfile.TarInfo(name.rstrip("/") or ".")
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size, member.mtime, member.mode = len(content), time, 0o755
            member.uname = noise
            tar.addfile(member, io.BytesIO(content.encode()))
        for name, target in (("./usr/bin/y", "./usr/bin/x"), ("./usr/bin/z", "./var/log/dpkg.log")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname, link.mtime = tarfile.LNKTYPE, target, time
            tar.addfile(link)
    stream.seek(0)
    return stream


def test_two_makings_give_the_same_layer(tmp_path: Path) -> None:
    packages = [strip(archive(noise, EPOCH + later), tmp_path / noise) for noise, later in (("ab", 5), ("cd", 900))]
    assert packages == [("bash 5.2", "libc6 2.36-9")] * 2
    assert Layer.of(tmp_path / "ab").sha256 == Layer.of(tmp_path / "cd").sha256
    with tarfile.open(tmp_path / "ab") as tar:
        assert tar.getnames() == ["etc", "usr/bin/x", "var/lib/dpkg/status", "usr/bin/y"]
        program = tar.extractfile("usr/bin/y")
        assert program is not None
        assert program.read() == b"program"


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("", True),
        (".", True),
        ("dev/null", True),
        ("dev", False),
        ("usr/share/doc/bash/changelog.Debian.gz", True),
        ("usr/share/doc/bash/copyright", False),
        ("usr/share/doc/bash/copyright.old", True),
        ("usr/share/doc/bash", False),
        ("etc/passwd-", True),
        ("etc/passwd", False),
        ("etc/hosts", True),
        ("etc/hosts.allow", False),
        ("etc/apt/sources.list.d", True),
        ("etc/apt/sources.list.d/a.sources", True),
        ("etc/apt/apt.conf.d/01autoremove", False),
        ("etc/ssl/certs/ca-certificates.crt", False),
        ("var/lib/dpkg/status-old", True),
        ("var/lib/dpkg/info/bash.list", False),
        ("usr/lib/python3.11/__pycache__/os.cpython-311.pyc", False),
        ("run/lock", True),
        ("tmp", False),
    ],
)
def test_what_is_left_out(path: str, out: bool) -> None:
    assert left_out(path) is out


def test_packages_of_an_empty_list() -> None:
    assert installed_packages(()) == ()


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """A machine whose programs are those of a folder and those of the system, and whose apt says nothing."""
    for name in ("apt-get", "apt-config"):
        program(tmp_path / "programs", name, "exit 0")
    system = os.defpath + ":/usr/bin:/bin"
    return {"ZKCHAOS_CACHE": str(tmp_path / "cache"), "PATH": f"{tmp_path / 'programs'}:{system}"}


def make(environ: Mapping[str, str], *, fresh: bool = False) -> FileSystem:
    return file_system(("java",), "amd64", lambda _line: None, fresh=fresh, environ=environ)


def mmdebstrap(tmp_path: Path, noise: str) -> None:
    """Like the real one, but it makes the archive from above, and notes what it was told."""
    (tmp_path / "made.tar").write_bytes(archive(noise, EPOCH).getvalue())
    script = f"""
echo "$@" > {tmp_path}/arguments
cat > {tmp_path}/sources
for word; do case $word in --aptopt=*) cat "${{word#--aptopt=}}" > {tmp_path}/options;; esac; done
cat {tmp_path}/made.tar
"""
    program(tmp_path / "programs", "mmdebstrap", script)


def test_without_mmdebstrap(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="apt install mmdebstrap"):
        make({"ZKCHAOS_CACHE": str(tmp_path), "PATH": str(tmp_path / "empty")})


def test_mmdebstrap_fails(tmp_path: Path, environ: Mapping[str, str]) -> None:
    program(tmp_path / "programs", "mmdebstrap", "echo I: trying >&2; echo E: no space for you >&2; exit 25")
    with pytest.raises(EngineUnavailable, match="likely cause: no space for you"):
        make(environ)
    assert not list((tmp_path / "cache" / "images").glob("*.tar"))
    assert not list((tmp_path / "cache" / "images").glob("making-*"))


def test_mmdebstrap_fails_after_it_wrote_an_archive(tmp_path: Path, environ: Mapping[str, str]) -> None:
    mmdebstrap(tmp_path, "ab")
    with (tmp_path / "programs" / "mmdebstrap").open("a") as script:
        script.write("exit 1\n")
    with pytest.raises(EngineUnavailable, match="it said nothing"):
        make(environ)
    assert not list((tmp_path / "cache" / "images").glob("*.tar"))


def test_an_archive_without_packages_is_none(tmp_path: Path, environ: Mapping[str, str]) -> None:
    program(tmp_path / "programs", "mmdebstrap", "echo I: done >&2")
    with pytest.raises(EngineUnavailable, match="likely cause: I: done"):
        make(environ)


def test_it_is_made_once_and_again_on_demand(tmp_path: Path, environ: Mapping[str, str]) -> None:
    mmdebstrap(tmp_path, "ab")
    first = make(environ)
    assert (first.cached, first.packages) == (False, ("bash 5.2", "libc6 2.36-9"))
    program(tmp_path / "programs", "mmdebstrap", "exit 1")
    second = make(environ)
    assert (second.cached, second.layer, second.packages) == (True, first.layer, first.packages)
    with pytest.raises(EngineUnavailable):
        make(environ, fresh=True)
    assert make(environ).layer == first.layer


def test_a_damaged_one_is_made_again(tmp_path: Path, environ: Mapping[str, str]) -> None:
    mmdebstrap(tmp_path, "ab")
    first = make(environ)
    with first.layer.path.open("r+b") as stream:
        stream.seek(700)
        stream.write(b"\xff")
    again = make(environ)
    assert not again.cached
    assert again.layer == first.layer


def test_the_machines_own_package_sources_are_used(tmp_path: Path, environ: Mapping[str, str]) -> None:
    mmdebstrap(tmp_path, "ab")
    lines = (
        "http://near.example/debian/ bookworm main",
        "http://near.example/debian/ bookworm main",
        "http://near.example/debian/ bookworm contrib",
        "http://near.example/security/ bookworm-security main",
        "http://else.example/ trixie main",
        "http://else.example/ bookworm stable",
        "odd",
    )
    program(tmp_path / "programs", "apt-get", "\n".join(f"echo '{line}'" for line in lines))
    settings = 'Acquire::http::Proxy "http://p.example:3142/";'
    program(tmp_path / "programs", "apt-config", f"echo '{settings}'; echo 'APT::Architecture \"amd64\";'")
    make(environ)
    assert (tmp_path / "sources").read_text().splitlines() == [
        "deb http://near.example/debian/ bookworm main",
        "deb http://near.example/security/ bookworm-security main",
    ]
    assert (tmp_path / "options").read_text() == f"{settings}\n"
    assert (tmp_path / "arguments").read_text().split()[-3:] == [filesystem.SUITE, "-", "-"]


def test_a_machine_of_another_kind_takes_debians_own_servers(tmp_path: Path, environ: Mapping[str, str]) -> None:
    mmdebstrap(tmp_path, "ab")
    program(tmp_path / "programs", "apt-get", "echo http://other.example/ noble main; exit 1")
    program(tmp_path / "programs", "apt-config", "exit 1")
    make(environ)
    assert (tmp_path / "arguments").read_text().split()[-2:] == [filesystem.SUITE, "-"]
    assert (tmp_path / "sources").read_text() == ""
    assert (tmp_path / "options").read_text() == ""


def test_a_cache_that_cannot_be_written(tmp_path: Path, environ: Mapping[str, str]) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EngineUnavailable, match="set ZKCHAOS_CACHE"):
        make(environ)

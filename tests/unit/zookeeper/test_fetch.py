"""What comes out of somebody else's container is written where we say, whatever it says."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RunFolderError, TestbedError
from harness.zookeeper.fetch import unpack


def packed(files: Mapping[str, bytes], kinds: Mapping[str, bytes] | None = None) -> bytes:
    """A tar archive; `kinds` makes a member something else than a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type = (kinds or {}).get(name, tarfile.REGTYPE)
            member.linkname = "/etc/hostname"
            member.size = len(content) if member.isfile() else 0
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def unpacked(data: bytes, folder: Path, piece: int = 700) -> dict[str, bytes]:
    target = folder / "run" / "version-2"
    unpack((data[at : at + piece] for at in range(0, len(data), piece)), "log.", target, "server 1")
    assert [path.name for path in folder.iterdir()] == ["run"]
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*")}


def test_logs_are_taken_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "version-2/": b"",
        "version-2/log.100000001": b"one" + bytes(5000),
        "version-2/snapshot.100000000": b"no",
        "version-2/currentEpoch": b"1",
        "/log.2": b"two",
        "../../log.3": b"three",
        "version-2/log.4/../../../evil": b"no",
        "version-2/log.link": b"",
        "version-2/log.5": b"",
        "version-2/log.zz": b"no",
    }
    kinds = {"version-2/": tarfile.DIRTYPE, "version-2/log.5": tarfile.SYMTYPE}
    assert unpacked(packed(files, kinds), tmp_path) == {
        "log.100000001": b"one" + bytes(5000),
        "log.2": b"two",
        "log.3": b"three",
    }


def test_zeros_take_no_space(tmp_path: Path) -> None:
    size = 16 * 1024 * 1024
    content = b"x" * 10 + bytes(size)
    assert unpacked(packed({"version-2/log.1": content}), tmp_path, piece=1 << 20) == {"log.1": content}
    assert (tmp_path / "run" / "version-2" / "log.1").stat().st_blocks * 512 < size / 4


@pytest.mark.parametrize("data", [b"", b"tar: version-2: Cannot stat: No such file or directory\n"])
def test_what_is_no_archive_is_told(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="server 1: its files cannot be fetched"):
        unpacked(data, tmp_path)


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert unpacked(packed({}), tmp_path) == {}


@given(st.integers(0, (1 + 6 + 1 + 1) * 512 + 1023))
def test_half_an_archive_is_not_taken_for_a_whole_one(length: int) -> None:
    """Transactions would be missed in it that were only lost on the way."""
    data = packed({"log.1": b"one" + bytes(3000), "log.2": b"two"})[:length]
    with tempfile.TemporaryDirectory() as folder, pytest.raises(TestbedError):
        unpacked(data, Path(folder))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunFolderError):
        unpack([packed({"log.1": b"x"})], "log.", tmp_path / "run" / "version-2", "server 1")


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30), st.binary(max_size=40), max_size=5
    )
)
def test_no_name_leads_out_of_the_folder(files: dict[str, bytes]) -> None:
    more = {f"{name}/log.{number}": content for number, (name, content) in enumerate(files.items())}
    with tempfile.TemporaryDirectory() as folder:
        found = unpacked(packed({**files, **more}), Path(folder))
    assert all("/" not in name for name in found)
    assert set(found) >= {f"log.{number}" for number in range(len(files))}


@given(st.binary(max_size=2000), st.integers(0, 3000))
def test_damage_is_told(noise: bytes, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for data in (noise, packed({"log.1": noise})[:cut] + noise):
            try:
                unpacked(data, Path(folder))
            except TestbedError as problem:
                assert "server 1" in str(problem)

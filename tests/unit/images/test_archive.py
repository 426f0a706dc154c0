"""An image is decided by what is in it, and by nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.images.archive import EPOCH, Entry, Image, Layer, Settings, ports, tree, write_layer

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)
# Files and folders of two kinds of names, so that no file is another one's folder.
folders = st.lists(names.map(lambda name: f"d{name}"), max_size=4)
paths = st.builds(lambda parents, name: "/" + "/".join([*parents, f"f{name}"]), folders, names)
entries = st.builds(
    Entry, paths, content=st.binary(max_size=2000), mode=st.sampled_from((0o644, 0o755)), owner=st.integers(0, 70000)
)
trees = st.lists(entries, max_size=12, unique_by=lambda entry: entry.path)


def layer_of(found: list[Entry]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.tar"
        layer = write_layer(found, path)
        content = path.read_bytes()
        assert layer.sha256 == hashlib.sha256(content).hexdigest()
        return content


def members(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: member for member in archive}


@given(trees, st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(found: list[Entry], chance: st.DataObject) -> None:
    shuffled = list(found)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert layer_of(shuffled) == layer_of(found)


@given(trees)
def test_a_layer_holds_what_was_put_in(found: list[Entry]) -> None:
    content = layer_of(found)
    there = members(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in found:
            member = there[entry.path.strip("/")]
            file = archive.extractfile(member)
            assert file is not None
            assert file.read() == entry.content
            assert (member.mode, member.uid, member.gid) == (entry.mode, entry.owner, entry.owner)
    assert {name for name, member in there.items() if member.isfile()} == {entry.path.strip("/") for entry in found}
    assert {member.mtime for member in there.values()} <= {EPOCH}
    assert {member.uname + member.gname for member in there.values()} <= {""}


@given(trees)
def test_every_folder_comes_before_what_is_in_it(found: list[Entry]) -> None:
    seen = {"."}
    for name, member in members(layer_of(found)).items():
        assert str(PurePosixPath(name).parent) in seen
        if member.isdir():
            seen.add(name)


def test_links_and_folders_of_a_user() -> None:
    there = members(layer_of([Entry("/usr/bin/x", link="/opt/x"), Entry("/data", owner=1000), Entry("/data/a", b"")]))
    assert list(there) == ["data", "data/a", "usr", "usr/bin", "usr/bin/x"]
    assert there["usr/bin/x"].issym()
    assert there["usr/bin/x"].linkname == "/opt/x"
    assert (there["data"].uid, there["data"].gid, there["data"].mode) == (1000, 1000, 0o755)
    assert there["usr"].uid == 0


def test_the_last_entry_of_a_path_counts(tmp_path: Path) -> None:
    layer = write_layer([Entry("/a", b"first"), Entry("/a", b"second")], tmp_path / "layer.tar")
    assert layer.read("/a") == b"second"
    assert layer.read("/b") == b""
    assert Layer.of(layer.path) == layer


def test_a_tree_of_files(tmp_path: Path) -> None:
    for name, mode in (("b/x.py", 0o600), ("a.py", 0o700), ("c.txt", 0o644), ("__pycache__/a.py", 0o644)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    found = list(tree(tmp_path, "/opt", suffixes=(".py",), skip=("__pycache__",)))
    # Of the modes only one bit is taken: the rest is up to the umask of whoever checked the files out.
    assert found == [Entry("/opt/a.py", b"a.py", 0o755), Entry("/opt/b/x.py", b"b/x.py", 0o644)]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    layers = (
        write_layer([Entry("/a", b"a" * 5000)], tmp_path / "1.tar"),
        write_layer([Entry("/b", b"")], tmp_path / "2.tar"),
    )
    settings = Settings(entrypoint=("/a",), env=("X=1",), exposed_ports=ports(8080, 2181), labels={"z": "1", "a": "2"})
    return Image("zkchaos-test/x:1", layers, settings, "amd64", ("one", "two"))


def test_what_the_engine_reads(image: Image) -> None:
    content = b"".join(image.archive())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        read = {name: file.read() for name, file in files.items() if file is not None}
    (manifest,) = json.loads(read["manifest.json"])
    config = read[manifest["Config"]]
    assert manifest["RepoTags"] == ["zkchaos-test/x:1"]
    assert image.id == f"sha256:{hashlib.sha256(config).hexdigest()}"
    document = json.loads(config)
    layers = [f"sha256:{hashlib.sha256(read[path]).hexdigest()}" for path in manifest["Layers"]]
    assert document["rootfs"] == {"type": "layers", "diff_ids": layers}
    assert len(document["history"]) == len(layers)
    assert document["config"] == {
        "Entrypoint": ["/a"],
        "Env": ["X=1"],
        "ExposedPorts": {"2181/tcp": {}, "8080/tcp": {}},
        "Labels": {"a": "2", "z": "1"},
    }
    assert (document["os"], document["architecture"], document["created"]) == ("linux", "amd64", "2025-01-01T00:00:00Z")


def test_the_name_is_not_part_of_the_id_and_all_else_is(image: Image, tmp_path: Path) -> None:
    def id_with(**changes: object) -> str:
        kept = {name: getattr(image, name) for name in ("reference", "layers", "settings", "architecture", "history")}
        return Image(**{**kept, **changes}).id

    assert id_with(reference="zkchaos-test/y:2") == image.id
    other = write_layer([Entry("/b", b"", 0o644)], tmp_path / "3.tar")
    assert id_with(layers=(image.layers[0], other)) != image.id
    assert id_with(architecture="arm64") != image.id
    assert id_with(settings=Settings(entrypoint=("/b",))) != image.id

"""Fetching: what is let into the cache, what is refused, and what is said when nothing can be had."""

import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import DistributionCorrupt, DistributionUnavailable, UsageError
from harness.zookeeper.lock import REPOSITORY_VARIABLE, LockedJar
from harness.zookeeper.maven import cached_jars
from tests.unit.zookeeper.repository import Repository, jar, serving


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with serving(tmp_path / "repository") as repository:
        yield repository


def fetch(cache: Path, environ: dict[str, str], *jars: LockedJar) -> tuple[Path, ...]:
    return cached_jars(jars, cache, environ, lambda _line: None)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_jars_are_fetched_once_and_keep_their_order(repository: Repository, tmp_path: Path) -> None:
    jars = [repository.put(name, name.encode() * 1000) for name in ("b", "a", "c")]
    for _ in range(2):
        paths = fetch(tmp_path / "cache", repository.environ(), *jars)
        assert [path.read_bytes() for path in paths] == [b"b" * 1000, b"a" * 1000, b"c" * 1000]
    assert len(repository.requests) == 3
    assert files(tmp_path / "cache") == sorted(paths)


def test_only_what_is_missing_is_fetched(repository: Repository, tmp_path: Path) -> None:
    first, second = repository.put("first", b"1"), repository.put("second", b"2")
    fetch(tmp_path, repository.environ(), first)
    fetch(tmp_path, repository.environ(), first, second)
    assert [Path(path).name for path in repository.requests] == ["first-1.0.jar", "second-1.0.jar"]


def test_a_wrong_jar_from_the_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    good, bad = repository.put("good", b"good"), repository.put("bad", b"good", served=b"evil")
    with pytest.raises(DistributionCorrupt) as refused:
        fetch(tmp_path / "cache", repository.environ(), good, bad)
    assert refused.value.where == f"{repository.url}/{bad.path}"
    assert bad.sha256 in str(refused.value)
    assert b"evil" not in [path.read_bytes() for path in files(tmp_path / "cache")]


def test_a_wrong_jar_in_the_cache_is_refused_and_left_alone(repository: Repository, tmp_path: Path) -> None:
    locked = repository.put("server", b"good")
    (path,) = fetch(tmp_path, repository.environ(), locked)
    path.write_bytes(b"evil")
    for _ in range(2):
        with pytest.raises(DistributionCorrupt) as refused:
            fetch(tmp_path, repository.environ(), locked)
        assert refused.value.where == str(path)
        assert "delete" in refused.value.next_step
    assert path.read_bytes() == b"evil"
    assert len(repository.requests) == 1


@given(damage=st.binary(max_size=64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_no_other_content_is_ever_accepted(tmp_path: Path, damage: bytes) -> None:
    locked = jar("server", b"the one content")
    path = tmp_path / locked.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damage)
    with pytest.raises(DistributionCorrupt):
        fetch(tmp_path, {}, locked)


def test_an_unreachable_repository_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DistributionUnavailable) as failure:
            fetch(tmp_path, {REPOSITORY_VARIABLE: url, "PATH": ""}, jar("server", b""))
    assert failure.value.where.startswith(url)
    assert "refused" in failure.value.what
    for way_out in (REPOSITORY_VARIABLE, "ZOOKEEPER_HOME", "libzookeeper-java"):
        assert way_out in failure.value.next_step
    assert files(tmp_path) == []


def test_a_jar_that_the_repository_lacks_is_asked_for_once(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(DistributionUnavailable, match="404"):
        fetch(tmp_path / "cache", repository.environ(), jar("server", b""))
    assert len(repository.requests) == 1


def test_a_busy_repository_is_asked_again(repository: Repository, tmp_path: Path) -> None:
    locked = repository.put("server", b"content")
    repository.refusals = [503, 429]
    fetch(tmp_path / "cache", repository.environ(), locked)
    assert len(repository.requests) == 3


@pytest.mark.parametrize("url", ["nonsense", "ftp://example.net/x", "file:///etc", "https://"])
def test_a_repository_that_is_no_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        fetch(tmp_path, {REPOSITORY_VARIABLE: url}, jar("server", b""))
    assert refused.value.where == REPOSITORY_VARIABLE


def test_a_cache_that_cannot_be_written_is_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DistributionUnavailable, match="ZKCHAOS_CACHE") as failure:
        fetch(tmp_path / "file" / "cache", repository.environ(), repository.put("server", b""))
    assert failure.value.where == str(tmp_path / "file" / "cache")


def test_what_a_killed_process_left_is_removed(repository: Repository, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "partial").mkdir(parents=True)
    (cache / "partial" / "half").touch()
    fetch(cache, repository.environ(), repository.put("server", b"content"))
    assert not (cache / "partial").exists()


def _fetch_in_a_process(cache: Path, environ: dict[str, str], jars: list[LockedJar]) -> int:
    return len(fetch(cache, environ, *jars))


def test_processes_that_ask_at_once_fetch_once(repository: Repository, tmp_path: Path) -> None:
    jars = [repository.put(f"jar{number}", os.urandom(10_000)) for number in range(8)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        asked = [
            pool.apply_async(_fetch_in_a_process, (tmp_path / "cache", repository.environ(), jars)) for _ in "1234"
        ]
        assert [one.get(timeout=60) for one in asked] == [8] * 4
    assert len(repository.requests) == 8


class TestTheUsersOwnMaven:
    """Where no repository is chosen, what the user's Maven has comes first."""

    def test_its_local_repository_is_read(self, tmp_path: Path) -> None:
        home = Repository(tmp_path / ".m2" / "repository")
        locked = home.put("server", b"content")
        (path,) = fetch(tmp_path / "cache", {"HOME": str(tmp_path), "PATH": ""}, locked)
        assert path == tmp_path / "cache" / locked.path
        assert path.read_bytes() == b"content"

    @pytest.mark.parametrize("namespace", ["", ' xmlns="http://maven.apache.org/SETTINGS/1.2.0"'])
    def test_its_settings_may_have_it_elsewhere(self, tmp_path: Path, namespace: str) -> None:
        locked = Repository(tmp_path / "elsewhere").put("server", b"content")
        (tmp_path / ".m2").mkdir()
        (tmp_path / ".m2" / "settings.xml").write_text(
            f"<settings{namespace}><localRepository>{tmp_path}/elsewhere</localRepository></settings>"
        )
        (path,) = fetch(tmp_path / "cache", {"HOME": str(tmp_path), "PATH": ""}, locked)
        assert path.read_bytes() == b"content"

    def test_mvn_is_asked_for_what_is_missing(self, tmp_path: Path) -> None:
        locked = jar("server", b"from mvn\n")
        said: list[str] = []
        environ = {"HOME": str(tmp_path), "PATH": f"{self._mvn(tmp_path, locked, 0)}:/usr/bin:/bin"}
        (path,) = cached_jars((locked,), tmp_path / "cache", environ, said.append)
        assert path.read_bytes() == b"from mvn\n"
        assert said == ["fetching 1 jars with mvn"]

    def test_a_wrong_jar_from_mvn_is_refused(self, tmp_path: Path) -> None:
        locked = jar("server", b"another")
        environ = {"HOME": str(tmp_path), "PATH": f"{self._mvn(tmp_path, locked, 0)}:/usr/bin:/bin"}
        with pytest.raises(DistributionCorrupt):
            fetch(tmp_path / "cache", environ, locked)
        assert files(tmp_path / "cache") == []

    def test_without_it_the_repository_is_asked(
        self, tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", repository.url)
        locked = repository.put("server", b"from the repository")
        absent = jar("other", b"")
        said: list[str] = []
        environ = {"HOME": str(tmp_path), "PATH": f"{self._mvn(tmp_path, absent, 1)}:/usr/bin:/bin"}
        (path,) = cached_jars((locked,), tmp_path / "cache", environ, said.append)
        assert path.read_bytes() == b"from the repository"
        assert said[1] == "mvn could not fetch them (exit code 1); doing without it"

    def test_another_jar_in_its_local_repository_is_told_and_not_taken(
        self, tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", repository.url)
        locked = repository.put("server", b"released")
        own = tmp_path / ".m2" / "repository" / locked.path
        own.parent.mkdir(parents=True)
        own.write_bytes(b"built by hand")
        said: list[str] = []
        environ = {"HOME": str(tmp_path), "PATH": ""}
        (path,) = cached_jars((locked,), tmp_path / "cache", environ, said.append)
        assert path.read_bytes() == b"released"
        assert own.read_bytes() == b"built by hand"
        assert said[0] == f"not using {own}: its SHA-256 is not the locked one"

    @staticmethod
    def _mvn(folder: Path, locked: LockedJar, code: int) -> Path:
        """A program called mvn that has one jar; returns its folder."""
        place = folder / "bin"
        place.mkdir()
        mvn = place / "mvn"
        mvn.write_text(f"#!/bin/sh\nmkdir -p jars/{locked.folder}\necho from mvn > jars/{locked.path}\nexit {code}\n")
        mvn.chmod(0o755)
        return place

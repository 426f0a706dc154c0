"""Which jars a version spec means."""

import zipfile
from pathlib import Path

import pytest

from harness.errors import DistributionUnavailable, UsageError
from harness.zookeeper.distribution import LoggingBackend, resolve
from harness.zookeeper.installed import debian_jars, version_of
from harness.zookeeper.maven import sha256_of

PROPERTIES = "META-INF/maven/org.apache.zookeeper/zookeeper/pom.properties"


def server_jar(path: Path, version: str | None, class_path: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\nClass-Path: {class_path}\r\n\r\n")
        if version:
            archive.writestr(PROPERTIES, f"artifactId=zookeeper\nversion={version}\n")
    return path


def release(root: Path, version: str = "3.9.5", *others: str) -> Path:
    """What an unpacked release looks like."""
    server_jar(root / "lib" / f"zookeeper-{version}.jar", version)
    for name in (f"zookeeper-jute-{version}", "slf4j-api-2.0.13", "logback-classic-1.3.15", *others):
        (root / "lib" / f"{name}.jar").write_bytes(name.encode())
    return root


def test_a_release_folder(tmp_path: Path) -> None:
    found = resolve(f"directory:{release(tmp_path)}", environ={})
    assert (found.version, found.line, found.source, found.logging) == ("3.9.5", "3.9", "directory", "logback")
    assert found.jars[0].path.name == "zookeeper-3.9.5.jar"
    assert len(found.jars) == 4
    assert all(jar.sha256 == sha256_of(jar.path) for jar in found.jars)
    assert found.class_path.split(":") == [str(jar.path) for jar in found.jars]


def test_a_source_tree_after_its_build(tmp_path: Path) -> None:
    target = tmp_path / "zookeeper-server" / "target"
    server_jar(target / "zookeeper-3.10.0-SNAPSHOT.jar", "3.10.0-SNAPSHOT")
    server_jar(target / "zookeeper-3.10.0-SNAPSHOT-tests.jar", None)
    (target / "lib").mkdir()
    (target / "lib" / "slf4j-reload4j-1.7.36.jar").touch()
    found = resolve(f"directory:{tmp_path}", environ={})
    assert (found.version, found.logging) == ("3.10.0-SNAPSHOT", LoggingBackend.LOG4J)
    assert [jar.path.name for jar in found.jars] == ["zookeeper-3.10.0-SNAPSHOT.jar", "slf4j-reload4j-1.7.36.jar"]


@pytest.mark.parametrize("spec", ["3.9.5", "3.9", "3.9.x", "directory"])
def test_zookeeper_home_is_taken_where_it_fits(tmp_path: Path, spec: str) -> None:
    found = resolve(spec, environ={"ZOOKEEPER_HOME": str(release(tmp_path))})
    assert (found.source, found.jars[0].path.parent) == ("directory", tmp_path / "lib")


def test_zookeeper_home_of_another_version_is_told_and_not_taken(tmp_path: Path) -> None:
    said: list[str] = []
    environ = {
        "ZOOKEEPER_HOME": str(release(tmp_path / "home", "3.8.6")),
        "ZKCHAOS_CACHE": str(tmp_path / "cache"),
        "ZKCHAOS_MAVEN_REPOSITORY": "http://127.0.0.1:1",
    }
    with pytest.raises(DistributionUnavailable):
        resolve("3.9", environ=environ, progress=said.append)
    assert said[0] == "ZOOKEEPER_HOME has ZooKeeper 3.8.6, not 3.9: not used"


def test_a_folder_without_a_server_is_refused(tmp_path: Path) -> None:
    for spec, environ in (("3.9", {"ZOOKEEPER_HOME": str(tmp_path)}), (f"directory:{tmp_path}", {})):
        with pytest.raises(DistributionUnavailable) as refused:
            resolve(spec, environ=environ)
        assert refused.value.where == str(tmp_path)
        assert "ZOOKEEPER_HOME" in refused.value.next_step


def test_a_folder_with_two_servers_is_refused(tmp_path: Path) -> None:
    release(release(tmp_path, "3.9.5"), "3.8.6")
    with pytest.raises(DistributionUnavailable, match=r"zookeeper-3\.8\.6\.jar, zookeeper-3\.9\.5\.jar"):
        resolve(f"directory:{tmp_path}", environ={})


@pytest.mark.parametrize(
    "spec", ["", "3", "3.9.x.x", "4.0", "3.9.1", "latest", "directory", "directory:", "debian:3.8"]
)
def test_a_spec_that_means_nothing_is_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        resolve(spec, environ={"ZKCHAOS_CACHE": str(tmp_path)})
    assert refused.value.next_step


def test_a_jar_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zookeeper-3.9.5.jar").write_bytes(b"no zip")
    with pytest.raises(DistributionUnavailable, match="not a readable jar"):
        resolve(f"directory:{tmp_path}", environ={})


def test_the_file_name_tells_the_version_where_the_jar_does_not(tmp_path: Path) -> None:
    assert version_of(server_jar(tmp_path / "zookeeper-3.4.14.jar", None)) == "3.4.14"
    with pytest.raises(DistributionUnavailable, match="which version"):
        version_of(server_jar(tmp_path / "zookeeper.jar", None))


def test_debians_jars_are_those_of_the_manifest_and_a_logging_back_end(tmp_path: Path) -> None:
    for name in ("zookeeper-jute", "slf4j-api", "slf4j-log4j12", "log4j-1.2", "unrelated"):
        (tmp_path / f"{name}.jar").touch()
    named = " ".join(str(tmp_path / f"{name}.jar") for name in ("zookeeper-jute", "slf4j-api", "not-installed"))
    folded = f"{named[:40]}\r\n {named[40:]}"
    server_jar(tmp_path / "zookeeper.jar", "3.8.0", folded)
    names = [path.name for path in debian_jars(tmp_path)]
    assert names == ["zookeeper.jar", "zookeeper-jute.jar", "slf4j-api.jar", "slf4j-log4j12.jar", "log4j-1.2.jar"]
    assert LoggingBackend.among(names) is LoggingBackend.LOG4J


def test_debians_package_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DistributionUnavailable, match="apt install libzookeeper-java"):
        debian_jars(tmp_path)

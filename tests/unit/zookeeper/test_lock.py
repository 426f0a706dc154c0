"""The lock file that is shipped, and which version a spec means."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.zookeeper.distribution import LoggingBackend
from harness.zookeeper.lock import DEFAULT_VERSION, line_of, locked_version, locked_versions, version_key


@pytest.mark.parametrize("version", locked_versions())
def test_every_locked_version_is_complete(version: str) -> None:
    jars = locked_version(version).jars
    artifacts = {jar.artifact: jar for jar in jars}
    assert jars[0] == artifacts["zookeeper"]
    assert len(artifacts) == len(jars), "an artifact is there twice"
    assert artifacts["zookeeper"].version == artifacts["zookeeper-jute"].version == version
    assert {"slf4j-api", "snappy-java", "netty-handler", "audience-annotations"} <= set(artifacts)
    assert version_key(version) < (3, 6) or "metrics-core" in artifacts
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert not any("native-epoll" in name or "tcnative" in name for name in artifacts)


@pytest.mark.parametrize("version", locked_versions())
def test_every_locked_version_can_log(version: str) -> None:
    artifacts = {jar.artifact for jar in locked_version(version).jars}
    backend = LoggingBackend.among(jar.file_name for jar in locked_version(version).jars)
    if version_key(version) >= (3, 8):
        assert backend is LoggingBackend.SIMPLE
        assert "logback-classic" not in artifacts  # SLF4J would choose between the two by chance
    else:
        assert backend is LoggingBackend.LOG4J
        assert "reload4j" in artifacts


def test_the_default_is_the_newest_of_all() -> None:
    assert locked_versions()[0] == DEFAULT_VERSION
    assert locked_version("3.9").version == DEFAULT_VERSION


@pytest.mark.parametrize("line", ["3.9", "3.8", "3.7", "3.6", "3.5"])
@pytest.mark.parametrize("form", ["{}", "{}.x"])
def test_a_line_means_its_newest(line: str, form: str) -> None:
    newest = max((v for v in locked_versions() if line_of(v) == line), key=version_key)
    assert locked_version(form.format(line)).version == newest


@given(st.one_of(st.text(max_size=12), st.from_regex(r"3\.\d{1,2}(\.(\d{1,2}|x))?", fullmatch=True)))
def test_a_spec_is_a_locked_version_or_refused_with_all_of_them(spec: str) -> None:
    try:
        found = locked_version(spec).version
    except UsageError as refused:
        assert spec not in locked_versions()
        assert all(version in str(refused) for version in locked_versions())
    else:
        assert found == spec or line_of(found) == spec.removesuffix(".x")


def test_versions_are_ordered_by_number() -> None:
    assert version_key("3.10.0") > version_key("3.9.12") > version_key("3.9.5")
    assert version_key("3.10.0-SNAPSHOT") == version_key("3.10.0")

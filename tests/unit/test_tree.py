"""What must not be in any file of the project: where one machine keeps things, and hosts that others may not reach."""

import re
import subprocess
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent.parent

#: Put together from words, so that this file does not contain them. The reason stands beside each.
_FORBIDDEN = {
    "a package registry's host; the tools' own configuration names it": "|".join(
        re.escape(".".join(words))
        for words in (
            ("repo1", "maven", "org"),
            ("repo", "maven", "apache", "org"),
            ("central", "sonatype", "com"),
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("proxy", "golang", "org"),
            ("registry", "npmjs", "org"),
            ("deb", "debian", "org"),
            ("security", "debian", "org"),
        )
    ),
    "a path that only one machine has": r"(?<![\w./~-])/(?:" + "|".join(("wo" + "rk", "ro" + "ot")) + r")/[\w.]",
}


def _files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no telling which files belong to the project")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("reason", _FORBIDDEN)
def test_no_file_has(reason: str) -> None:
    pattern = re.compile(_FORBIDDEN[reason])
    found = []
    for path in _files():
        data = path.read_bytes()
        if b"\0" not in data:
            lines = enumerate(data.decode("utf-8", "replace").splitlines(), start=1)
            found += [f"{path.relative_to(ROOT)}:{number}" for number, line in lines if pattern.search(line)]
    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    host, path = (re.compile(pattern) for pattern in _FORBIDDEN.values())
    assert host.search("https://pypi" + ".org/simple")
    assert path.search("see /ro" + "ot/.cache")
    assert not path.search("~/wo" + "rk/x")
    assert not path.search("harness/ro" + "ot/x")

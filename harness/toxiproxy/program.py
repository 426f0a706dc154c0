"""Toxiproxy's program: what `ZKCHAOS_TOXIPROXY` names, else `toxiproxy-server` on PATH, else made by Go, once.

What was made is kept in the cache under a name that has the SHA-256 of its content, which is checked at every use; one
that is not what it was is made anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import ToxiproxyMissing
from harness.zookeeper.cache import cache_folder

#: The newest release when this was written. Go's checksum database vouches for what is fetched.
VERSION = "2.12.0"
MODULE = "github.com/Shopify/toxiproxy/v2"
#: Names a program to use instead.
PROGRAM_VARIABLE = "ZKCHAOS_TOXIPROXY"
PROGRAM = "toxiproxy-server"

_BUILD_S = 600
#: How long another process may take that makes the same, and how long the program may take to tell its version.
_LOCK_S, _ANSWER_S = _BUILD_S, 10
_SAYS = "toxiproxy-server version "

Tell = Callable[[str], None]


def find_program(environ: Mapping[str, str] | None = None) -> Path | None:
    """The program that is here already; None where it would have to be made.

    Raises:
        ToxiproxyMissing: the one that the environment names does not work.
    """
    environ = os.environ if environ is None else environ
    chosen = environ.get(PROGRAM_VARIABLE)
    if chosen:
        return _tried(Path(chosen).expanduser().absolute(), PROGRAM_VARIABLE)
    on_path = shutil.which(PROGRAM, path=environ.get("PATH", ""))
    if on_path is not None:
        return _tried(Path(on_path).absolute(), "PATH")
    return _kept(_folder(environ))


def ensure_program(tell: Tell, environ: Mapping[str, str] | None = None) -> Path:
    """The program, which is made first where there is none, in half a minute.

    Args:
        tell: called with one short line before anything that takes seconds.
        environ: instead of this process's environment.

    Raises:
        ToxiproxyMissing: there is none, and no Go that could make it.
    """
    environ = os.environ if environ is None else environ
    found = find_program(environ)
    if found is not None:
        return found
    from filelock import FileLock, Timeout  # noqa: PLC0415 - loads slowly, and most runs find a program

    folder = _folder(environ)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "making.lock", timeout=_LOCK_S):
            return _kept(folder) or _make(folder, environ, tell)
    except (OSError, Timeout, ValueError, subprocess.TimeoutExpired) as problem:
        raise ToxiproxyMissing(
            "toxiproxy could not be made",
            where=str(folder),
            cause=str(problem),
            next_step=f"name a program by {PROGRAM_VARIABLE}",
        ) from problem


def version_of(program: Path) -> str:
    """What a program says of its version.

    Raises:
        OSError, subprocess.TimeoutExpired, ValueError: it is none that works.
    """
    done = subprocess.run(
        [str(program), "-version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_ANSWER_S,
        check=False,
        text=True,
        errors="replace",
    )
    said = done.stdout.strip()
    if done.returncode != 0 or not said.startswith(_SAYS):
        raise ValueError(f"asked for its version it says {(said or done.stderr.strip())[:60]!r}")
    return said.removeprefix(_SAYS)


def compile_program(architecture: str, scratch: Path, environ: Mapping[str, str]) -> bytes:
    """The program for Linux; Go's own caches are used, so that a second time takes a second or two.

    The same version of Go makes the same bytes.

    Args:
        architecture: as Go calls it: `amd64`, `arm64`.
        scratch: an empty folder.
        environ: for Go; PATH is where it is looked for.

    Raises:
        ToxiproxyMissing: there is no Go, or it could not fetch the module.
    """
    go = shutil.which("go", path=environ.get("PATH", ""))
    if go is None:
        raise ToxiproxyMissing(
            f"there is no {PROGRAM} here, and no `go` to compile it",
            next_step=f"install Go 1.23 or later, or name the program of a release by {PROGRAM_VARIABLE}",
        )
    settings = {
        "GOPATH": str(scratch / "go"),
        "GOMODCACHE": _go([go, "env", "GOMODCACHE"], environ).strip(),
        "GOBIN": "",
        "GOOS": "linux",
        "GOARCH": architecture,
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    flags = f"-s -w -buildid= -X {MODULE}.Version={VERSION}"
    _go([go, "install", "-trimpath", f"-ldflags={flags}", f"{MODULE}/cmd/server@v{VERSION}"], {**environ, **settings})
    # In a folder of its own where the processor, or the system, is another one than this machine's.
    return next((scratch / "go" / "bin").rglob("server")).read_bytes()


def _tried(program: Path, where: str) -> Path:
    try:
        version_of(program)
    except (OSError, subprocess.TimeoutExpired, ValueError) as problem:
        raise ToxiproxyMissing(
            f"{program} is no toxiproxy that works here",
            where=where,
            cause=str(problem),
            next_step=f"name another program by {PROGRAM_VARIABLE}",
        ) from problem
    return program


def _folder(environ: Mapping[str, str]) -> Path:
    return cache_folder(environ) / "toxiproxy"


def _kept(folder: Path) -> Path | None:
    """The sound program in the cache; unsound ones are removed."""
    for program in sorted(folder.glob(f"{VERSION}-*")):
        try:
            with program.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if program.name == f"{VERSION}-{found}":
                return program
            program.unlink()
        except OSError:
            continue  # another process removed it, or it is not ours to read
    return None


def _make(folder: Path, environ: Mapping[str, str], tell: Tell) -> Path:
    tell(f"compiling toxiproxy {VERSION}, once")
    with tempfile.TemporaryDirectory(prefix="making-", dir=folder) as scratch:
        content = compile_program(_architecture(environ), Path(scratch), environ)
        made = Path(scratch) / "made"
        made.write_bytes(content)
        made.chmod(0o755)
        version_of(made)
        return made.replace(folder / f"{VERSION}-{hashlib.sha256(content).hexdigest()}")


def _architecture(environ: Mapping[str, str]) -> str:
    """This machine's, as Go has it; where there is no Go, the compilation says so."""
    go = shutil.which("go", path=environ.get("PATH", ""))
    return _go([go, "env", "GOHOSTARCH"], environ).strip() if go else ""


def _go(command: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_BUILD_S,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise _not_compiled(str(problem)) from problem
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("go: downloading")]
        raise _not_compiled(lines[0] if lines else f"exit code {done.returncode}")
    return done.stdout


def _not_compiled(cause: str) -> ToxiproxyMissing:
    return ToxiproxyMissing(
        f"toxiproxy {VERSION} could not be compiled",
        where=MODULE,
        cause=cause[:300],
        next_step="check that `go` is 1.23 or later and reaches its module proxy (GOPROXY)",
    )

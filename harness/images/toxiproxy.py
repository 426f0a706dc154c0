"""The image of toxiproxy, a TCP proxy that delays and cuts: one program, made from its Go module, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import docker

from harness.errors import EngineUnavailable
from harness.images.archive import Entry, Image, Settings, ports, write_layer
from harness.images.loading import Loaded, Stopwatch, Tell, architecture_of, id_of, load

#: The newest release when this was written. Go's checksum database vouches for what is fetched.
VERSION = "2.12.0"
OWN = "zkchaos/toxiproxy"
#: Where it listens for orders.
CONTROL_PORT = 8474

_MODULE = "github.com/Shopify/toxiproxy/v2"
_BUILD_S = 600
#: Nobody; listening on any port of a container needs no more.
_USER = "65534:65534"


def toxiproxy_image_tag() -> str:
    """The image's whole name."""
    return f"{OWN}:{VERSION}"


def ensure_toxiproxy_image(client: docker.DockerClient, tell: Tell) -> str:
    """The name of toxiproxy's image, which is made first if the engine does not have it.

    Raises:
        EngineUnavailable: there is no Go here, or it could not fetch the module.
        TestbedError: the engine refused the image.
    """
    reference = toxiproxy_image_tag()
    if id_of(client, reference) is None:
        tell(str(build_toxiproxy_image(client, tell)))
    return reference


def build_toxiproxy_image(client: docker.DockerClient, tell: Tell, *, reference: str | None = None) -> Loaded:
    """Compile toxiproxy, and put an image of it into the engine. The same version of Go makes the same image.

    Args:
        client: of the engine that shall have it.
        tell: called with one short line before anything that takes seconds.
        reference: instead of `toxiproxy_image_tag()`.

    Raises:
        EngineUnavailable: there is no Go here, or it could not fetch the module.
        TestbedError: the engine refused the image.
    """
    watch = Stopwatch()
    architecture = architecture_of(client)
    with tempfile.TemporaryDirectory(prefix="zkchaos-image-") as scratch:
        tell(f"compiling toxiproxy {VERSION}")
        program = _compile(architecture, Path(scratch), os.environ)
        watch.lap("go install")
        layer = write_layer([Entry("/toxiproxy", program)], Path(scratch) / "layer.tar")
        image = Image(
            reference=reference or toxiproxy_image_tag(),
            layers=(layer,),
            settings=Settings(
                entrypoint=("/toxiproxy",),
                cmd=("-host=0.0.0.0",),
                exposed_ports=ports(CONTROL_PORT),
                user=_USER,
                labels={"org.opencontainers.image.version": VERSION},
            ),
            architecture=architecture,
            history=(f"go install {_MODULE}/cmd/server@v{VERSION}",),
        )
        number = load(client, image)
    watch.lap("load")
    return Loaded(image.reference, number, watch.steps)


def _compile(architecture: str, scratch: Path, environ: Mapping[str, str]) -> bytes:
    """The program for Linux; Go's own caches are used, so that a second time takes a second or two."""
    go = shutil.which("go", path=environ.get("PATH", ""))
    if go is None:
        raise EngineUnavailable(
            "toxiproxy's image is compiled by `go`, and there is none here",
            next_step=f"install Go 1.23 or later, or give the engine an image called {toxiproxy_image_tag()}",
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
    flags = f"-s -w -buildid= -X {_MODULE}.Version={VERSION}"
    _go([go, "install", "-trimpath", f"-ldflags={flags}", f"{_MODULE}/cmd/server@v{VERSION}"], {**environ, **settings})
    # In a folder of its own where the processor, or the system, is another one than this machine's.
    return next((scratch / "go" / "bin").rglob("server")).read_bytes()


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


def _not_compiled(cause: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"toxiproxy {VERSION} could not be compiled",
        where=_MODULE,
        cause=cause[:300],
        next_step="check that `go` is 1.23 or later and reaches its module proxy (GOPROXY)",
    )

"""The image of toxiproxy, a TCP proxy that delays and cuts: one program, made from its Go module, and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import docker

from harness.errors import EngineUnavailable, ToxiproxyMissing
from harness.images.archive import Entry, Image, Settings, ports, write_layer
from harness.images.loading import Loaded, Stopwatch, Tell, architecture_of, id_of, load
from harness.toxiproxy.program import MODULE, VERSION, compile_program

__all__ = ["CONTROL_PORT", "VERSION", "build_toxiproxy_image", "ensure_toxiproxy_image", "toxiproxy_image_tag"]

OWN = "zkchaos/toxiproxy"
#: Where it listens for orders.
CONTROL_PORT = 8474

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
            history=(f"go install {MODULE}/cmd/server@v{VERSION}",),
        )
        number = load(client, image)
    watch.lap("load")
    return Loaded(image.reference, number, watch.steps)


def _compile(architecture: str, scratch: Path, environ: Mapping[str, str]) -> bytes:
    """The program for the engine's machine.

    Raises:
        EngineUnavailable: there is no Go here, or it could not fetch the module.
    """
    try:
        return compile_program(architecture, scratch, environ)
    except ToxiproxyMissing as lacking:
        raise EngineUnavailable(
            f"toxiproxy's image cannot be made: {lacking.what}",
            where=lacking.where,
            cause=lacking.cause,
            next_step=f"{lacking.next_step}, or give the engine an image called {toxiproxy_image_tag()}",
        ) from lacking

"""Makes what `zkchaos image` is asked for, one image after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import docker

from harness.images.helper import build_helper_image
from harness.images.loading import Loaded, Tell
from harness.images.server import build_server_image
from harness.images.toxiproxy import build_toxiproxy_image
from harness.zookeeper.lock import DEFAULT_VERSION


def make_images(
    client: docker.DockerClient,
    versions: Sequence[str],
    tell: Tell,
    *,
    helper: bool = False,
    toxiproxy: bool = False,
    fresh: bool = False,
) -> Iterator[Loaded]:
    """Make a server's image of each version, a helper's, and toxiproxy's; if nothing is wanted, one of each.

    Args:
        client: of the engine that shall have them.
        versions: as `build_server_image` takes them.
        tell: called with one short line before anything that takes seconds.
        helper: make the helper's.
        toxiproxy: make toxiproxy's.
        fresh: take Debian's newest packages, instead of the file systems that are in the cache.

    Raises:
        UsageError: a version is not known.
        DistributionUnavailable: the jars of one could not be had.
        EngineUnavailable: what makes images is missing.
        TestbedError: the engine refused one.
    """
    everything = not (versions or helper or toxiproxy)
    for version in versions or ((DEFAULT_VERSION,) if everything else ()):
        yield build_server_image(client, version, tell, fresh=fresh)
    if helper or everything:
        yield build_helper_image(client, tell, fresh=fresh)
    if toxiproxy or everything:
        yield build_toxiproxy_image(client, tell)

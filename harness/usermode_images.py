"""Images for the Docker engine of a user-mode kernel, which is new each time and has neither images nor a registry."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable

from harness.images.server import build_server_image, fetch_parts
from harness.stage.stage import Tell
from harness.testbed.engine import connect_engine


def fetch_all(versions: Iterable[str], tell: Tell) -> None:
    """On the machine: have in the cache what the images of these versions are made of.

    Raises:
        UsageError, DistributionUnavailable, EngineUnavailable: as `fetch_parts`.
    """
    for version in versions:
        fetch_parts(version, tell)


def put_all() -> None:
    """In the guest: put the images of the versions that the first argument names into the engine, and drop it.

    Raises:
        DistributionUnavailable, EngineUnavailable, TestbedError: as `build_server_image`.
    """
    versions = sys.argv.pop(1).split(",")
    with contextlib.closing(connect_engine()) as client:
        for version in versions:
            build_server_image(client, version, lambda line: print(line, file=sys.stderr))  # noqa: T201 - progress

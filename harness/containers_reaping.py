"""Who removes what a test leaves behind: Ryuk, testcontainers' own remover, or our reaper where there is no Ryuk.

Ryuk is an image of its own, and testcontainers fails where it cannot be had. It is looked for once per process; where
it is neither on the engine nor pulled within seconds, testcontainers is told to do without.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading

import urllib3
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config

from harness.testbed.engine import connect_engine
from harness.testbed.reaper import Reaper

_log = logging.getLogger("harness.containers")

#: A registry that says nothing for so many seconds counts as out of reach.
_PULL_PATIENCE = 5
_looking = threading.Lock()


class Watch:
    """Sees to it that nothing of a run outlives this process. Make one before anything is made on the engine.

    Args:
        run_id: what is removed carries its labels (`harness.testbed.engine.run_labels`).
    """

    def __init__(self, run_id: str) -> None:
        self._reaper = None if ryuk_works() else Reaper.start(run_id)

    def close(self) -> None:
        """Everything has been removed. Idempotent.

        Raises:
            TestbedError: something is left that could not be removed.
        """
        if self._reaper is not None:
            self._reaper.close()


def ryuk_works() -> bool:
    """Whether testcontainers uses Ryuk in this process; sets `testcontainers_config.ryuk_disabled` if it cannot.

    Raises:
        EngineUnavailable: no Docker engine answers.
    """
    with _looking:
        if not testcontainers_config.ryuk_disabled and not _has(_ryuk_image()):
            _log.info("no image %s: testcontainers does without, and zkchaos' own reaper cleans up", _ryuk_image())
            testcontainers_config.ryuk_disabled = True
        return not testcontainers_config.ryuk_disabled


def _ryuk_image() -> str:
    return f"{testcontainers_config.hub_image_name_prefix}{testcontainers_config.ryuk_image}"


@functools.cache
def _has(image: str) -> bool:
    """Whether the engine has an image, or can fetch it from a registry that answers."""
    with contextlib.closing(connect_engine(timeout=_PULL_PATIENCE)) as client:
        try:
            client.images.get(image)
        except ImageNotFound:
            try:
                client.images.pull(image)
            except (DockerException, OSError, urllib3.exceptions.HTTPError):
                return False
    return True

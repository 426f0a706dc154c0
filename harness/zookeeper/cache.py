"""Where downloads and class-data archives are kept between runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_cache_dir

#: Overrides the place of the cache; the tests and CI set it.
CACHE_VARIABLE = "ZKCHAOS_CACHE"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The cache's root: `$ZKCHAOS_CACHE`, else the platform's own place for caches. It may not exist yet."""
    chosen = environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path(user_cache_dir("zkchaos"))

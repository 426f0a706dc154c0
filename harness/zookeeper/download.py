"""Plain HTTP(S) from a Maven repository: several files at once, every wait and every size bounded."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import DistributionUnavailable, UsageError
from harness.zookeeper.lock import REPOSITORY_VARIABLE, LockedJar

_THREADS = 6
_ATTEMPTS = 3
#: Between two attempts, and of one silence of the other side, seconds.
_PAUSE_S = 0.5
_TIMEOUT_S = 15
#: All attempts for one jar end by then, seconds.
_DEADLINE_S = 120
#: The largest jar has 2.2 MB.
_MAX_BYTES = 64 * 1024**2
_CHUNK = 256 * 1024


def repository_url(environ: Mapping[str, str]) -> str:
    """The root of the remote repository, without a slash at its end.

    Raises:
        UsageError: `ZKCHAOS_MAVEN_REPOSITORY` is not an http or https URL.
    """
    chosen = environ.get(REPOSITORY_VARIABLE)
    if not chosen:
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415 - jgo loads slowly, and most runs fetch nothing

        return str(MAVEN_CENTRAL_URL).rstrip("/")
    parts = urlsplit(chosen)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f'"{chosen}" is not the address of a Maven repository',
            where=REPOSITORY_VARIABLE,
            next_step="write it as https://host/path, or unset it",
        )
    return chosen.rstrip("/")


def download(
    jars: Iterable[LockedJar], folder: Path, environ: Mapping[str, str], *, next_step: str
) -> dict[LockedJar, str]:
    """Fetch jars into `folder`, in the repository's layout, and return the URL that each came from.

    Nothing is verified here.

    Raises:
        DistributionUnavailable: one could not be had, with `next_step` as what to do about it.
        UsageError: the repository's URL is not one.
        OSError: the folder cannot be written.
    """
    root = repository_url(environ)
    origins = {jar: f"{root}/{jar.path}" for jar in jars}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="download") as pool:
        fetches = [pool.submit(_fetch, url, folder / jar.path, next_step) for jar, url in origins.items()]
        try:
            for fetch in fetches:
                fetch.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return origins


def _fetch(url: str, path: Path, next_step: str) -> None:
    content = _get(url, next_step)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _get(url: str, next_step: str) -> bytes:
    """Fetch one file, trying again where another attempt may help."""
    deadline = time.monotonic() + _DEADLINE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _get_once(url, deadline)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            problem: Exception = refusal
            reason = f"{refusal.code} {refusal.reason}"
            hopeless = refusal.code < 500 and refusal.code != 429
        except (OSError, HTTPException) as failure:
            problem = failure
            reason = str(failure.reason if isinstance(failure, urllib.error.URLError) else failure)
            hopeless = False
        if hopeless or attempt == _ATTEMPTS or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S)  # a server that has just refused is given a moment; nothing is awaited here
    raise DistributionUnavailable(
        f"a jar of ZooKeeper could not be fetched: {reason}", where=url, next_step=next_step
    ) from problem


def _get_once(url: str, deadline: float) -> bytes:
    content = bytearray()
    request = urllib.request.Request(url, headers={"User-Agent": "zk-chaos-harness"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        while chunk := response.read(_CHUNK):
            content += chunk
            if len(content) > _MAX_BYTES:
                raise HTTPException(f"more than {_MAX_BYTES} bytes; no jar is that large")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not finished within {_DEADLINE_S} s")
        announced = response.headers.get("Content-Length")
    if announced is not None and announced.isdigit() and int(announced) != len(content):
        raise HTTPException(f"{len(content)} bytes of {announced} arrived")
    return bytes(content)

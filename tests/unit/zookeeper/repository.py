"""A Maven repository on loopback, for tests of what fetches from one."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.zookeeper.lock import REPOSITORY_VARIABLE, LockedJar


def jar(name: str, content: bytes, version: str = "1.0") -> LockedJar:
    """A jar whose locked hash is that of `content`."""
    return LockedJar("org.example", name, version, hashlib.sha256(content).hexdigest())


@dataclass
class Repository:
    """A repository's files, and what was asked of its server."""

    root: Path
    url: str = ""
    #: The paths of all requests, in the order of their arrival.
    requests: list[str] = field(default_factory=list)
    #: Statuses to answer the next requests with, before any file is served.
    refusals: list[int] = field(default_factory=list)

    def put(self, name: str, content: bytes, *, served: bytes | None = None) -> LockedJar:
        """Publish a jar; `served` is what is really delivered, if it is not the locked content."""
        locked = jar(name, content)
        path = self.root / locked.path
        path.parent.mkdir(parents=True)
        path.write_bytes(content if served is None else served)
        return locked

    def environ(self, **others: str) -> dict[str, str]:
        """An environment that has this repository as its only source."""
        return {REPOSITORY_VARIABLE: self.url, "PATH": "", "HOME": "/nonexistent", **others}


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, repository: Repository, *arguments: object) -> None:
        self._repository = repository
        super().__init__(*arguments, directory=str(repository.root))  # type: ignore[arg-type]  # passed on as they came

    def do_GET(self) -> None:
        self._repository.requests.append(self.path)
        if self._repository.refusals:
            self.send_error(self._repository.refusals.pop(0))
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(root: Path) -> Iterator[Repository]:
    """A repository that is being served until the end of the block."""
    repository = Repository(root)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, repository)) as server:
        repository.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield repository
        finally:
            server.shutdown()
            thread.join()

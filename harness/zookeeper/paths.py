"""Where a server finds its files: in the run folder itself, or where a container has them mounted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerPaths:
    """The four folders of a server, as its process sees them; a `ServerFolder` has the same, as this machine does."""

    config: Path
    logs: Path
    #: `dataLogDir`.
    txnlog: Path
    #: `dataDir`.
    snapshot: Path


#: As a container of the image `zookeeper` sees them.
IN_CONTAINER = ServerPaths(Path("/conf"), Path("/logs"), Path("/datalog"), Path("/data"))

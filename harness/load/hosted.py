"""kazoo sessions of this very process that stand on a host of the testbed.

The agent opens each socket in the host's network namespace and hands it over, so a test can use kazoo directly as
if it ran on a client host, and the harness can talk to one server alone over that server's own loopback.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from harness.errors import EnsembleError
from harness.load.traced_client import TracedClient, TracedHandler
from harness.testbed.handles import Testbed, wait_until_connected
from harness.topology.model import CLIENT_PORT


class HostedHandler(TracedHandler):
    """Opens every connection from a host of the testbed."""

    def __init__(self, testbed: Testbed, host: str) -> None:
        super().__init__()
        self._testbed, self._host = testbed, host

    def create_connection(self, *args: object, timeout: float, **kwargs: object) -> socket.socket:
        """Connect a socket that the agent opened."""
        address = kwargs.get("address", args[0] if args else None)
        if not isinstance(address, tuple):
            raise TypeError(f"not an address: {address!r}")
        opened = self._testbed.tcp_socket(self._host, (str(address[0]), int(address[1])))
        try:
            wait_until_connected(opened, min(timeout, self.connect_timeout))
            opened.settimeout(timeout)
            with contextlib.suppress(OSError):  # a relayed socket is not one of TCP on this side
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            opened.close()
            raise
        return opened


@contextlib.contextmanager
def hosted_client(
    testbed: Testbed, host: str, hosts: str, *, session_timeout: float = 4.0, within: float = 15.0
) -> Iterator[TracedClient]:
    """A connected session that stands on `host`; closed at the end of the block.

    Raises:
        EnsembleError: it did not connect within so many seconds.
    """
    client = TracedClient(hosts, session_timeout=session_timeout, handler=HostedHandler(testbed, host))
    connected = client.start_async()
    try:
        if not connected.wait(within):
            raise EnsembleError(
                f"no session within {within:g} s", where=f"{host} to {hosts}", cause="no server there serves clients"
            )
        yield client
    finally:
        client.stop()
        client.close()


def server_client(
    testbed: Testbed, host: str, *, within: float = 15.0
) -> contextlib.AbstractContextManager[TracedClient]:
    """A session with the server on `host` and no other, over its loopback, which no network fault touches."""
    return hosted_client(testbed, host, f"127.0.0.1:{CLIENT_PORT}", within=within)

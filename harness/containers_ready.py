"""Whether servers in containers serve, asked from inside of them; see `harness.containers`.

Whether a published port can be reached depends on where the caller stands, so nothing here uses one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, cast

from testcontainers.core.waiting_utils import WaitStrategy, WaitStrategyTarget

from harness.errors import EnsembleError
from harness.zookeeper.admin import DOWN, ServerStatus

#: Seconds between two rounds where the engine answers at once, as for a paused container.
_POLL = 0.05

#: A command for `exec`. One that waits costs the engine one request instead of one for each attempt.
_SCRIPT = """
exec 2>/dev/null
ask() { exec 3<>"/dev/tcp/127.0.0.1/$1" && printf %s "$2" >&3 && timeout 2 cat <&3; }
for ((left = $3; left > 0; left--)); do
  answer=$(ask "$1" "$2")
  [[ $answer == *"$4"* ]] && break
  sleep 0.1
done
printf '%s\\n' "$answer"
"""


def ask_command(port: int, word: str, *, attempts: int = 1, awaited: str = "") -> list[str]:
    """A command that prints a server's answer to an admin word, run in the server's container.

    Args:
        port: of the server.
        word: an admin word.
        attempts: as long as `awaited` is not in the answer; there are some ten in a second.
        awaited: a part of the answer.
    """
    return ["bash", "-c", _SCRIPT, "ask", str(port), word, str(attempts), awaited]


class Askable(Protocol):
    """A server that can be asked: a `ZooKeeperContainer`."""

    def await_serving(self) -> ServerStatus:
        """What it says of itself; it may wait for about a second until it serves."""

    def exit_code(self) -> int | None:
        """How its process ended; None while it runs."""

    def last_lines(self) -> str:
        """The end of its log."""


class ServingWaitStrategy(WaitStrategy):  # type: ignore[misc]  # mypy is told not to follow testcontainers
    """Waits until a `ZooKeeperContainer` serves: it leads, follows, observes or stands alone."""

    def wait_until_ready(self, container: WaitStrategyTarget) -> None:
        """Wait for as long as `with_startup_timeout` says.

        Raises:
            EnsembleError: it ended by itself, or does not serve in time.
        """
        wait_until({"the server": cast("Askable", container)}, all_serve, within=self._startup_timeout)


def all_serve(status: Mapping[str, ServerStatus]) -> bool:
    """Every server serves clients."""
    return all(said.serving for said in status.values())


def wait_until(
    servers: Mapping[str, Askable],
    enough: Callable[[Mapping[str, ServerStatus]], bool],
    *,
    within: float,
    may_have_ended: bool = False,
) -> dict[str, ServerStatus]:
    """Wait until what the servers say of themselves is enough; returns what they said.

    Args:
        servers: by the names that an error shall call them.
        enough: told everything, by the same names.
        within: seconds.
        may_have_ended: whether a server that has ended is none of the caller's concern.

    Raises:
        EnsembleError: not within that time, or a server ended.
    """
    deadline = time.monotonic() + within
    with ThreadPoolExecutor(len(servers), "zkchaos-ask") as pool:
        while True:
            found = pool.map(lambda server: server.await_serving(), servers.values())
            status = dict(zip(servers, found, strict=True))
            if enough(status):
                return status
            if not may_have_ended:
                _refuse_ended({name: servers[name] for name, said in status.items() if said == DOWN})
            if time.monotonic() > deadline:
                raise _late(servers, status, within)
            time.sleep(_POLL)


def _refuse_ended(silent: Mapping[str, Askable]) -> None:
    for name, server in silent.items():
        if (code := server.exit_code()) is not None:
            raise EnsembleError(
                f"it ended by itself with code {code}",
                where=name,
                cause=server.last_lines(),
                next_step="look at its settings and flags; not every version of ZooKeeper and Java takes each",
            )


def _late(servers: Mapping[str, Askable], status: Mapping[str, ServerStatus], within: float) -> EnsembleError:
    suspect = next((name for name, said in status.items() if not said.serving), next(iter(status)))
    roles = ", ".join(f"{name} {said.role}" for name, said in status.items())
    return EnsembleError(
        f"not ready within {within:g} s ({roles})",
        where=suspect,
        cause=servers[suspect].last_lines(),
        next_step="give it more time, or look at its log",
    )

"""Finds what runs made on a Docker engine by its labels, and removes it.

Only things with the label `zkchaos.run` are ever looked at. Removal is idempotent, and several may remove the same
things at once: the run itself, its reaper, and `zkchaos clean`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import docker
from docker.errors import DockerException, NotFound

from harness.errors import TestbedError
from harness.testbed.engine import LABEL_OWNER, LABEL_RUN
from harness.testbed.owners import Life, Owner, life_of
from harness.testbed.refusals import refusals, said

#: How long a removal may take before it is given up and told, seconds.
PATIENCE = 10.0
#: A removal that the engine refuses (a network whose container is just going) is tried again after so long.
_PAUSE = 0.05
#: Removals under way at once. The engine gains nothing from more, and its client has ten connections.
_AT_ONCE = 8
#: Engines before 28 count a network's endpoints apart from their list, and lose count when containers come and go at
#: once: seen once in some thousand containers. The count is put right when the engine starts, and by nothing else.
_MISCOUNT = "the engine counts an endpoint on it that it does not list (moby issue 42119)"
_RESTART = "a restart of the engine mends its count"


class Kind(StrEnum):
    """Kinds of things, in the order in which they can be removed."""

    CONTAINER = "container"
    NETWORK = "network"
    VOLUME = "volume"


@dataclass(frozen=True)
class Leftover:
    """A thing on the engine that carries a run's label."""

    kind: Kind
    #: What the engine calls it: an id, or a volume's name.
    id: str
    name: str
    run: str
    #: The label as it was found; see `owners`.
    owner: str
    #: What could be told about its owner when the thing was found.
    life: Life

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of run {self.run}"

    @property
    def removal(self) -> str:
        """The command that removes it by hand."""
        words = {
            Kind.CONTAINER: "docker rm --force --volumes",
            Kind.NETWORK: "docker network rm",
            Kind.VOLUME: "docker volume rm",
        }
        return f"{words[self.kind]} {self.name}"


@dataclass(frozen=True)
class Kept:
    """A thing that was found and not removed."""

    thing: Leftover
    why: str

    def __str__(self) -> str:
        return f"{self.thing}: {self.why}; by hand: {self.thing.removal}"


def find_things(client: docker.DockerClient, run_id: str | None = None) -> list[Leftover]:
    """Everything of one run, or of all: containers (running or not), then networks, then volumes.

    Raises:
        TestbedError: the engine does not answer.
    """
    here = Owner.of_this_process()
    lives: dict[str, Life] = {}

    def thing(kind: Kind, identity: str, name: str, labels: dict[str, str]) -> Leftover:
        owner = labels.get(LABEL_OWNER, "")
        if owner not in lives:
            lives[owner] = life_of(owner, here)
        return Leftover(kind, identity, name, labels[LABEL_RUN], owner, lives[owner])

    chosen = {"label": LABEL_RUN if run_id is None else f"{LABEL_RUN}={run_id}"}
    api = client.api
    with refusals("the list of what runs made"):
        # A container that is being removed has lost its name.
        return [
            *(
                thing(Kind.CONTAINER, c["Id"], (c["Names"] or [c["Id"][:12]])[0].lstrip("/"), c["Labels"])
                for c in api.containers(all=True, filters=chosen)
            ),
            *(thing(Kind.NETWORK, n["Id"], n["Name"], n["Labels"]) for n in api.networks(filters=chosen)),
            *(thing(Kind.VOLUME, v["Name"], v["Name"], v["Labels"]) for v in api.volumes(chosen)["Volumes"] or []),
        ]


def leftovers(client: docker.DockerClient) -> list[Leftover]:
    """Everything whose owner is dead. What nobody can be told to own for certain is not among it.

    Raises:
        TestbedError: the engine does not answer.
    """
    return [thing for thing in find_things(client) if thing.life is Life.DEAD]


def remove_run(client: docker.DockerClient, run_id: str, patience: float = PATIENCE) -> list[Leftover]:
    """Remove everything that a run made, whoever owns it, and return what was removed. Idempotent.

    Raises:
        TestbedError: something is still there after `patience` seconds; the rest is gone.
    """
    removed: list[Leftover] = []
    for thing in _remove(client, lambda: find_things(client, run_id), removed.append, patience):
        raise TestbedError("the engine keeps an empty network", where=str(thing), cause=_MISCOUNT, next_step=_RESTART)
    return removed


def remove_leftovers(
    client: docker.DockerClient, tell: Callable[[Leftover], None], patience: float = PATIENCE
) -> list[Kept]:
    """Remove what dead runs left, and return what was kept.

    That is what has an owner whose death is not certain, and a network of which the engine has lost count.

    Args:
        client: the engine.
        tell: called with each thing that was removed.
        patience: for so many seconds what the engine refuses to remove is tried again.

    Raises:
        TestbedError: something is still there after `patience` seconds; the rest is gone.
    """
    miscounted = _remove(client, lambda: leftovers(client), tell, patience)
    return [
        *(Kept(thing, thing.life) for thing in find_things(client) if thing.life not in {Life.ALIVE, Life.DEAD}),
        *(Kept(thing, f"{_MISCOUNT}; {_RESTART}") for thing in miscounted),
    ]


def is_miscounted(client: docker.DockerClient, thing: Leftover) -> bool:
    """Whether it is a network to which, by the engine's own list, nothing is attached: no reason not to remove it."""
    if thing.kind is not Kind.NETWORK:
        return False
    try:
        return not client.api.inspect_network(thing.id)["Containers"]
    except (DockerException, OSError):
        return False


def _remove(
    client: docker.DockerClient,
    find: Callable[[], list[Leftover]],
    tell: Callable[[Leftover], None],
    patience: float,
) -> list[Leftover]:
    """Remove what `find` finds until it finds nothing more, or only networks of which the engine has lost count."""
    deadline = time.monotonic() + patience
    told: set[str] = set()
    while found := find():
        refused: list[tuple[Leftover, str]] = []
        for kind in Kind:
            batch = [thing for thing in found if thing.kind is kind]
            for thing, refusal in zip(batch, _remove_all(client, batch), strict=True):
                if refusal:
                    refused.append((thing, refusal))
                elif thing.id not in told:
                    told.add(thing.id)
                    tell(thing)
        if time.monotonic() > deadline:
            if refused and all(is_miscounted(client, thing) for thing, _ in refused):
                return [thing for thing, _ in refused]
            thing, refusal = refused[0] if refused else (found[0], "others make more of its kind")
            raise TestbedError(
                f"the engine still has what a run made, after {patience:g} s of removing it",
                where=str(thing),
                cause=refusal,
                next_step="`zkchaos clean` tries again once its owner has ended",
            )
        if refused:
            time.sleep(_PAUSE)
    return []


def _remove_all(client: docker.DockerClient, things: list[Leftover]) -> list[str]:
    """Remove things of one kind side by side; for each why it could not be done, or nothing."""
    if not things:
        return []
    with ThreadPoolExecutor(_AT_ONCE, "zkchaos-remove") as workers:
        return list(workers.map(lambda thing: _remove_one(client, thing), things))


def _remove_one(client: docker.DockerClient, thing: Leftover) -> str:
    try:
        match thing.kind:
            case Kind.CONTAINER:
                client.api.remove_container(thing.id, v=True, force=True)
            case Kind.NETWORK:
                client.api.remove_network(thing.id)
            case Kind.VOLUME:
                client.api.remove_volume(thing.id, force=True)
    except NotFound:
        pass  # somebody else was faster
    except (DockerException, OSError) as problem:  # also: a removal that is under way; it is looked at again
        return said(problem)
    return ""

"""What a Docker engine offers a run. Everything is asked or tried, and nothing is made, started or removed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import docker

from harness.compose_project import compose_command
from harness.doctor_finding import ENGINES, NOBODY, CapabilityFinding
from harness.errors import ZkChaosError
from harness.images.helper import helper_image_tag
from harness.images.loading import id_of
from harness.images.server import OFFICIAL, OWN
from harness.images.toxiproxy import toxiproxy_image_tag
from harness.testbed.helper import way
from harness.testbed.leftovers import leftovers
from harness.testbed.refusals import refusals
from harness.zookeeper.lock import DEFAULT_VERSION

ENGINE = "Docker engine"
#: How long the command line of Compose may take to say its version, seconds.
_COMPOSE_S = 20
#: So many things that dead runs left are named.
_NAMED = 3


def examine_engine(client: docker.DockerClient) -> list[CapabilityFinding]:
    """Try what runs on an engine that answers need. None of it is needed for a run on namespaces."""
    examinations: dict[str, Callable[[docker.DockerClient], tuple[bool, str, str]]] = {
        ENGINE: _version,
        "way to its networks": _way,
        "Compose v2": _compose,
        "image of the server": _server_image,
        "image of the helper": _helper_image,
        "image of toxiproxy": _toxiproxy_image,
        "left by dead runs": _leftovers,
    }
    return [_finding(what, examine, client) for what, examine in examinations.items()]


def _finding(
    what: str, examine: Callable[[docker.DockerClient], tuple[bool, str, str]], client: docker.DockerClient
) -> CapabilityFinding:
    """One examination says whether all is well, what was found, and what to do about it."""
    try:
        ok, found, next_step = examine(client)
    except ZkChaosError as problem:
        ok, found, next_step = False, problem.what, problem.next_step
    return CapabilityFinding(what, ok, ENGINES if what == ENGINE else NOBODY, found, next_step)


def _version(client: docker.DockerClient) -> tuple[bool, str, str]:
    with refusals(ENGINE):
        version = client.version()
    where = os.environ.get("DOCKER_HOST") or "its usual socket"
    return True, f"{version['Version']}, API {version['ApiVersion']}, at {where}", ""


def _way(client: docker.DockerClient) -> tuple[bool, str, str]:
    which, why = way(client)
    words = {"agent": "a local agent", "helper": "a helper container"}
    return True, f"{words[which]}: {why}", ""


def _compose(_client: docker.DockerClient) -> tuple[bool, str, str]:
    words = [*compose_command(), "version", "--short"]
    done = subprocess.run(
        words, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=_COMPOSE_S, check=False
    )
    return True, f"{done.stdout.strip()}, for `zkchaos up`", ""


def _server_image(client: docker.DockerClient) -> tuple[bool, str, str]:
    step = "`make image` makes it here; else a run asks the registry"
    return _image(client, (f"{OFFICIAL}:{DEFAULT_VERSION}", f"{OWN}:{DEFAULT_VERSION}"), step)


def _helper_image(client: docker.DockerClient) -> tuple[bool, str, str]:
    return _image(client, (helper_image_tag(),), "the first run that needs it makes it, or `zkchaos image --helper`")


def _toxiproxy_image(client: docker.DockerClient) -> tuple[bool, str, str]:
    return _image(client, (toxiproxy_image_tag(),), "no run needs it; `zkchaos image --toxiproxy` makes it")


def _image(client: docker.DockerClient, names: tuple[str, ...], step: str) -> tuple[bool, str, str]:
    there = next((name for name in names if id_of(client, name) is not None), None)
    return (True, there, "") if there else (False, f"the engine has no {' and no '.join(names)}", step)


def _leftovers(client: docker.DockerClient) -> tuple[bool, str, str]:
    left = leftovers(client)
    if not left:
        return True, "nothing", ""
    named = ", ".join(map(str, left[:_NAMED]))
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return False, f"{named}{more}", "`zkchaos clean` removes what dead runs left, and nothing else"

"""What a Docker engine refuses, in the house's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from docker.errors import APIError, DockerException

from harness.errors import TestbedError

#: Longest text of the engine's that is passed on.
_LONGEST = 500


def said(problem: DockerException | OSError) -> str:
    """What the engine itself said, without the address of the request that it refused."""
    explanation = problem.explanation if isinstance(problem, APIError) else None
    return str(explanation or problem).strip()[:_LONGEST]


@contextlib.contextmanager
def refusals(where: str, next_step: str = "") -> Iterator[None]:
    """Raise what the engine refuses, or does not answer, as a `TestbedError`.

    `OSError` is among it because the HTTP library below the SDK raises its own kinds of it.
    """
    try:
        yield
    except (DockerException, OSError) as problem:
        raise TestbedError(f"the Docker engine refused: {said(problem)}", where=where, next_step=next_step) from problem

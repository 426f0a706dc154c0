"""Settings for all tests."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# A busy machine of two cores makes single examples slow now and then; pytest-timeout bounds the whole test. In CI the
# examples are the same every time, so that a change is never blamed for what chance found.
settings.register_profile(
    "zkchaos",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    max_examples=25,  # all of tests/unit stays below a minute; `HYPOTHESIS_PROFILE=thorough` looks longer
)
settings.register_profile("thorough", settings.get_profile("zkchaos"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "zkchaos"))

#: Tests that work on what a Docker engine has, which there is one of.
ON_THE_ENGINE = re.compile(
    r"test_(attach\w*|compose|docker_leaks|doctor_docker|helper|images|offers_refused|(testbed_)?parity|testcontainers)\.py"
    r"|::.*(docker|container|engine|somebody_elses)"
)
#: Fixtures of such tests.
_ENGINE = {"engine", "engine_images", "foreign_project", "server_image", "subnets"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing works on the engine that is not known to do so."""
    unknown = [
        item.nodeid
        for item in items
        if not _ENGINE.isdisjoint(getattr(item, "fixturenames", ())) and not ON_THE_ENGINE.search(item.nodeid)
    ]
    if unknown:
        raise pytest.UsageError(f"ON_THE_ENGINE in {__file__} must know these: {', '.join(unknown)}")


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Tests of the engine run one after the other, in one worker; every other one in whichever is free."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only where it is used

    class OneEngine(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return "engine" if ON_THE_ENGINE.search(nodeid) else nodeid

    return OneEngine(config, log)

"""Settings for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

INTEGRATION = Path(__file__).parent / "integration"

# A busy machine of two cores makes single examples slow now and then; pytest-timeout bounds the whole test. In CI the
# examples are the same every time, so that a change is never blamed for what chance found.
settings.register_profile(
    "zkchaos",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    max_examples=40,  # all of tests/unit stays below a minute; `HYPOTHESIS_PROFILE=thorough` looks longer
)
settings.register_profile("thorough", settings.get_profile("zkchaos"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "zkchaos"))


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup`: integration tests one after another, beside them pure ones and scenarios.

    Integration tests look at what is left of killed processes, fill disks, and count what an engine has.
    """
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("integration"))

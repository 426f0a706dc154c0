"""Settings for all tests."""

import os

from hypothesis import settings

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

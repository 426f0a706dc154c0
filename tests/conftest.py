"""Settings for all tests."""

import os

from hypothesis import settings

# A busy machine of two cores makes single examples slow now and then; pytest-timeout bounds the whole test. In CI the
# examples are the same every time, so that a change is never blamed for what chance found.
settings.register_profile("zkchaos", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("zkchaos")

"""The scenarios ask of the machine what the integration tests ask of it."""

from __future__ import annotations

import os

import pytest

from harness.errors import EnvironmentLacking, FaketimeMissing, FuseMissing, KernelLacking, ToxiproxyMissing
from harness.stage.make import TESTBEDS
from tests.integration.conftest import engine, engine_images, java, namespaces_allowed, subnets, usermode

__all__ = [
    "LACKED",
    "engine",
    "engine_images",
    "everywhere",
    "java",
    "namespaces_allowed",
    "place",
    "subnets",
    "usermode",
]

#: What a machine may lack, by the name that ZKCHAOS_REQUIRE knows.
LACKED: dict[type[EnvironmentLacking], str] = {
    FaketimeMissing: "faketime",
    FuseMissing: "fuse",
    KernelLacking: "netem",
    ToxiproxyMissing: "toxiproxy",
}


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A testbed, by its parameter; skipped where it is not possible. An engine's addresses are the test's alone."""
    kind = str(request.param)
    needs = ("namespaces_allowed", "java") if kind == "namespaces" else ("engine_images", "subnets")
    for name in needs:
        request.getfixturevalue(name)
    return kind


def everywhere(chosen: list[tuple[str, str]], names: list[str]) -> list[tuple[str, str]]:
    """Scenarios and testbeds: those chosen, or each on each where ZKCHAOS_PARITY is `all`, which takes half an hour."""
    every = [(name, testbed) for testbed in TESTBEDS for name in names]
    return every if os.environ.get("ZKCHAOS_PARITY") == "all" else chosen

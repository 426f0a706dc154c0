"""A run ends at its deadline, but not before its plan has been carried out, and at once if anything fails."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from harness.overtime import wait_for_plan


def waited(
    plan: Future[None], *, deadline: float = 0.3, overtime: float = 5.0, fails_after: float | None = None
) -> float:
    """Seconds."""
    begun = time.monotonic()
    wait_for_plan(
        plan,
        begun + deadline,
        overtime,
        lambda: fails_after is not None and time.monotonic() > begun + fails_after,
    )
    return time.monotonic() - begun


def done() -> Future[None]:
    plan: Future[None] = Future()
    plan.set_result(None)
    return plan


def test_a_plan_that_is_done_leaves_the_rest_of_the_time_to_the_load() -> None:
    assert 0.3 <= waited(done()) < 3


def test_a_plan_that_is_late_is_waited_for() -> None:
    plan: Future[None] = Future()
    timer = threading.Timer(0.6, plan.set_result, [None])
    timer.start()
    assert 0.5 < waited(plan) < 4  # the timer began a little earlier
    timer.join()


def test_but_not_for_ever() -> None:
    assert 0.5 <= waited(Future(), overtime=0.2) < 3


@pytest.mark.parametrize("deadline", [0.3, 60.0])
def test_a_plan_that_failed_ends_it(deadline: float) -> None:
    plan: Future[None] = Future()
    plan.set_exception(ValueError())
    assert waited(plan, deadline=deadline) < 3


@pytest.mark.parametrize("plan", [done(), Future()])
def test_whatever_else_failed_ends_it(plan: Future[None]) -> None:
    assert 0.2 <= waited(plan, deadline=60.0, fails_after=0.2) < 3

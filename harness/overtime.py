"""How long a run goes on: for as long as its plan says, and longer where the plan is late."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait

#: How long a run goes on for faults that came late, seconds.
OVERTIME_S = 30.0
#: How often it is looked at whether something has failed, seconds.
_LOOK_S = 0.1


def wait_for_plan(plan: Future[None], deadline: float, overtime: float, failed: Callable[[], bool]) -> None:
    """Wait until the deadline, but no longer once the plan, or anything else, has failed.

    Where the plan is not done by then it goes on: faults that a slow machine lets come late still come, and are seen to
    be gone.

    Args:
        plan: a nemesis that carries it out.
        deadline: monotonic seconds.
        overtime: how long the plan may go on, seconds.
        failed: whether something else has.
    """
    latest = deadline + overtime
    while not failed():
        done, now = plan.done(), time.monotonic()
        if now >= (deadline if done else latest) or (done and plan.exception() is not None):
            return
        if done:
            time.sleep(min(deadline - now, _LOOK_S))  # the load goes on, and `failed` may come true
        else:
            wait([plan], timeout=min(latest - now, _LOOK_S))

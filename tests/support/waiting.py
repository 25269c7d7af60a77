"""Waiting for something that happens elsewhere, within a bound."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any


async def eventually(condition: Callable[[], object], within_s: float = 10) -> None:
    """Return as soon as `condition()` holds. Raises AssertionError when it never does."""
    deadline = monotonic() + within_s
    while not condition():
        if monotonic() > deadline:
            raise AssertionError(f"did not happen within {within_s} s")
        await asyncio.sleep(0.005)


def timers() -> list[Any]:
    """Return the timers of the running event loop; a shared loop has those of other tests, too."""
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]

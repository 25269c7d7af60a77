"""Waiting for something that happens elsewhere, within a bound."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], within_s: float = 10) -> None:
    """Return as soon as `condition()` holds. Raises AssertionError when it never does."""
    for _ in range(int(within_s / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"did not happen within {within_s} s")

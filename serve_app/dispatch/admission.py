"""Which calls the engine gets, and when: its slots, and a bounded queue in order of arrival."""

import asyncio
from collections.abc import Callable

from serve_app.errors import Overloaded


class Admission:
    """The engine's slots, and a bounded queue before them, in order of arrival."""

    def __init__(self, slots: int, queue: int, timeout_s: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._free = slots + queue
        self._timeout_s = timeout_s

    async def enter(self) -> Callable[[], None]:
        """Wait for a slot; return what gives it back, to be called once. Raises Overloaded."""
        if self._free <= 0:
            raise Overloaded("server busy, please try again: slots and queue are full", 1)
        self._free -= 1
        try:
            if self._slots.locked():
                async with asyncio.timeout(self._timeout_s):  # wait_for may swallow a hang-up
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError as exc:
            self._free += 1
            raise Overloaded(f"no slot became free within {self._timeout_s:g} s", 5) from exc
        except BaseException:
            self._free += 1
            raise
        return self._leave

    def _leave(self) -> None:
        self._free += 1
        self._slots.release()

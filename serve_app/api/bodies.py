"""Reads request bodies, few of one key at once, so that slow uploads delay no other key."""

import asyncio
from collections import deque

from serve_app.access.caller import Caller
from serve_app.api.http import Request, read_body
from serve_app.errors import Overloaded


class Bodies:
    """Reads bodies of at most `max_bytes` within `timeout_s`.

    `at_once`: bodies of a key without `max_parallel` that are read at the same time.
    """

    def __init__(self, max_bytes: int, timeout_s: float, at_once: int) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._at_once = at_once
        self._reading: dict[str, int] = {}  # by the name of the key
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def read(self, request: Request, caller: Caller) -> bytes:
        """Wait for the key's turn, then read.

        Raises as `read_body`, and Overloaded when the turn does not come within `timeout_s`.
        """
        if not caller.name:  # callers can't be distinguished
            return await read_body(request, self._max_bytes, self._timeout_s)
        reading = self._reading.get(caller.name, 0)
        if reading < (caller.limits.max_parallel or self._at_once):
            self._reading[caller.name] = reading + 1
        else:
            await self._wait(caller.name)
        try:
            return await read_body(request, self._max_bytes, self._timeout_s)
        finally:
            self._leave(caller.name)

    async def _wait(self, name: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(turn)
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as exc:
            self._withdraw(name, turn)
            if isinstance(exc, TimeoutError):
                raise Overloaded(
                    f"other requests of this key did not arrive within {self._timeout_s:g} s", 1
                ) from exc
            raise

    def _withdraw(self, name: str, turn: asyncio.Future[None]) -> None:
        """Remove a turn for which no request waits any more."""
        waiting = self._waiting.get(name, ())
        if turn in waiting:
            self._waiting[name].remove(turn)
            if not self._waiting[name]:
                del self._waiting[name]
        elif not turn.cancelled():
            self._leave(name)

    def _leave(self, name: str) -> None:
        """Give the turn to the request of this key that has waited longest."""
        waiting = self._waiting.get(name)
        while waiting:
            turn = waiting.popleft()
            if not waiting:
                del self._waiting[name]
            if not turn.done():
                turn.set_result(None)
                return
        self._reading[name] -= 1
        if not self._reading[name]:
            del self._reading[name]

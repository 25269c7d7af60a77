"""Joins the pieces of a stream: each write between a replica and a gateway wakes both."""

import asyncio
from collections.abc import Callable
from time import monotonic


class Coalescer:
    """Sends the first piece at once, later ones joined and at most every `window_s`."""

    def __init__(self, send: Callable[[bytes], None], window_s: float) -> None:
        self._send = send
        self._window_s = window_s
        self._next = 0.0  # the time from which a piece may be sent
        self._pieces: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, piece: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None and loop.time() >= self._next:
            self._next = loop.time() + self._window_s
            self._send(piece)
            return
        self._pieces.append(piece)
        if self._timer is None:
            self._timer = loop.call_at(self._next, self._flush)

    def rest(self) -> bytes:
        """Return the pieces that are not sent yet, and forget them."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        rest = b"".join(self._pieces)
        self._pieces.clear()
        return rest

    def _flush(self) -> None:
        self._next = monotonic() + self._window_s
        self._send(self.rest())

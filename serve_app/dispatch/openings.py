"""The connections that are being opened for waiting calls.

An opening belongs to no call: Serve's router queues it, and the autoscaler counts it, but the fair
queue decides which call gets the connection.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from serve_app.dispatch.connection import ReplicaConnection
from serve_app.dispatch.waiting_line import WaitingLine
from serve_app.errors import Loading

# After a connection that batch requests may not use, none is opened for them for this long.
PAUSE_S = 0.25


class PoolStartWatch(Protocol):
    """Watches the start of a pool's first replica, while calls wait for it."""

    def expect(self) -> None:
        """Note that a call waits. Called often: it must cost a microsecond."""

    @property
    def loading(self) -> Loading | None:
        """The start in progress, if any."""

    def stop(self) -> None: ...


class Openings:
    """Opens connections for the calls in `line`, at most one for each.

    `new_connection` opens one. `offer` gets it, or `refuse` the error.
    """

    def __init__(
        self,
        line: WaitingLine[ReplicaConnection],
        new_connection: Callable[[], Awaitable[ReplicaConnection]],
        offer: Callable[[ReplicaConnection], None],
        refuse: Callable[[Exception], None],
    ) -> None:
        self._line = line
        self._new_connection = new_connection
        self._offer = offer
        self._refuse = refuse
        self._tasks: list[asyncio.Task[None]] = []  # the oldest first
        self._pause: asyncio.TimerHandle | None = None

    @property
    def is_paused(self) -> bool:
        """Whether only batch requests wait, for which the replicas have no room at the moment."""
        return self._pause is not None

    def begin(self) -> None:
        """Open one more connection."""
        self._tasks.append(asyncio.create_task(self._open()))

    def cancel_surplus(self, *, oldest: bool = False) -> None:
        """Cancel openings without a waiting call: no pool must start a replica for them."""
        while len(self._tasks) > len(self._line):
            self._tasks.pop(0 if oldest else -1).cancel()

    def pause(self) -> None:
        """Cancel all openings. After a pause open one, to find out whether there is room again."""
        while self._tasks:
            self._tasks.pop().cancel()
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        self._begin_missing()

    def _begin_missing(self) -> None:
        if len(self._tasks) < len(self._line):
            self.begin()

    async def _open(self) -> None:
        try:
            connection = await self._new_connection()
        except Exception as exc:  # of any kind, because a call waits for it
            self._end()
            self._refuse(exc)
        else:
            self._end()
            self._offer(connection)
            if not self._pause:
                self._begin_missing()

    def _end(self) -> None:
        task = asyncio.current_task()
        if task in self._tasks:
            self._tasks.remove(task)

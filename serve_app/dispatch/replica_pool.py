"""The gateway's connections to the replicas of one pool: acquired for a call, then released.

Opening one costs a request to Serve, 2 ms and more; a call over an open one costs a write and a
read. So a released connection serves the call that waits longest, or stays open for a moment.
"""

import asyncio
from collections import deque
from functools import partial
from random import uniform

from serve_app.dispatch.connection import PoolHandle, ReplicaConnection, open_connection
from serve_app.dispatch.listener import Listener
from serve_app.engines.base import Answer, Call
from serve_app.errors import PoolDown

# How long an idle connection stays open, counted by the autoscaler as a request that runs.
LINGER_S = 0.02
# The last idle one stays longer: a caller that pauses between its requests, to read or to run a
# tool, would open one for each.
LAST_LINGER_S = 0.25
# After this, and some after half of it, Serve chooses anew: a replica that is about to stop gets
# no further calls. They differ, so that the connections of one burst do not expire at once.
MAX_AGE_S = 5.0

Waiter = asyncio.Future[ReplicaConnection]


def _no_replica(wait_s: float) -> PoolDown:
    return PoolDown(f"no replica became ready within {wait_s:g} s")


class ReplicaPool:
    """Sends calls to the replicas of one pool.

    `by_session`: Serve chooses the replica of each call that belongs to a session.
    """

    def __init__(self, listener: Listener, handle: PoolHandle, by_session: bool = False) -> None:
        self._listener = listener
        self._handle = handle
        self._by_session = by_session
        self._idle: dict[ReplicaConnection, asyncio.TimerHandle] = {}  # with its end
        self._waiting: deque[Waiter] = deque()
        self._opening: list[asyncio.Task[None]] = []  # as many as calls that wait

    async def call(self, call: Call, wait_s: float, *, fresh: bool = False) -> Answer:
        """Return a replica's answer. `fresh`: over a connection that no earlier call has used.

        Raises PoolDown when no replica is ready within `wait_s`, and what the replica raises.
        """
        session = call.affinity if self._by_session and not fresh else None
        connection = await self.acquire(wait_s, session, fresh=fresh)
        try:
            answer = await connection.send(call)
        except BaseException:
            self.release(connection)
            raise
        answer.on_close(partial(self.release, connection))
        return answer

    async def acquire(
        self, wait_s: float, session: str | None = None, *, fresh: bool = False
    ) -> ReplicaConnection:
        """Return a connection for one call; for one call alone with `session` or `fresh`.

        Raises PoolDown when no replica is ready within `wait_s`.
        """
        if session or fresh:
            return await self._open_alone(wait_s, session)
        return self._take_idle() or await self._wait(wait_s)

    def release(self, connection: ReplicaConnection) -> None:
        """Keep the connection for another call if it can serve one, else close it."""
        if connection.is_reusable:
            self._offer(connection)
        else:
            connection.close()

    async def _open_alone(self, wait_s: float, session: str | None) -> ReplicaConnection:
        try:
            async with asyncio.timeout(wait_s):
                return await open_connection(self._listener, self._handle, 0, session)
        except TimeoutError as exc:
            raise _no_replica(wait_s) from exc

    def _take_idle(self) -> ReplicaConnection | None:
        while self._idle:
            connection, end = self._idle.popitem()
            end.cancel()
            if connection.is_open:
                return connection
        return None

    async def _wait(self, wait_s: float) -> ReplicaConnection:
        """Wait for the first connection that is released or opened."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._opening.append(asyncio.create_task(self._open()))
        try:
            async with asyncio.timeout(wait_s):
                return await waiter
        except TimeoutError as exc:
            self._withdraw(waiter, opening=0)  # the oldest one is as hopeless as this wait
            raise _no_replica(wait_s) from exc
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    async def _open(self) -> None:
        try:
            lifetime_s = MAX_AGE_S * uniform(0.5, 1)
            connection = await open_connection(self._listener, self._handle, lifetime_s)
        except Exception as exc:  # of whatever kind: a call waits for it
            self._opened()
            self._refuse(exc)
        else:
            self._opened()
            self._offer(connection)

    def _opened(self) -> None:
        task = asyncio.current_task()
        if task in self._opening:
            self._opening.remove(task)

    def _offer(self, connection: ReplicaConnection) -> None:
        """Hand the connection to the call that waits longest, else keep it for a moment."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                break
        else:
            self._keep(connection, LINGER_S)
        self._cancel_openings()

    def _refuse(self, error: Exception) -> None:
        """Fail the newest waiter, as Serve rejects the newest request when its queue is full."""
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.done():
                waiter.set_exception(error)
                break
        self._cancel_openings()

    def _withdraw(self, waiter: Waiter, opening: int = -1) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._cancel_openings(opening)
        elif waiter.done() and not waiter.cancelled() and not waiter.exception():
            self.release(waiter.result())

    def _cancel_openings(self, which: int = -1) -> None:
        """Cancel those that no call waits for: no pool must wake or grow for them."""
        while len(self._opening) > len(self._waiting):
            self._opening.pop(which).cancel()

    def _keep(self, connection: ReplicaConnection, seconds: float, *, longer: bool = False) -> None:
        end = asyncio.get_running_loop().call_later(seconds, self._expire, connection, longer)
        self._idle[connection] = end

    def _expire(self, connection: ReplicaConnection, kept_longer: bool) -> None:
        if len(self._idle) == 1 and not kept_longer:
            self._keep(connection, LAST_LINGER_S - LINGER_S, longer=True)
        else:
            del self._idle[connection]
            connection.close()

"""The gateway's connections to the replicas of one pool, opened through Serve.

Opening one costs a request of Serve's, 2 ms and more; a call over an open one costs a write and a
read. So a connection that is free again serves the call that waits longest, or stays open for a
moment.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from contextvars import Context
from random import uniform
from typing import Any, Protocol

from serve_app.dispatch.frames import (
    CALL,
    DATA,
    END,
    FAILURE,
    Channel,
    Head,
    decode_failure,
    encode_call,
)
from serve_app.dispatch.listener import Listener
from serve_app.engines.base import Answer, Call
from serve_app.errors import EngineError, EngineLost, PoolDown, ServiceError

# How long a free connection stays open, counted by the autoscaler as a request that runs.
LINGER_S = 0.02
# The last free one stays longer: a caller that pauses between its requests, to read or to run a
# tool, would open one for each.
LAST_LINGER_S = 0.25
# After this, and some after half of it, Serve chooses anew: a replica that is to go gets no further
# calls.
MAX_AGE_S = 5.0
_NOBODY = "no replica became ready in time"


class ReplicaConnection:
    """A replica's attention, for one call at a time."""

    def __init__(self, channel: Channel, request: asyncio.Task[Exception | None]) -> None:
        self.channel = channel
        self.old_at = _now() + MAX_AGE_S * uniform(0.5, 1)  # those of one burst not all at once
        # When Serve says that it is over, it is, though the connection may not know of it.
        self._request = request
        request.add_done_callback(lambda _: channel.close())
        self.free = True  # no answer is under way
        self.shared = True  # any call may follow
        self.ending: asyncio.TimerHandle | None = None

    async def ask(self, call: Call) -> Head:
        """Raises what the replica failed with, ChannelClosed when it is lost."""
        self.free = False
        self.channel.send((CALL, encode_call(call)))
        await self.channel.drain()
        kind, content = await self.channel.receive()
        if kind == FAILURE:
            raise self._failed(content)
        return Head.decode(content)

    async def body(self) -> AsyncIterator[bytes]:
        """All that has come, joined. Raises what the replica failed with, ChannelClosed."""
        while not self.free:
            kind, content = await self.channel.receive()
            if kind == DATA:
                while more := self.channel.take(DATA):
                    content += more
                self.free = self.channel.take(END) is not None  # it often comes along
                yield content
            elif kind == END:
                self.free = True
            elif kind == FAILURE:
                raise self._failed(content)

    def _failed(self, content: bytes) -> ServiceError:
        self.free = True
        error = decode_failure(content)
        if isinstance(error, EngineError):
            # It fails fast and would be free first, again and again: let Serve choose another.
            self.shared = False
        return error

    def is_last(self) -> bool:
        return self.free


class PoolHandle(Protocol):
    """Asks one pool for replicas."""

    def open(self, host: str, port: int, token: bytes, session: str | None) -> Any:
        """Let a replica connect to (host, port) with `token`; `session`: the one of this session.

        Returns an awaitable with a `cancel`, done when the connection is over.
        """

    def service_error(self, exc: Exception) -> ServiceError:
        """Translate what `open`, or the awaitable, raised."""


class ReplicaPool:
    """The connections to one pool. `by_session`: each session's calls go to one replica."""

    def __init__(self, listener: Listener, handle: PoolHandle, by_session: bool = False) -> None:
        self._listener = listener
        self._handle = handle
        self._by_session = by_session
        self._idle: list[ReplicaConnection] = []
        self._waiting: deque[asyncio.Future[ReplicaConnection]] = deque()
        self._opening: list[asyncio.Task[None]] = []

    async def call(self, call: Call, wait_s: float, *, fresh: bool = False) -> Answer:
        """Return some replica's answer. `fresh`: over a connection that no earlier call has used.

        Raises PoolDown when no replica is there within `wait_s`, and what the replica raises.
        """
        session = call.affinity if self._by_session and not fresh else None
        alone = fresh or session
        connection = await (self._alone(session, wait_s) if alone else self._take(wait_s))
        try:
            head = await connection.ask(call)
        except BaseException:
            self._give_back(connection)
            raise
        answer = Answer(
            head.status,
            head.headers,
            connection.body(),
            lambda: self._give_back(connection),
            connection.is_last,
        )
        if head.seconds_left is not None:
            answer.deadline = _now() + head.seconds_left
        return answer

    async def _take(self, wait_s: float) -> ReplicaConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.ending:
                connection.ending.cancel()
            if not connection.channel.closed:
                return connection
        return await self._wait(wait_s)

    async def _alone(self, session: str | None, wait_s: float) -> ReplicaConnection:
        try:
            async with asyncio.timeout(wait_s):
                connection = await self._new(session)
        except TimeoutError as exc:
            raise PoolDown(_NOBODY) from exc
        connection.shared = False
        return connection

    async def _wait(self, wait_s: float) -> ReplicaConnection:
        waiter: asyncio.Future[ReplicaConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._begin_opening()
        try:
            async with asyncio.timeout(wait_s):
                return await waiter
        except TimeoutError as exc:
            self._withdraw(waiter, oldest=True)  # an opening as hopeless as this wait
            raise PoolDown(_NOBODY) from exc
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def _withdraw(self, waiter: asyncio.Future[ReplicaConnection], oldest: bool = False) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._want_no_more_than_wait(oldest)
        elif waiter.done() and not waiter.cancelled() and not waiter.exception():
            self._give_back(waiter.result())

    def _want_no_more_than_wait(self, oldest: bool = False) -> None:
        # A pool must not be woken, nor grow, for nobody.
        while len(self._opening) > len(self._waiting):
            self._opening.pop(0 if oldest else -1).cancel()

    def _begin_opening(self) -> None:
        task = asyncio.create_task(self._open_one())
        self._opening.append(task)

    async def _open_one(self) -> None:
        try:
            connection = await self._new()
        except Exception as exc:  # of whatever kind: somebody waits for it
            self._opened()
            return self._refuse(exc)
        self._opened()
        self._serve_next(connection)
        self._want_no_more_than_wait()
        return None

    async def _new(self, session: str | None = None) -> ReplicaConnection:
        """Raises what Serve refuses with, as the handle translates it."""
        listener = self._listener
        token, arrived = listener.expect()
        try:
            # In a context of its own: when a caller's request is cancelled, Serve cancels the
            # requests made in it, and the connection may serve another call by then; and Serve's
            # router knows a request by its id, which two tries of one caller would share.
            request = Context().run(self._handle.open, listener.host, listener.port, token, session)
        except Exception as exc:
            listener.forget(token)
            raise self._handle.service_error(exc) from exc
        ended = asyncio.ensure_future(_end(request))
        either: set[asyncio.Future[Any]] = {arrived, ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            request.cancel()
            listener.forget(token)
            if arrived.done():
                arrived.result().close()
            raise
        if arrived.done():
            return ReplicaConnection(arrived.result(), ended)
        listener.forget(token)
        raise self._handle.service_error(ended.result() or EngineLost("the replica was lost"))

    def _opened(self) -> None:
        task = asyncio.current_task()
        if task in self._opening:
            self._opening.remove(task)

    def _refuse(self, error: Exception) -> None:
        """Who came last: Serve refuses the request that finds its queue full."""
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.done():
                waiter.set_exception(error)
                break
        self._want_no_more_than_wait()

    def _serve_next(self, connection: ReplicaConnection) -> None:
        """To who waits longest, else idle for a moment."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter.set_result(connection)
        connection.ending = asyncio.get_running_loop().call_later(
            LINGER_S, self._expire, connection
        )
        self._idle.append(connection)
        return None

    def _give_back(self, connection: ReplicaConnection) -> None:
        if connection.channel.closed:
            return None
        old = _now() >= connection.old_at
        if old or not connection.shared or not connection.free:
            return connection.channel.close()  # in the middle of an answer: the replica stops it
        self._serve_next(connection)
        self._want_no_more_than_wait()
        return None

    def _expire(self, connection: ReplicaConnection, last: bool = False) -> None:
        if self._idle == [connection] and not last:
            loop = asyncio.get_running_loop()
            connection.ending = loop.call_later(
                LAST_LINGER_S - LINGER_S, self._expire, connection, True
            )
            return
        if connection in self._idle:
            self._idle.remove(connection)
        connection.channel.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _end(request: Awaitable[Any]) -> Exception | None:
    """How a request of Serve's ended."""
    try:
        with suppress(asyncio.CancelledError):
            await request
    except Exception as exc:
        return exc
    return None

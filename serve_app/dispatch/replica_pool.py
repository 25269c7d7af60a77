"""The gateway's connections to the replicas of one pool: acquired for a call, then released.

To open one costs a request to Serve, 2 ms and more; a call over an open one costs a write and a
read. So a released connection serves the next call, or stays open for a moment.

A call is bound to a replica only when it is sent. Openings belong to no call: Serve's router queues
them, and the autoscaler counts them, but the fair queue decides which call gets a connection.
"""

import asyncio
from random import uniform
from time import monotonic
from typing import Protocol

from serve_app.dispatch.connection import PoolHandle, ReplicaConnection, open_connection
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.pool_placement import PlacedCall, PoolPlacement
from serve_app.dispatch.waiting_line import Place, WaitingLine
from serve_app.engines.base import Answer, Call, Priority
from serve_app.engines.span import Step
from serve_app.errors import (
    CallerLeft,
    DeadlineExceeded,
    EngineDown,
    Loading,
    Overloaded,
    PoolDown,
)

# Idle connections stay open this long; the autoscaler counts them as running requests.
LINGER_S = 0.02
# The last idle one stays longer, for callers that pause between their requests.
LAST_LINGER_S = 0.25
# Connections are closed at this age or, at random, from half of it on, so that those of one burst
# do not expire together. Serve then chooses anew: a replica that is about to stop gets no more
# calls.
MAX_AGE_S = 5.0

# After a connection that batch requests may not use, none is opened for them for this long.
PAUSE_S = 0.25

# Errors after which the replica's engine has not worked on the call.
_UNSERVED = (Overloaded, EngineDown, DeadlineExceeded)


class PoolStartWatch(Protocol):
    """Watches the start of a pool's first replica, while calls wait for it."""

    def expect(self) -> None:
        """Note that a call waits. Called often: it must cost a microsecond."""

    @property
    def loading(self) -> Loading | None:
        """The start in progress, if any."""

    def stop(self) -> None: ...


class ReplicaPool:
    """Sends calls to the replicas of one pool; at most `max_waiting` calls wait for one.

    `by_session`: Serve chooses a replica for each session. `placement`: chooses the replica of
    every call, unless calls wait. `watch`: of a pool that may have no replica.
    """

    def __init__(
        self,
        listener: Listener,
        handle: PoolHandle,
        by_session: bool = False,
        fairness: Fairness | None = None,
        max_waiting: float = float("inf"),
        placement: PoolPlacement | None = None,
        watch: PoolStartWatch | None = None,
    ) -> None:
        self._listener = listener
        self._handle = handle
        self._by_session = by_session
        self._placement = placement
        self._watch = watch
        self._idle: dict[ReplicaConnection, asyncio.TimerHandle] = {}  # with its expiry
        self.line: WaitingLine[ReplicaConnection] = WaitingLine(
            lambda place, connection: self._release(place, connection, 0.0), fairness, max_waiting
        )
        self._opening: list[asyncio.Task[None]] = []  # at most one for each waiting call
        self._pause: asyncio.TimerHandle | None = None  # until openings for batch go on

    def waiting_by_flow(self) -> dict[tuple[Priority, str, str], int]:
        return self.line.waiting_by_flow()

    async def call(self, call: Call, wait_s: float, *, fresh: bool = False) -> Answer:
        """Return a replica's answer. `fresh`: over a connection that no earlier call has used.

        Raises PoolDown when no replica is ready within `wait_s`, Overloaded, DeadlineExceeded, and
        the replica's own errors.
        """
        if self._placement:
            return await self._call_placed(self._placement, call, wait_s, fresh)
        place, arrived = self.line.place(call), monotonic()
        if call.span:
            call.span.wait(call.flow.priority, len(self.line))
        try:
            connection = await self._acquire(place, call, wait_s, fresh)
        except asyncio.CancelledError as exc:
            raise CallerLeft from exc
        queued_s = monotonic() - arrived
        if call.span:
            call.span.end()
        try:
            answer = await connection.send(call)
        except BaseException as exc:
            self._release(place, connection, 0.0 if isinstance(exc, _UNSERVED) else None)
            raise
        answer.queued_s += queued_s
        answer.on_close(lambda: self._release(place, connection, answer.served))
        return answer

    async def _call_placed(
        self, placement: PoolPlacement, call: Call, wait_s: float, fresh: bool
    ) -> Answer:
        """Return the answer of the replica with the lowest predicted time to first token."""
        if call.span:
            call.span.begin(Step.CHOOSE_REPLICA)
        place, arrived, placed = self.line.place(call), monotonic(), placement.call(call)
        try:
            connection = await self._acquire_placed(placement, placed, place, call, wait_s, fresh)
        except BaseException as exc:
            placed.cancel()
            if isinstance(exc, asyncio.CancelledError):
                raise CallerLeft from exc
            raise
        queued_s = monotonic() - arrived
        if call.span:
            call.span.end()
        try:
            answer = await connection.send(placement.bind(placed, connection.replica))
        except BaseException as exc:
            placed.failed(exc)
            self._release(place, connection, 0.0 if isinstance(exc, _UNSERVED) else None)
            raise
        answer.on_close(lambda: self._release(place, connection, answer.served))
        placed.began(answer)
        answer.queued_s += queued_s
        return answer

    async def _acquire_placed(
        self,
        placement: PoolPlacement,
        placed: PlacedCall,
        place: Place[ReplicaConnection],
        call: Call,
        wait_s: float,
        fresh: bool,
    ) -> ReplicaConnection:
        """Return a connection to the best replica that has room for the call.

        Where no known replica has room, the call waits for a connection to any replica.
        """
        if not placement.follower.has_reports:
            await placement.follower.first_reports()
        idle = () if fresh else {connection.replica for connection in self._idle}
        targets = () if self.line else placement.choose(placed, idle)
        if call.span:
            call.span.end(placed.scores())
            call.span.wait(call.flow.priority, len(self.line))
        if not targets:
            return await self._wait(place, call, wait_s)
        connection = None if fresh else self._take_idle(place.is_batch, targets[0])
        if connection is None:
            lifetime_s = MAX_AGE_S * uniform(0.5, 1)
            connection = await self._open_alone(wait_s, None, lifetime_s, targets)
        if place.is_batch and not connection.takes_batch:
            self._offer(connection)
            return await self._wait(place, call, wait_s)
        self.line.start(place)
        return connection

    async def _acquire(
        self, place: Place[ReplicaConnection], call: Call, wait_s: float, fresh: bool
    ) -> ReplicaConnection:
        """Return a connection, for this call alone if it is `fresh` or belongs to a session."""
        session = call.affinity if self._by_session and not fresh else None
        if session or fresh:
            connection = await self._open_alone(wait_s, session)
        else:
            idle = self._take_idle(place.is_batch)
            if idle is None:
                return await self._wait(place, call, wait_s)
            connection = idle
        self.line.start(place)
        return connection

    def _release(
        self, place: Place[ReplicaConnection], connection: ReplicaConnection, served: float | None
    ) -> None:
        """Keep the connection for another call if it can serve one, else close it."""
        self.line.end(place, served)
        if connection.is_reusable:
            self._offer(connection)
        else:
            connection.close()

    async def _open_alone(
        self,
        wait_s: float,
        session: str | None,
        lifetime_s: float = 0.0,
        targets: tuple[str, ...] = (),
    ) -> ReplicaConnection:
        where = self._listener, self._handle
        if self._watch:
            self._watch.expect()
        try:
            async with asyncio.timeout(wait_s):
                return await open_connection(*where, lifetime_s, session, targets)
        except TimeoutError as exc:
            raise self._no_replica(wait_s) from exc

    def _no_replica(self, wait_s: float) -> PoolDown:
        loading = self._watch.loading if self._watch else None
        return PoolDown(f"no replica became ready within {wait_s:g} s", loading)

    def _take_idle(self, is_batch: bool, replica: str = "") -> ReplicaConnection | None:
        """Return an idle connection, if named to that replica."""
        for connection in reversed(list(self._idle)):
            if is_batch and not connection.takes_batch:
                continue
            if replica and connection.replica != replica:
                continue
            self._idle.pop(connection).cancel()
            if connection.is_open:
                return connection
        return None

    async def _wait(
        self, place: Place[ReplicaConnection], call: Call, wait_s: float
    ) -> ReplicaConnection:
        """Wait for a connection that is released or opened."""
        if self._watch:
            self._watch.expect()
        if not (self._pause and place.is_batch):
            self._open_another()
        which = -1
        try:
            return await self.line.wait(place, wait_s, call.deadline)
        except TimeoutError as exc:
            which = 0  # the oldest opening has waited at least as long
            raise self._no_replica(wait_s) from exc
        finally:
            self._cancel_openings(which)

    def _open_another(self) -> None:
        self._opening.append(asyncio.create_task(self._open()))

    async def _open(self) -> None:
        try:
            lifetime_s = MAX_AGE_S * uniform(0.5, 1)
            connection = await open_connection(self._listener, self._handle, lifetime_s)
        except Exception as exc:  # of any kind, because a call waits for it
            self._opened()
            self._refuse(exc)
        else:
            self._opened()
            self._offer(connection)
            if not self._pause and len(self._opening) < len(self.line):
                self._open_another()

    def _opened(self) -> None:
        task = asyncio.current_task()
        if task in self._opening:
            self._opening.remove(task)

    def _offer(self, connection: ReplicaConnection) -> None:
        """Hand the connection to the next call, else keep it for a moment."""
        if self.line.grant(connection, batch=connection.takes_batch):
            self._cancel_openings()
        elif self.line:
            self._leave_to_others(connection)
        else:
            self._keep(connection, LINGER_S)
            self._cancel_openings()

    def _leave_to_others(self, connection: ReplicaConnection) -> None:
        """Give up a reserved place: only batch requests wait, which may not use it.

        After a pause one connection is opened to find out whether batch requests have room again.
        """
        connection.close()
        while self._opening:
            self._opening.pop().cancel()
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        if len(self._opening) < len(self.line):
            self._open_another()

    def _refuse(self, error: Exception) -> None:
        """Fail a waiting call, because Serve's queue is full or has failed."""
        if isinstance(error, Overloaded):
            error = self.line.overloaded(str(error))
        self.line.refuse(error)
        self._cancel_openings()

    def _cancel_openings(self, which: int = -1) -> None:
        """Cancel openings without a waiting call: no pool must start a replica for them."""
        while len(self._opening) > len(self.line):
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

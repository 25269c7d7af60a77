"""The gateway's connections to the replicas of one pool: acquired for a call, then released.

Opening one takes a request to Serve, 2 ms and more; a call over an open one takes a write and a
read. So a released connection serves the next call, or stays open for a moment. A call is bound to
a replica only when it is sent.
"""

import asyncio
from random import uniform
from time import monotonic

from serve_app.dispatch.connection import (
    ANY,
    PoolHandle,
    Preference,
    ReplicaConnection,
    open_connection,
)
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.frames import Hop
from serve_app.dispatch.idle_connections import IdleConnections
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.openings import Openings, PoolStartWatch
from serve_app.dispatch.pool_placement import PlacedCall, PoolPlacement
from serve_app.dispatch.waiting_line import Place, WaitingLine
from serve_app.engines.base import MAX_TRIES, Answer, Call, Priority
from serve_app.engines.span import Step
from serve_app.errors import (
    CallerLeft,
    DeadlineExceeded,
    EngineDown,
    Overloaded,
    PoolDown,
)

# Connections are closed at a random age between half of this and this, so that those of one burst
# do not expire together. Serve then chooses anew: a replica that is about to stop gets no more
# calls.
MAX_AGE_S = 5.0
# A connection to a replica with room opens in a few ms. Where none does within this, others have
# taken the room, and the call waits in the fair queue: Serve's knows only the order of arrival.
OPENS_WITHIN_S = 0.5

# Errors after which the replica's engine has not worked on the call.
_UNSERVED = (Overloaded, EngineDown, DeadlineExceeded)


class ReplicaPool:
    """Sends calls to the replicas of one pool; at most `max_waiting` calls wait for one.

    `by_session`: Serve chooses a replica for each session. `placement`: chooses the replica of
    every call, unless calls wait. `watch`: for a pool that may have no replica.
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
        self.line: WaitingLine[ReplicaConnection] = WaitingLine(
            lambda place, connection: self._release(place, connection, 0.0), fairness, max_waiting
        )
        self._idle = IdleConnections()
        self._openings = Openings(self.line, self._new_connection, self._offer, self._refuse)

    def waiting_by_flow(self) -> dict[tuple[Priority, str, str], int]:
        return self.line.waiting_by_flow()

    async def call(
        self,
        call: Call,
        wait_s: float,
        tries: int = MAX_TRIES,
        *,
        fresh: bool = False,
        failed: frozenset[str] = frozenset(),
    ) -> Answer:
        """Return a replica's answer.

        `tries`: engines that it may lose with the call. `fresh`: over a connection that no earlier
        call has used. `failed`: replicas that have failed it, which the placement tries last.
        Raises PoolDown when no replica is ready within `wait_s`, Overloaded, DeadlineExceeded, and
        the replica's own errors.
        """
        if self._placement:
            return await self._call_placed(self._placement, call, wait_s, tries, fresh, failed)
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
            answer = await connection.send(call, Hop(tries))
        except BaseException as exc:
            self._release(place, connection, 0.0 if isinstance(exc, _UNSERVED) else None)
            raise
        answer.queued_s += queued_s
        answer.on_close(lambda: self._release(place, connection, answer.served))
        return answer

    async def _call_placed(
        self,
        placement: PoolPlacement,
        call: Call,
        wait_s: float,
        tries: int,
        fresh: bool,
        failed: frozenset[str],
    ) -> Answer:
        """Return the answer of the replica with the lowest predicted time to first token."""
        if call.span:
            call.span.begin(Step.CHOOSE_REPLICA)
        place, arrived, placed = self.line.place(call), monotonic(), placement.call(call, failed)
        try:
            connection = await self._acquire_placed(placement, placed, place, call, wait_s, fresh)
        except BaseException as exc:
            placed.failed(exc)
            if isinstance(exc, asyncio.CancelledError):
                raise CallerLeft from exc
            raise
        queued_s = monotonic() - arrived
        if call.span:
            call.span.end()
        try:
            hop = placement.bind(placed, connection.replica, tries)
            answer = await connection.send(call, hop)
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
            await placement.follower.first_reports(call.deadline)
        idle = () if fresh else self._idle.replicas()
        # Behind openings for less urgent calls, Serve would let the call wait in order of arrival.
        must_wait = self.line.waits_before(call.flow.priority) or len(self._openings) > 1
        targets = () if must_wait else placement.choose(placed, idle)
        if call.span:
            call.span.end(placed.scores())
            call.span.wait(call.flow.priority, len(self.line))
        if not targets:
            place.homes = placed.homes()
            return await self._wait(place, call, wait_s)
        connection = None if fresh else self._idle.take(place.is_batch, targets[0])
        if connection is None:
            preference = placement.preference(targets)
            connection = await self._open_to(preference, call, wait_s, fresh)
        if connection and (connection.takes_batch or not place.is_batch):
            self.line.start(place)
            return connection
        placed.cancel()  # it is no work of that replica while it waits
        if connection:
            self._offer(connection)
        place.homes = placed.homes()
        return await self._wait(place, call, wait_s)

    async def _open_to(
        self, preference: Preference, call: Call, wait_s: float, fresh: bool
    ) -> ReplicaConnection | None:
        """Open a connection to a preferred replica; None: they have no room after all."""
        try:
            seconds = wait_s if fresh else min(wait_s, OPENS_WITHIN_S)
            return await self._open_alone(call, seconds, None, _lifetime_s(), preference)
        except PoolDown:
            if fresh:
                raise
            return None

    async def _acquire(
        self, place: Place[ReplicaConnection], call: Call, wait_s: float, fresh: bool
    ) -> ReplicaConnection:
        """Return a connection, for this call alone if it is `fresh` or belongs to a session."""
        session = call.affinity if self._by_session and not fresh else None
        if session or fresh:
            connection = await self._open_alone(call, wait_s, session)
        else:
            idle = self._idle.take(place.is_batch)
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
        call: Call,
        wait_s: float,
        session: str | None,
        lifetime_s: float = 0.0,
        preference: Preference = ANY,
    ) -> ReplicaConnection:
        """Open a connection for this call. Raises PoolDown, DeadlineExceeded."""
        where = self._listener, self._handle
        if self._watch:
            self._watch.expect()
        until = monotonic() + wait_s
        deadline = until if call.deadline is None else call.deadline
        try:
            async with asyncio.timeout_at(min(until, deadline)):
                return await open_connection(*where, lifetime_s, session, preference)
        except TimeoutError as exc:
            if deadline < until:
                raise DeadlineExceeded from exc
            raise self._no_replica(wait_s) from exc

    def _no_replica(self, wait_s: float) -> PoolDown:
        loading = self._watch.loading if self._watch else None
        return PoolDown(f"no replica became ready within {wait_s:g} s", loading)

    async def _wait(
        self, place: Place[ReplicaConnection], call: Call, wait_s: float
    ) -> ReplicaConnection:
        """Wait for a connection that is released or opened."""
        if self._watch:
            self._watch.expect()
        if not (self._openings.is_paused and place.is_batch):
            self._openings.begin()
        is_late = False
        try:
            return await self.line.wait(place, wait_s, call.deadline)
        except TimeoutError as exc:
            is_late = True  # the oldest opening has waited at least as long
            raise self._no_replica(wait_s) from exc
        finally:
            self._openings.cancel_surplus(oldest=is_late)

    async def _new_connection(self) -> ReplicaConnection:
        preference = self._placement.preference() if self._placement else ANY
        where = self._listener, self._handle
        return await open_connection(*where, _lifetime_s(), preference=preference)

    def _offer(self, connection: ReplicaConnection) -> None:
        """Hand the connection to the next call, else keep it for a moment."""
        takes_batch, replica = connection.takes_batch, connection.replica
        if self.line and self._placement and self._placement.is_failing(replica):
            connection.close()  # it was opened before the replica failed
        elif self.line.grant(connection, batch=takes_batch, replica=replica):
            self._openings.cancel_surplus()
        elif self.line:  # only batch requests wait, which may not use the reserved place
            connection.close()
            self._openings.pause()
        else:
            self._idle.keep(connection)
            self._openings.cancel_surplus()

    def _refuse(self, error: Exception) -> None:
        """Fail a waiting call, because Serve's queue is full or has failed."""
        if isinstance(error, Overloaded):
            error = self.line.overloaded(str(error))
        self.line.refuse(error)
        self._openings.cancel_surplus()


def _lifetime_s() -> float:
    return MAX_AGE_S * uniform(0.5, 1)

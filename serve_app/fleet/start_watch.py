"""Watches the start of a pool that has no replica, while calls wait for one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import time

from serve_app.errors import Loading
from serve_app.fleet.members import FleetMemory, Member, MemberState, state_of

logger = logging.getLogger("ray.serve")

# Shorter waits are for a slot, or end before a caller could read about them.
PATIENCE_S = 1.0
_EVERY_S = 1.0
_STARTED = (MemberState.READY, MemberState.ENGINE_AWAY)
_NO_REPLICA = "no replica yet"


class StartWatch:
    """Tracks the phase of a start, and estimates its end from the pool's earlier starts.

    `look` returns the pool's replicas. `is_cold`: whether no replica is known to run. `for_s`: the
    longest wait of a call. `clock`: seconds since 1970.
    """

    def __init__(
        self,
        pool: str,
        look: Callable[[], Awaitable[Sequence[Member]]],
        is_cold: Callable[[], bool],
        for_s: float,
        clock: Callable[[], float] = time,
    ) -> None:
        self._pool = pool
        self._look = look
        self._is_cold = is_cold
        self._for_s = for_s
        self._clock = clock
        self._memory = FleetMemory()
        self._members: Sequence[Member] = ()
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def expect(self) -> None:
        """Note that a call waits."""
        self._until = self._clock() + self._for_s
        if self._timer is None and self._task is None and not self._is_stopped:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._begin)

    def stop(self) -> None:
        self._is_stopped = True
        for running in (self._timer, self._task):
            if running:
                running.cancel()

    @property
    def loading(self) -> Loading | None:
        """The start that calls wait for; None where a replica runs, and before the first look."""
        if self._task is None:
            return None
        started_at, phase = self._furthest()
        start_s = self._memory.start_s(self._pool)
        if start_s is None:
            return Loading(phase, None)
        return Loading(phase, max(0.0, started_at + start_s - self._clock()))

    def _begin(self) -> None:
        self._timer = None
        if self._is_cold():
            self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            while self._clock() < self._until:
                if await self._has_started():
                    return
                await asyncio.sleep(_EVERY_S)
        except Exception:  # the calls wait as before
            logger.warning("failed to watch the start of pool %s", self._pool, exc_info=True)
        finally:
            self._task = None

    async def _has_started(self) -> bool:
        self._members = await self._look()
        self._memory.note(self._members, self._clock())
        return any(state_of(member) in _STARTED for member in self._members)

    def _furthest(self) -> tuple[float, str]:
        """Return the begin of the oldest start, in seconds since 1970, and its phase."""
        starting = [m for m in self._members if state_of(m) is not MemberState.DRAINING]
        if not starting:
            return self._clock(), _NO_REPLICA
        oldest = min(starting, key=lambda member: member.started_at)
        state, engine = str(state_of(oldest)), oldest.report and oldest.report.engine
        phase = engine.status.phase if engine else ""
        return oldest.started_at, f"{state}: {phase}" if phase else state

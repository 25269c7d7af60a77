"""Which calls the engine gets, and when: its slots, and a bounded fair queue before them."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

from serve_app.dispatch.fair_queue import Fairness, FairQueue, Ticket
from serve_app.dispatch.speed import Speed
from serve_app.engines.base import Call
from serve_app.errors import DeadlineExceeded, Overloaded
from serve_app.pool_settings import Pool
from serve_app.settings import Settings

Leave = Callable[[float | None], None]
_Waiter = asyncio.Future[None] | None


class Admission:
    """The engine's slots, and a bounded queue before them.

    `timeouts_s`: seconds that a request may wait, by priority. Batch requests leave
    `reserved_slots` free.
    """

    def __init__(
        self,
        slots: int,
        queue: int,
        timeouts_s: Mapping[str, float],
        fairness: Fairness | None = None,
        reserved_slots: int = 0,
    ) -> None:
        self._free = slots
        self._reserved = reserved_slots
        self._max_waiting = queue
        self._timeouts_s = timeouts_s
        self._queue: FairQueue[_Waiter] = FairQueue(fairness)
        self._speed = Speed()

    @classmethod
    def of(cls, settings: Settings, pool: Pool) -> Self:
        return cls(
            pool.engine.slots,
            pool.queue,
            settings.queue_timeouts_s,
            Fairness(settings.fairness.half_life_s, settings.aging_s),
            pool.reserved_slots,
        )

    async def enter(self, call: Call) -> Leave:
        """Wait for a slot; return what gives it back, to be called once with the service used.

        Raises Overloaded, and DeadlineExceeded when the call's deadline passes first.
        """
        ticket: Ticket[_Waiter] = Ticket(None, call.flow, call.service)
        if call.deadline is not None and call.deadline <= _now():
            raise _too_late()
        if self._has_slot(ticket):
            self._free -= 1
            self._queue.start(ticket, _now())
        else:
            await self._wait(ticket, call)
        return partial(self._leave, ticket)

    def _has_slot(self, ticket: Ticket[_Waiter]) -> bool:
        # Whoever waits beside a slot that this one may have, may not have it.
        return self._free > (self._reserved if ticket.is_batch else 0)

    async def _wait(self, ticket: Ticket[_Waiter], call: Call) -> None:
        now = _now()
        self._make_room(ticket)
        if not self._queue:
            self._speed.restart(now)
        waiter = ticket.owner = asyncio.get_running_loop().create_future()
        self._queue.push(ticket, now)
        timeout_s = self._timeouts_s[ticket.flow.priority]
        until = now + timeout_s if call.deadline is None else min(now + timeout_s, call.deadline)
        try:
            async with asyncio.timeout_at(until):  # wait_for may swallow a hang-up
                await waiter
        except TimeoutError as exc:
            self._abandon(ticket, waiter)
            if until == call.deadline:
                raise _too_late() from exc
            raise self._overloaded(f"no slot became free within {timeout_s:g} s") from exc
        except asyncio.CancelledError:
            self._abandon(ticket, waiter)
            raise

    def _make_room(self, ticket: Ticket[_Waiter]) -> None:
        """Refuse the request that a full queue has too many of. Raises Overloaded if it is this."""
        if len(self._queue) < self._max_waiting:
            return
        refusal = self._overloaded("server busy, please try again: slots and queue are full")
        surplus = self._queue.surplus(ticket.flow)
        if surplus is None:
            raise refusal
        self._queue.withdraw(surplus)
        if surplus.owner and not surplus.owner.done():
            surplus.owner.set_exception(refusal)

    def _overloaded(self, sentence: str) -> Overloaded:
        return Overloaded(sentence, self._speed.retry_after_s(len(self._queue)))

    def _abandon(self, ticket: Ticket[_Waiter], waiter: asyncio.Future[None]) -> None:
        """Take a request out that no longer waits, or give back the slot that it just got."""
        if ticket.waits:
            self._queue.withdraw(ticket)
        elif not waiter.cancelled() and waiter.exception() is None:
            self._leave(ticket, 0.0)

    def _leave(self, ticket: Ticket[_Waiter], served: float | None = None) -> None:
        self._free += 1
        self._queue.end(ticket, served)
        if self._queue:
            self._speed.note_end(_now())
            self._fill()

    def _fill(self) -> None:
        """Give free slots to those who are next."""
        while self._free:
            ticket = self._queue.pop(_now(), batch=self._free > self._reserved)
            if ticket is None:
                return
            if ticket.owner is None or ticket.owner.done():  # it is leaving
                self._queue.end(ticket, 0.0)
            else:
                self._free -= 1
                ticket.owner.set_result(None)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the request's deadline passed before a slot was free")


def _now() -> float:
    return asyncio.get_running_loop().time()

"""Calls that wait for a slot or a connection, in the order of the fair queue."""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Generic, TypeVar

from serve_app.dispatch.fair_queue import Fairness, FairQueue
from serve_app.dispatch.speed import Speed
from serve_app.dispatch.ticket import Ticket
from serve_app.engines.base import Call, Priority, Served
from serve_app.errors import DeadlineExceeded, Overloaded

T = TypeVar("T")
Place = Ticket[asyncio.Future[T]]


class WaitingLine(Generic[T]):
    """A fair queue of at most `max_waiting` calls that wait for a `T` each.

    `give_back` takes back the grant of a call that left at the same moment.
    """

    def __init__(
        self,
        give_back: Callable[[Place[T], T], None],
        fairness: Fairness | None = None,
        max_waiting: float = float("inf"),
    ) -> None:
        self._give_back = give_back
        self._max_waiting = max_waiting
        self._queue: FairQueue[asyncio.Future[T]] = FairQueue(fairness)
        self._speed = Speed()

    def __len__(self) -> int:
        return len(self._queue)

    def waiting_by_flow(self) -> dict[tuple[Priority, str, str], int]:
        """Return how many calls wait, by (priority, group, key). May run in any thread."""
        return self._queue.waiting_by_flow()

    def waits_before(self, priority: Priority) -> bool:
        return self._queue.waits_before(priority)

    def place(self, call: Call) -> Place[T]:
        owner: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        return Ticket(owner, call.flow, call.service)

    def start(self, place: Place[T]) -> None:
        """Charge a call that need not wait."""
        self._queue.start(place, monotonic())

    def end(self, place: Place[T], served: float | None) -> None:
        """Correct the service of a call that has ended; None: as it was reserved."""
        self._queue.end(place, served)
        if self._queue:
            self._speed.note_end(monotonic())

    async def wait(self, place: Place[T], timeout_s: float, deadline: float | None) -> T:
        """Return the slot or connection that is granted to the call.

        Raises Overloaded when the line is full of requests of its key, or has become so;
        TimeoutError, DeadlineExceeded.
        """
        self._push(place)
        until = monotonic() + timeout_s
        try:
            # asyncio.wait_for may swallow a disconnect.
            async with asyncio.timeout_at(until if deadline is None else min(until, deadline)):
                return await place.owner
        except TimeoutError as exc:
            self._abandon(place)
            if deadline is not None and deadline < until:
                raise DeadlineExceeded from exc
            raise
        except asyncio.CancelledError:
            self._abandon(place)
            raise

    def grant(self, thing: T, *, batch: bool = True, replica: str = "") -> bool:
        """Give `thing` to the call that is next. Returns False if there is none.

        `batch`: whether it may be a batch request. `replica`: the one that `thing` belongs to.
        """
        while place := self._queue.pop(monotonic(), batch=batch, replica=replica):
            if not place.owner.done():
                place.owner.set_result(thing)
                return True
            self._queue.end(place, 0.0)  # it is leaving
        return False

    def refuse(self, error: Exception) -> None:
        """Fail the newest call of the key that has most of them waiting."""
        while surplus := self._queue.surplus():
            if self._displace(surplus, error):
                return

    def take_served(self) -> list[Served]:
        """Return the service of each flow since the last call."""
        return self._queue.take_served()

    def credit(self, served: Iterable[Served], age_s: float) -> None:
        """Count service that another queue has given `age_s` seconds ago."""
        now = monotonic()
        self._queue.credit(served, now - age_s, now)

    def overloaded(self, sentence: str) -> Overloaded:
        """Return the error with the time until there will be room."""
        return Overloaded(sentence, self._speed.retry_after_s(len(self._queue)))

    def _push(self, place: Place[T]) -> None:
        if len(self._queue) >= self._max_waiting:
            full = self.overloaded("server busy, please try again: slots and queue are full")
            surplus = self._queue.surplus(place.flow)
            if surplus is None:
                raise full
            self._displace(surplus, full)
        if not self._queue:
            self._speed.restart(monotonic())
        self._queue.push(place, monotonic())

    def _displace(self, surplus: Place[T], error: Exception) -> bool:
        """Fail a call that waits. Returns False if it is leaving anyway."""
        self._queue.withdraw(surplus)
        if surplus.owner.done():
            return False
        surplus.owner.set_exception(error)
        return True

    def _abandon(self, place: Place[T]) -> None:
        owner = place.owner
        if place.waits:
            self._queue.withdraw(place)
        elif not owner.cancelled() and owner.exception() is None:
            self._give_back(place, owner.result())

"""Admission of calls to the engine: its slots, and a bounded fair queue before them."""

from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Self

from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.waiting_line import Place, WaitingLine
from serve_app.engines.base import Call, Priority
from serve_app.errors import DeadlineExceeded
from serve_app.pool_settings import Pool
from serve_app.settings import Settings

Leave = Callable[[float | None], None]


class Admission:
    """The engine's slots, and a fair queue of at most `queue` calls before them.

    `timeouts_s`: seconds that a call may wait, by priority. Batch requests leave `reserved_slots`
    free.
    """

    def __init__(
        self,
        slots: int,
        queue: int,
        timeouts_s: Mapping[str, float],
        fairness: Fairness | None = None,
        reserved_slots: int = 0,
    ) -> None:
        self._slots = self._free = slots
        self._reserved = reserved_slots
        self._timeouts_s = timeouts_s
        self.line: WaitingLine[None] = WaitingLine(
            lambda place, _: self._leave(place, 0.0), fairness, queue
        )

    @classmethod
    def of(cls, settings: Settings, pool: Pool) -> Self:
        return cls(
            *(pool.engine.slots, pool.queue, settings.queue_timeouts_s),
            Fairness.of(settings),
            pool.reserved_slots,
        )

    @property
    def busy(self) -> int:
        """The number of slots that are taken."""
        return self._slots - self._free

    def waiting_by_flow(self) -> Mapping[tuple[Priority, str, str], int]:
        return self.line.waiting_by_flow()

    async def enter(self, call: Call, waited_s: float = 0.0) -> Leave:
        """Wait for a slot; return a function that frees it, called once with the service used.

        `waited_s`: earlier waits of the call, which count towards its bound.
        Raises Overloaded, and DeadlineExceeded when the call's deadline passes first.
        """
        if call.deadline is not None and call.deadline <= monotonic():
            raise DeadlineExceeded
        place = self.line.place(call)
        if call.span:
            call.span.wait(call.flow.priority, len(self.line))
        # The slot may be reserved: waiting batch requests must not take it.
        if self._free > (self._reserved if place.is_batch else 0):
            self._free -= 1
            self.line.start(place)
        else:
            await self._wait(place, call, waited_s)
        return partial(self._leave, place)

    async def _wait(self, place: Place[None], call: Call, waited_s: float) -> None:
        timeout_s = self._timeouts_s[call.flow.priority]
        try:
            await self.line.wait(place, timeout_s - waited_s, call.deadline)
        except TimeoutError as exc:
            raise self.line.overloaded(f"no slot became free within {timeout_s:g} s") from exc

    def _leave(self, place: Place[None], served: float | None) -> None:
        self._free += 1
        self.line.end(place, served)
        while self._free and self.line.grant(None, batch=self._free > self._reserved):
            self._free -= 1

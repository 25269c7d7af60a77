"""The model of time: slots with prompt caches and one FIFO, and a clock that load slows."""

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Sequence
from itertools import count

# The resolution of libuv's timers in seconds; a token may be half of it early.
_TICK = 0.001


class CacheSlot:
    """A slot of the engine, with the cached tokens of its last request."""

    __slots__ = ("model", "words")

    def __init__(self) -> None:
        self.model = ""
        self.words: Sequence[str] = ()

    def cached(self, model: str, words: Sequence[str]) -> int:
        """Return the number of cached leading tokens of a prompt."""
        return common_prefix(self.words, words) if self.model == model else 0


class SlotPool:
    """The slots and their FIFO.

    A request takes the free slot with the longest common prefix, else the slot that has been free
    longest.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = [CacheSlot() for _ in range(size)]
        self._queue: deque[asyncio.Future[CacheSlot]] = deque()

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def running(self) -> int:
        return self._size - len(self._free)

    @property
    def queued(self) -> int:
        return len(self._queue)

    async def acquire(self, model: str, words: Sequence[str]) -> CacheSlot:
        return self._take_best(model, words) if self._free else await self._wait()

    def release(self, slot: CacheSlot) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        self._free.append(slot)

    def _take_best(self, model: str, words: Sequence[str]) -> CacheSlot:
        best, max_cached = 0, 0
        for index, slot in enumerate(self._free):
            if (cached := slot.cached(model, words)) > max_cached:
                best, max_cached = index, cached
            if max_cached == len(words):
                break
        return self._free.pop(best)

    async def _wait(self) -> CacheSlot:
        waiter: asyncio.Future[CacheSlot] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: "asyncio.Future[CacheSlot]") -> None:
        if waiter.done() and not waiter.cancelled():
            self.release(waiter.result())
        elif waiter in self._queue:
            self._queue.remove(waiter)


def common_prefix(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the common prefix, by comparing slices, which is fast in C."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class DecodeClock:
    """Virtual time of n streams, which runs at 1/(1+slowdown*(n-1)) of real time.

    Streams wait for points of virtual time, so the due time of a token follows from its number, and
    does not drift when n changes. One timer serves all streams.
    """

    def __init__(self, slowdown: float) -> None:
        self._slowdown = slowdown
        self._streams = 0
        self._virtual = 0.0
        self._real = time.monotonic()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ties = count()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _pace(self) -> float:
        return 1.0 / (1.0 + self._slowdown * max(0, self._streams - 1))

    def now(self) -> float:
        real = time.monotonic()
        self._virtual += (real - self._real) * self._pace
        self._real = real
        return self._virtual

    def join(self) -> None:
        self._change(1)

    def leave(self) -> None:
        self._change(-1)

    async def until(self, due: float) -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (due, next(self._ties), sleeper))
        if self._sleepers[0][2] is sleeper:
            self._arm()
        await sleeper

    def _change(self, streams: int) -> None:
        self.now()
        self._streams += streams
        if self._slowdown:
            self._arm()

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._sleepers:
            delay = max(0.0, (self._sleepers[0][0] - self.now()) / self._pace)
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        early = self.now() + _TICK / 2
        while self._sleepers and self._sleepers[0][0] <= early:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.set_result(None)
        self._arm()


class Decoding:
    """The due times of a stream: token k (from 1) is due k/rate after the start. Must be closed."""

    def __init__(self, clock: DecodeClock, rate: float) -> None:
        self._clock = clock
        self._rate = rate
        if rate:
            clock.join()
            self._start = clock.now()

    def due(self) -> float:
        """Return the number of tokens that are due."""
        if not self._rate:
            return math.inf
        return int((self._clock.now() + _TICK / 2 - self._start) * self._rate + 1e-6)

    async def reached(self, token: int) -> float:
        """Wait until a token is due. Returns the number of tokens that are due."""
        while (due := self.due()) < token:
            await self._clock.until(self._start + token / self._rate)
        return due

    def close(self) -> None:
        if self._rate:
            self._clock.leave()

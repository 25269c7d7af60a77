"""Measures the CPU time of the fair queue for one request, in this process.

`python -m tests.bench.fair_queue` compares a request that finds a free slot with a plain count of
slots, without keys and with 10,000 keys in turn; and measures a request that waits, with one and
with 100,000 keys that wait. Each figure is the minimum of several rounds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import cycle
from time import process_time

import uvloop

from serve_app.dispatch.admission import Admission
from serve_app.dispatch.fair_queue import FairQueue, Ticket
from serve_app.engines.base import Call, Flow, Priority

ROUNDS, REQUESTS = 5, 20_000
ANONYMOUS = Call("/api/chat", "m:latest", b"{}", stream=True)
Enter = Callable[[Call], Awaitable[Callable[[float | None], None]]]


class PlainSlots:
    """Counts slots, and nothing else."""

    def __init__(self, slots: int) -> None:
        self._free = slots

    async def enter(self, call: Call) -> Callable[[float | None], None]:
        self._free -= 1
        return self._leave

    def _leave(self, served: float | None) -> None:
        self._free += 1


async def main() -> None:
    keyed = [replace(ANONYMOUS, flow=Flow(f"k{n:05d}"), service=500.0) for n in range(10_000)]
    admission = Admission(4, 8, dict.fromkeys(Priority, 60.0))
    plain_us = await min_us(lambda: free_slot(PlainSlots(4).enter, cycle([ANONYMOUS])))
    for name, calls in (("without keys", [ANONYMOUS]), ("with 10,000 keys", keyed)):
        us = await min_us(lambda calls=calls: free_slot(admission.enter, cycle(calls)))
        print(f"free slot, {name:22} {us - plain_us:5.1f} us more than a count of slots")
    for keys in (1, 100_000):
        queue = flooded(keys)
        us = await min_us(lambda queue=queue, keys=keys: asyncio.to_thread(waits, queue, keys))
        print(f"waits, beside {keys:7,} {'key' if keys == 1 else 'keys':11} {us:5.1f} us")


async def min_us(measure: Callable[[], Awaitable[float]]) -> float:
    return min([await measure() for _ in range(ROUNDS)])


async def free_slot(enter: Enter, calls: Iterator[Call]) -> float:
    """Return microseconds of CPU for a request that takes a slot and leaves it."""
    began = process_time()
    for _ in range(REQUESTS):
        leave = await enter(next(calls))
        leave(400.0)
    return 1e6 * (process_time() - began) / REQUESTS


def flooded(keys: int) -> FairQueue[None]:
    """Return a queue in which each key has two requests."""
    queue: FairQueue[None] = FairQueue()
    for number in range(2 * keys):
        queue.push(Ticket(None, Flow(f"k{number % keys}"), 500.0), 0.0)
    return queue


def waits(queue: FairQueue[None], keys: int) -> float:
    """Return microseconds of CPU for a request that arrives, waits, starts and ends."""
    began = process_time()
    for number in range(REQUESTS):
        queue.push(Ticket(None, Flow(f"k{7919 * number % keys}"), 500.0), number / 1000)
        ticket = queue.pop(number / 1000)
        assert ticket
        queue.end(ticket, 400.0)
    return 1e6 * (process_time() - began) / REQUESTS


if __name__ == "__main__":
    uvloop.run(main())

"""Measures the CPU time of a reservation and its settlement, in this process, by store.

`python -m tests.bench.limit_store` uses 10,000 keys in turn, each with limits of requests and
tokens a minute and tokens a day. CPU of Redis itself is not counted.
"""

import asyncio
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import uvloop

from serve_app.access.caller import Caller
from serve_app.access.limits.limiter import Limiter, build_limiter
from serve_app.access.policies import Limits
from serve_app.api.rate_headers import rate_headers
from serve_app.limit_settings import LimitSettings
from tests.support.redis_server import redis_server

KEYS = 10_000
LIMITS = Limits(requests_per_minute=10**6, tokens_per_minute=10**9, tokens_per_day=10**12)


async def main() -> None:
    callers = cycle([Caller(f"k{number:05d}", limits=LIMITS) for number in range(KEYS)])
    limiter = build_limiter(LimitSettings())
    await measure(limiter, callers, 1, KEYS)  # makes the counts of every key
    print(f"memory              {await measure(limiter, callers, 1, 20_000):6.1f} us")
    with TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        settings = LimitSettings.model_validate({"store": "redis", "redis_url": url})
        for at_a_time in (1, 8, 32):
            limiter = build_limiter(settings)
            limiter.start()
            await measure(limiter, callers, 1, 100)
            cpu_us = await measure(limiter, callers, at_a_time, 4000)
            print(f"Redis, {at_a_time:2} at a time  {cpu_us:6.1f} us")
            await limiter.close()


async def measure(
    limiter: Limiter, callers: Iterator[Caller], at_a_time: int, number: int
) -> float:
    """Return microseconds of CPU a request. Raises AssertionError when a store was away."""
    began = process_time()
    workers = [_ask(limiter, callers, number // at_a_time) for _ in range(at_a_time)]
    await asyncio.gather(*workers)
    return 1e6 * (process_time() - began) / number


async def _ask(limiter: Limiter, callers: Iterator[Caller], number: int) -> None:
    for _ in range(number):
        caller = next(callers)
        estimate = limiter.estimate(caller, "m:latest", 2000, 100)
        reservation = await limiter.reserve(caller, estimate)
        assert reservation.claim, "the store was away: the machine is too busy to measure"
        rate_headers("openai", reservation.standings)
        limiter.settle(reservation, 300)
        limiter.learn(caller, estimate, 500, 50)


if __name__ == "__main__":
    uvloop.run(main())

"""A ledger that all replicas and gateways share: a hash for each day in the Redis of the limits."""

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serve_app.access.usage.memory import MemoryLedger
from serve_app.access.usage.totals import COUNTERS, LedgerAway, Row, Totals, Use

logger = logging.getLogger("ray.serve")

JOIN_S = 0.5
RETRY_S = 5.0
_CALL_S = 2.0
_DAY_S = 86_400


class RedisLedger:
    """Adds to the totals behind `client`, in batches of half a second.

    While Redis is away the sums stay in memory until it is back.
    """

    def __init__(self, client: Redis, keep_days: int) -> None:
        self._client = client
        self._keep_s = (keep_days + 1) * _DAY_S
        self._keep_days = keep_days
        self._unwritten = MemoryLedger(keep_days)
        self._is_empty = True
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_away = False
        self._is_closed = False

    def add(self, row: Row, use: Use) -> None:
        self._unwritten.add(row, use)
        self._is_empty = False
        self._write_later(JOIN_S)

    async def read(self, days: Sequence[str]) -> Totals:
        await self.flush()
        try:
            async with asyncio.timeout(_CALL_S), self._client.pipeline(transaction=False) as pipe:
                for day in days:
                    pipe.hgetall(_key(day))
                hashes = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as exc:
            self._note_away(exc)
            raise LedgerAway("the store of usage can't be read: try again later") from exc
        self._note_back()
        totals: Totals = {}
        for day, values in zip(days, hashes, strict=True):
            for field, number in values.items():
                *names, counter = orjson.loads(field)
                if counter not in COUNTERS:
                    continue  # written by a later version, in the other cluster of an upgrade
                use = totals.setdefault(Row(day, *names), Use())
                setattr(use, counter, int(number))
        return totals

    async def flush(self) -> None:
        """Write the pending sums, within a bound."""
        self._write()
        if self._writing:
            await asyncio.wait({self._writing}, timeout=2 * _CALL_S)

    async def close(self) -> None:
        self._is_closed = True
        await self.flush()
        if self._timer:
            self._timer.cancel()
        if self._writing:
            self._writing.cancel()
        await self._client.aclose()

    def _write_later(self, delay_s: float) -> None:
        if self._timer is None and self._writing is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._write, context=Context())

    def _write(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and not self._is_empty:
            loop = asyncio.get_running_loop()
            self._writing = loop.create_task(self._write_all(), context=Context())

    async def _write_all(self) -> None:
        written, self._unwritten = self._unwritten, MemoryLedger(self._keep_days)
        self._is_empty = True
        totals = await written.read(written.days)
        try:
            await self._send(totals)
        except Exception as exc:  # any error: otherwise nothing more would be written
            self._keep(totals, exc)
        else:
            self._note_back()
        self._writing = None
        if not self._is_empty:
            self._write_later(RETRY_S if self._is_away else JOIN_S)

    async def _send(self, totals: Totals) -> None:
        async with asyncio.timeout(_CALL_S), self._client.pipeline(transaction=True) as pipe:
            for row, use in totals.items():
                for counter in COUNTERS:
                    if number := getattr(use, counter):
                        field = orjson.dumps((row.key, row.group, row.model, counter))
                        pipe.hincrby(_key(row.day), field, number)
            for day in {row.day for row in totals}:
                pipe.expire(_key(day), self._keep_s)
            await pipe.execute()

    def _keep(self, totals: Totals, exc: Exception) -> None:
        for row, use in totals.items():
            self._unwritten.add(row, use)
        self._is_empty = False
        self._note_away(exc)

    def _note_away(self, exc: Exception) -> None:
        """Log the cause, which tells callers more than they should know."""
        if not self._is_away:
            self._is_away = True
            logger.error("lost the store of usage, retrying in %g s: %s", RETRY_S, _text(exc))

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.info("reached the store of usage again")


def _key(day: str) -> str:
    return f"usage:{day}"


def _text(exc: Exception) -> str:
    return str(exc) or type(exc).__name__

"""Exchanges the service of keys between queues, through the Redis of the limits.

Each process appends the service of its queues to a stream for each pool once a second, and reads
the entries of the others. Redis's clock dates the entries.
"""

import asyncio
import json
import logging
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from serve_app.engines.base import Priority, Served, ServiceQueue

logger = logging.getLogger("ray.serve")

EVERY_S = 1.0
_CALL_S = 1.0
# The maximum of keys in one entry, the most served ones; of entries in a stream; and of seconds
# that an idle stream stays.
MAX_KEYS = 64
MAX_ENTRIES = 256
_KEEP_S = 600
_FIELD = b"served"


class ServiceExchange:
    """Exchanges the service of `queues`, by pool. While Redis is away every queue counts alone."""

    def __init__(self, client: Redis, queues: Mapping[str, ServiceQueue]) -> None:
        self._client = client
        self._process = secrets.token_hex(6)
        self._streams = [_Stream(f"served:{pool}", queue) for pool, queue in queues.items()]
        self._task: asyncio.Task[None] | None = None
        self._is_away = False

    def start(self) -> None:
        """Exchange once a second from now on. Needs a running event loop."""
        self._task = asyncio.create_task(self._repeat(), context=Context())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._client.aclose()

    async def _repeat(self) -> None:
        while True:
            await self.exchange()
            await asyncio.sleep(EVERY_S)

    async def exchange(self) -> None:
        """Send the service since the last call, and count that of the other processes."""
        sent = [encode_entry(self._process, stream.queue.take_served()) for stream in self._streams]
        try:
            async with asyncio.timeout(_CALL_S):
                await self._send_and_read(sent)
        except (RedisError, OSError, TimeoutError) as exc:
            if not self._is_away:
                logger.error("lost the exchange of service between queues: %s", _text(exc))
            self._is_away = True
        else:
            if self._is_away:
                logger.info("reached the exchange of service between queues again")
            self._is_away = False

    async def _send_and_read(self, sent: list[str]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for stream, text in zip(self._streams, sent, strict=True):
                pipe.xrange(stream.name, f"({stream.last}")
                if text:
                    pipe.xadd(stream.name, {_FIELD: text}, maxlen=MAX_ENTRIES)
                    pipe.expire(stream.name, _KEEP_S)
            (seconds, microseconds), *answers = await pipe.execute()
        now_ms = 1000 * seconds + microseconds // 1000
        listings = (answer for answer in answers if isinstance(answer, list))
        for stream, entries in zip(self._streams, listings, strict=True):
            stream.read(entries, now_ms, self._process)


class _Stream:
    """The stream of one pool, read up to the entry `last`."""

    def __init__(self, name: str, queue: ServiceQueue) -> None:
        self.name = name
        self.queue = queue
        self.last = "0-0"

    def read(
        self, entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]], now_ms: int, own: str
    ) -> None:
        """Count the entries of other processes."""
        for entry_id, fields in entries:
            self.last = entry_id.decode()
            process, served = decode(fields.get(_FIELD, b""))
            if process != own:
                self.queue.credit(served, max(0, now_ms - _ms(self.last)) / 1000)
        if _ms(self.last) > now_ms:  # Redis was replaced, and its clock is behind
            self.last = f"{now_ms}-0"


def encode_entry(process: str, served: Iterable[Served]) -> str:
    """Return the text of an entry with the MAX_KEYS most served keys; "" for none."""
    largest = sorted(served, key=lambda part: part.service, reverse=True)[:MAX_KEYS]
    return json.dumps([process, largest]) if largest else ""


def decode(text: bytes) -> tuple[str, list[Served]]:
    """Return the process and its service by key; skip parts that can't be read."""
    try:
        process, listed = json.loads(text)
        return str(process), list(_valid(listed))
    except (ValueError, TypeError):
        return "", []


def _valid(listed: Iterable[Any]) -> Iterator[Served]:
    for values in listed:
        band, group, key, *numbers = values
        weight, group_weight, service = map(float, numbers)
        is_possible = 0 < service < math.inf and weight > 0 and group_weight > 0
        if is_possible and band in range(len(Priority)):
            yield Served(int(band), str(group), str(key), weight, group_weight, service)


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _text(exc: Exception) -> str:
    return str(exc) or type(exc).__name__

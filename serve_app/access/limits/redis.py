"""A store of counts that all replicas and gateways share: a Redis for limits alone.

Claims, settlements and renewals that are waiting travel together as one call of a script, which
Redis runs atomically on its own clock. Only one call is under way at a time.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from importlib.resources import files

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serve_app.access.limits.quotas import Balance, Grant
from serve_app.access.limits.store import QuotaClaim, StoreAway

logger = logging.getLogger("ray.serve")

WAIT_S = 0.05  # for a decision
REST_S = 1.0  # after a failure, without sending
JOIN_S = 0.1  # for settlements
_TURNS = 3  # of the event loop, from bytes in a socket to a decision
# A call may take longer than its requests wait: the first one connects.
_CALL_S = 1.0
_MAX_SETTLEMENTS = 10_000
_SCRIPT = (files(__package__) / "counts.lua").read_text()

_Waiter = tuple[QuotaClaim, "asyncio.Future[Grant]"]


@dataclass(slots=True)
class _Batch:
    settlements: list[tuple[object, ...]] = field(default_factory=list)
    renewals: list[tuple[str, str]] = field(default_factory=list)
    waiters: list[_Waiter] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.waiters or self.settlements or self.renewals)

    def encode(self) -> bytes:
        claims = [(c.tokens, c.day, c.lease, _wire(c)) for c, _ in self.waiters]
        return orjson.dumps({"settle": self.settlements, "renew": self.renewals, "claim": claims})

    def fail(self, why: str) -> None:
        for _, future in self.waiters:
            if not future.done():
                future.set_exception(StoreAway(why))
        self.waiters = []


class RedisStore:
    """Counts in the Redis behind `client`.

    `clock`: in place of Redis's own. `wait_s`: how long a request waits for a decision.
    """

    def __init__(
        self, client: Redis, clock: Callable[[], float] | None = None, wait_s: float = WAIT_S
    ) -> None:
        self._client = client
        self._wait_s = wait_s
        self._script = client.register_script(_SCRIPT)
        self._clock = clock
        self._batch = _Batch()
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rests_until = 0.0
        self._away = False
        self._is_closed = False

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send_batches(connect=True), context=Context())

    async def reserve(self, claim: QuotaClaim) -> Grant:
        if self._rests():
            raise StoreAway("the store failed less than a second ago")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Grant] = loop.create_future()
        self._batch.waiters.append((claim, future))
        self._send()
        timer = loop.call_later(self._wait_s, self._expire, future)
        try:
            return await future
        except asyncio.CancelledError:
            self._take_back(claim, future)
            raise
        finally:
            timer.cancel()

    def _take_back(self, claim: QuotaClaim, future: "asyncio.Future[Grant]") -> None:
        """Return a grant whose caller left at the moment it was made."""
        if not future.cancelled() and not future.exception() and future.result().granted:
            self.settle(claim, claim.tokens, 1)

    def settle(self, claim: QuotaClaim, tokens_back: float, requests_back: int = 0) -> None:
        settlements = self._batch.settlements
        ends_lease = False
        for quota in claim.quotas:
            lease = claim.lease if quota.parallel else ""
            limits = quota.subject, quota.requests, quota.tokens, quota.day
            settlements.append((*limits, requests_back, tokens_back, claim.day, lease))
            ends_lease = ends_lease or bool(lease)
        # While the store is away the oldest settlements are dropped: their reservations stay.
        del settlements[:-_MAX_SETTLEMENTS]
        # The caller's next request may come at once, and to another replica.
        self._send_later(0 if ends_lease else JOIN_S)

    def renew(self, leases: Iterable[tuple[str, str]]) -> None:
        self._batch.renewals = list(leases)
        self._send_later(0)

    async def flush(self) -> None:
        """Send the waiting batch, unless the store failed a moment ago."""
        if self._batch and not self._rests():
            self._send()
        if self._sending:
            await asyncio.wait({self._sending}, timeout=2 * _CALL_S)

    async def close(self) -> None:
        """Send the last settlements; later ones are lost, and their reservations stand."""
        self._is_closed = True
        await self.flush()
        if self._timer:
            self._timer.cancel()
        if self._sending:
            self._sending.cancel()
        await self._client.aclose()

    def _send_later(self, delay_s: float) -> None:
        """Send the batch after `delay_s`, or with the next claim."""
        if self._sending or self._is_closed:
            return  # the call in progress sends the batch next
        loop = asyncio.get_running_loop()
        at = max(loop.time() + delay_s, self._rests_until)
        if self._timer and self._timer.when() <= at:
            return
        if self._timer:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._send, context=Context())

    def _send(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._sending is None:
            loop = asyncio.get_running_loop()
            self._sending = loop.create_task(self._send_batches(), context=Context())

    async def _send_batches(self, *, connect: bool = False) -> None:
        try:
            while connect or (self._batch and not self._rests()):
                connect = False
                batch, self._batch = self._batch, _Batch()
                await self._send_batch(batch)
        finally:
            self._sending = None
        if self._batch:
            self._send_later(JOIN_S)

    def _rests(self) -> bool:
        """Tell whether the store failed less than a second ago."""
        return asyncio.get_running_loop().time() < self._rests_until

    async def _send_batch(self, batch: _Batch) -> None:
        now = "" if self._clock is None else repr(self._clock())
        try:
            async with asyncio.timeout(_CALL_S):
                text = await self._script(args=[now, batch.encode()])
            grants = list(_grants(batch, text))
        except (RedisError, OSError, TimeoutError, ValueError, AttributeError) as exc:
            self._fail(str(exc) or type(exc).__name__)
            batch.fail("the store failed")
            return
        self._note_back()
        for (claim, future), grant in zip(batch.waiters, grants, strict=True):
            if not future.done():
                future.set_result(grant)
            elif grant.granted:  # too late: the caller has left, or did not wait
                self.settle(claim, claim.tokens, 1)

    def _expire(self, future: "asyncio.Future[Grant]", turns: int = _TURNS) -> None:
        if future.done():
            return
        if turns:  # a busy event loop may not have read the answer yet
            asyncio.get_running_loop().call_soon(self._expire, future, turns - 1, context=Context())
            return
        future.set_exception(StoreAway("the store is slow"))
        self._fail(f"no answer within {1000 * self._wait_s:g} ms")

    def _fail(self, why: str) -> None:
        """Stop sending for a while and end all waits."""
        self._rests_until = asyncio.get_running_loop().time() + REST_S
        self._batch.fail("the store failed")
        if not self._away:
            self._away = True
            logger.error("lost the store of limits, retrying in %g s: %s", REST_S, why)

    def _note_back(self) -> None:
        if self._away and not self._rests():
            self._away = False
            logger.info("reached the store of limits again")


def _wire(claim: QuotaClaim) -> list[tuple[str, int, int, int, int]]:
    return [(q.subject, q.parallel, q.requests, q.tokens, q.day) for q in claim.quotas]


def _grants(batch: _Batch, text: bytes) -> Iterator[Grant]:
    """Parse the script's answer. Raises ValueError."""
    lines = text.split(b"\n") if text else []
    for (claim, _), line in zip(batch.waiters, lines, strict=True):
        granted, *numbers = map(float, line.split())
        if len(numbers) != 4 * len(claim.quotas):
            raise ValueError("the store's answer can't be read")
        parts = zip(*[iter(numbers)] * 4, strict=True)
        yield Grant(granted == 1, tuple(Balance(r, t, d, int(p)) for r, t, d, p in parts))

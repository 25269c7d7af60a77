"""Reserves a caller's tokens at the start of a request and settles them at its end."""

import asyncio
import itertools
import logging
import math
import secrets
from contextvars import Context
from typing import NamedTuple

from serve_app.access.caller import Caller
from serve_app.access.limits.days import Calendar
from serve_app.access.limits.estimate import Estimator
from serve_app.access.limits.memory import MemoryStore
from serve_app.access.limits.quotas import (
    LEASE_S,
    NO_STANDINGS,
    LimitKind,
    LimitRefusal,
    Quota,
    Standings,
    refusal,
    standings,
)
from serve_app.access.limits.store import QuotaClaim, Store, StoreAway
from serve_app.errors import Overloaded, RateLimited
from serve_app.limit_settings import Cost, LimitSettings, zone
from serve_app.model_names import short_name

logger = logging.getLogger("ray.serve")

_UNITS = {
    LimitKind.PARALLEL: "requests at the same time",
    LimitKind.REQUESTS: "requests a minute",
    LimitKind.TOKENS: "tokens a minute",
    LimitKind.DAY: "tokens a day",
}
_COST = Cost()


class Estimate(NamedTuple):
    """The expected tokens of a request. `prompt_bytes`: kept to learn from at its end."""

    model: str
    prompt_bytes: int
    prompt: float
    answer: float
    max_answer: int


class Reservation(NamedTuple):
    """The outcome of `Limiter.reserve`. A request without a claim is not counted.

    `refusal`: the limit that refuses the request, or would if limits were enforced.
    """

    claim: QuotaClaim | None = None
    standings: Standings = NO_STANDINGS
    refusal: LimitRefusal | None = None
    is_uncounted: bool = False  # the store is away


FREE = Reservation()


class Limiter:
    """Applies the limits of callers, by the counts in `store`."""

    def __init__(self, settings: LimitSettings, store: Store, calendar: Calendar) -> None:
        self._store = store
        self._calendar = calendar
        self._enforce = settings.enforce
        self._allow = settings.on_store_failure == "allow"
        self._max = settings.reserve == "max"
        self._costs = {short_name(name): cost for name, cost in settings.cost.items()}
        self._estimator = Estimator()
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._leases: dict[str, QuotaClaim] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def cost(self, model: str) -> Cost:
        """Return the weights of a model's tokens."""
        return self._costs.get(model, _COST)

    def estimate(self, caller: Caller, model: str, prompt_bytes: int, max_answer: int) -> Estimate:
        prompt = self._estimator.prompt(model, prompt_bytes)
        answer = self._estimator.answer(caller.name, model, max_answer)
        return Estimate(model, prompt_bytes, prompt, answer, max_answer)

    async def reserve(self, caller: Caller, estimate: Estimate) -> Reservation:
        """Reserve the expected tokens. Raises Overloaded when a store that must answer is away."""
        quotas = caller.quotas
        if not quotas:
            return FREE
        answer = estimate.max_answer if self._max else estimate.answer
        tokens = self.cost(estimate.model).of(estimate.prompt, answer)
        day = self._calendar.today()
        claim = QuotaClaim(quotas, tokens, self._lease(quotas), day.name)
        try:
            grant = await self._store.reserve(claim)
        except StoreAway as exc:
            if self._allow:
                return Reservation(is_uncounted=True)
            raise Overloaded("limits can't be checked at the moment, please try again", 1) from exc
        shown = standings(quotas, grant.balances, day.left_s)
        if grant.granted:
            if claim.lease:
                self._hold_lease(claim)
            return Reservation(claim, shown)
        return Reservation(None, shown, refusal(quotas, grant.balances, tokens, day.left_s))

    def refuses(self, reservation: Reservation) -> RateLimited | None:
        """Return the error for the caller of a refused request, None where limits only count."""
        refused = reservation.refusal
        return error(refused) if refused and self._enforce else None

    def settle(self, reservation: Reservation, tokens: float) -> None:
        """Count `tokens`, weighted by the model's cost, in place of the reserved ones."""
        if claim := reservation.claim:
            if claim.lease:
                del self._leases[claim.lease]
            self._store.settle(claim, claim.tokens - tokens)

    def refund(self, reservation: Reservation) -> None:
        """Return the whole reservation: no engine has worked on the request."""
        if claim := reservation.claim:
            if claim.lease:
                del self._leases[claim.lease]
            self._store.settle(claim, claim.tokens, 1)

    def learn(
        self, caller: Caller, estimate: Estimate, prompt: int | None, generated: int | None
    ) -> None:
        """Learn from an engine's counts."""
        if prompt:
            self._estimator.learn_prompt(estimate.model, estimate.prompt_bytes, prompt)
        if generated is not None and estimate.max_answer:
            self._estimator.learn_answer(caller.name, estimate.model, generated)

    def start(self) -> None:
        """Connect to the store. Needs a running event loop."""
        self._store.start()

    async def close(self) -> None:
        self._is_closed = True
        if self._timer:
            self._timer.cancel()
        await self._store.close()

    def _lease(self, quotas: tuple[Quota, ...]) -> str:
        """Return a lease where the caller has a limit of parallel requests, else ""."""
        for quota in quotas:
            if quota.parallel:
                return f"{self._process}{next(self._numbers):x}"
        return ""

    def _hold_lease(self, claim: QuotaClaim) -> None:
        self._leases[claim.lease] = claim
        if self._timer is None and not self._is_closed:
            self._renew_later()

    def _renew_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LEASE_S / 3, self._renew, context=Context())

    def _renew(self) -> None:
        self._timer = None
        if self._leases:
            self._store.renew(
                (quota.subject, lease)
                for lease, claim in self._leases.items()
                for quota in claim.quotas
                if quota.parallel
            )
            self._renew_later()


def error(refused: LimitRefusal) -> RateLimited:
    """Return the error for the caller of a refused request."""
    kind, quota = refused.kind, refused.quota
    limit = f"{quota.limit(kind)} {_UNITS[kind]} of {quota.owner}"
    counted = "tokens" if kind in (LimitKind.TOKENS, LimitKind.DAY) else "requests"
    if math.isinf(refused.wait_s):
        return RateLimited(
            f"this request needs about {refused.tokens:.0f} tokens and can never fit the limit of "
            f"{limit}: shorten the prompt or ask for fewer tokens",
            None,
            counted,
        )
    seconds = max(1, math.ceil(refused.wait_s))
    return RateLimited(
        f"the limit of {limit} is reached: try again in {seconds} s", seconds, counted
    )


def build_limiter(settings: LimitSettings) -> Limiter:
    """Build the limiter with the store that the settings name. Raises SettingsError."""
    return Limiter(settings, _store(settings), Calendar(zone(settings.timezone)))


def _store(settings: LimitSettings) -> Store:
    if settings.redis_url is None:
        return MemoryStore()
    # The library's import takes 50 ms.
    from serve_app.access.limits.redis import RedisStore
    from serve_app.access.limits.redis_connection import check_password_file, redis_client

    check_password_file(settings.redis_password_file)
    return RedisStore(
        redis_client(settings.redis_url.get_secret_value(), settings.redis_password_file)
    )

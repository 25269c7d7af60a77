"""The limits of one key or group, the state of its counts, and the arithmetic of both.

Requests and tokens a minute are buckets that hold one minute's worth and refill continuously. A
bucket may fall below zero: that is debt, which later requests wait out.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from serve_app.access.policies import Limits

MINUTE_S = 60.0
LEASE_S = 15.0  # when a parallel request's lease expires, unless renewed
# A running request may end at any time.
PARALLEL_WAIT_S = 1.0
# Sums of fractions are not exact: rounding must not refuse a caller that has waited long enough.
ROUNDING = 1e-6


class LimitKind(StrEnum):
    """A limit, by the name of its setting."""

    PARALLEL = "max_parallel"
    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    DAY = "tokens_per_day"


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of one key or group. 0: no limit.

    `subject`: identifies it in a store: `k:` and the name of a key, or `g:` and that of a group.
    """

    subject: str
    parallel: int = 0
    requests: int = 0
    tokens: int = 0
    day: int = 0

    @classmethod
    def of(cls, subject: str, limits: Limits) -> "Quota | None":
        """Return the quota of `limits`, None where there are none."""
        values = (
            limits.max_parallel or 0,
            limits.requests_per_minute or 0,
            limits.tokens_per_minute or 0,
            limits.tokens_per_day or 0,
        )
        subject = subject.encode("utf-8", "replace").decode()  # names may hold lone surrogates
        return cls(subject, *values) if any(values) else None

    def limit(self, kind: LimitKind) -> int:
        return {
            LimitKind.PARALLEL: self.parallel,
            LimitKind.REQUESTS: self.requests,
            LimitKind.TOKENS: self.tokens,
            LimitKind.DAY: self.day,
        }[kind]

    @property
    def owner(self) -> str:
        """The key or group in words, for a message to the caller."""
        kind, _, name = self.subject.partition(":")
        return f"the group {name}" if kind == "g" else f"the key {name}"


class Balance(NamedTuple):
    """The state of a quota: levels of its buckets, tokens of the day, running requests."""

    requests: float
    tokens: float
    today: float
    parallel: int


class Grant(NamedTuple):
    """A store's decision. `balances`: of each quota, after the reservation if it was granted."""

    granted: bool
    balances: tuple[Balance, ...]


class LimitRefusal(NamedTuple):
    """The limit that refuses a request. `wait_s`: infinite for a request that can never fit."""

    quota: Quota
    kind: LimitKind
    wait_s: float
    tokens: float  # needed by the request


def refusal(
    quotas: Sequence[Quota], balances: Sequence[Balance], tokens: float, day_left_s: float
) -> LimitRefusal | None:
    """Return the limit that makes the request wait longest, None if none does."""
    refusals = [
        LimitRefusal(quota, kind, wait_s, tokens)
        for quota, balance in zip(quotas, balances, strict=True)
        for kind, wait_s in _waits(quota, balance, tokens, day_left_s)
    ]
    return max(refusals, key=lambda one: one.wait_s, default=None)


def _waits(
    quota: Quota, balance: Balance, tokens: float, day_left_s: float
) -> Iterator[tuple[LimitKind, float]]:
    """Yield the limits that refuse a request of `tokens`, and the seconds until they don't."""
    if quota.requests and balance.requests + ROUNDING < 1:
        yield LimitKind.REQUESTS, (1 - balance.requests) * MINUTE_S / quota.requests
    if quota.tokens and balance.tokens + ROUNDING < tokens:
        fits_never = tokens > quota.tokens + ROUNDING
        wait_s = (tokens - balance.tokens) * MINUTE_S / quota.tokens
        yield LimitKind.TOKENS, math.inf if fits_never else wait_s
    if quota.day and balance.today + tokens > quota.day + ROUNDING:
        yield LimitKind.DAY, math.inf if tokens > quota.day + ROUNDING else day_left_s
    if quota.parallel and balance.parallel >= quota.parallel:
        yield LimitKind.PARALLEL, PARALLEL_WAIT_S


class Standing(NamedTuple):
    """A limit in the headers of an answer. `reset_s`: seconds until it is unused."""

    limit: int
    remaining: int
    reset_s: float


class Standings(NamedTuple):
    """The tightest limits of a caller. None: no such limit."""

    requests: Standing | None = None
    tokens: Standing | None = None


NO_STANDINGS = Standings()


def standings(quotas: Sequence[Quota], balances: Sequence[Balance], day_left_s: float) -> Standings:
    """Return the tightest limits of requests and tokens: those with the smallest rest."""
    min_requests = min_tokens = math.inf
    requests = tokens = 0
    is_day = False
    for quota, (left_requests, left_tokens, today, _) in zip(quotas, balances, strict=True):
        if quota.requests and left_requests < min_requests:
            min_requests, requests = left_requests, quota.requests
        if quota.tokens and left_tokens < min_tokens:
            min_tokens, tokens, is_day = left_tokens, quota.tokens, False
        if quota.day and quota.day - today < min_tokens:
            min_tokens, tokens, is_day = quota.day - today, quota.day, True
    day_s = day_left_s if is_day else None
    return Standings(
        _standing(requests, min_requests) if requests else None,
        _standing(tokens, min_tokens, day_s) if tokens else None,
    )


def _standing(limit: int, left: float, reset_s: float | None = None) -> Standing:
    """Return the standing of a limit, of a bucket's where no `reset_s` is given."""
    if reset_s is None:
        reset_s = (limit - left) * MINUTE_S / limit
    return Standing(limit, int(left + ROUNDING) if left > 0 else 0, reset_s)

"""A store of counts in this process: exact where the ingress has one replica."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from serve_app.access.limits.quotas import LEASE_S, MINUTE_S, ROUNDING, Balance, Grant, Quota
from serve_app.access.limits.store import QuotaClaim

# Subjects that are idle for so long are dropped; their buckets are full.
_IDLE_S = 2 * 86400.0
_SWEEP_ABOVE = 20_000


@dataclass(slots=True)
class _Counts:
    """The counts of one subject, changed in place: frozen values would take twice the time.

    `requests`, `tokens`: levels of the buckets at the time `at`, infinite where none was bounded.
    """

    at: float
    requests: float = inf
    tokens: float = inf
    days: dict[str, float] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)  # the time at which each expires

    def refill(self, quota: Quota, now: float) -> None:
        """Refill the buckets up to their capacity; a clock that went back adds nothing."""
        elapsed_s = now - self.at if now > self.at else 0.0
        self.at = now
        self.requests = _refilled(self.requests, quota.requests, elapsed_s)
        self.tokens = _refilled(self.tokens, quota.tokens, elapsed_s)
        if quota.parallel and self.leases:
            self.leases = {k: at for k, at in self.leases.items() if now < at <= now + LEASE_S}

    def has_room(self, quota: Quota, tokens: float, day: str) -> bool:
        """Tell whether one more request of `tokens` exceeds no limit."""
        return (
            self.requests + ROUNDING >= 1
            and self.tokens + ROUNDING >= tokens
            and (not quota.day or self.days.get(day, 0.0) + tokens <= quota.day + ROUNDING)
            and (not quota.parallel or len(self.leases) < quota.parallel)
        )

    def add(self, quota: Quota, tokens: float, requests: int, day: str) -> None:
        """Return tokens and requests, above the capacity until the next refill; or take them."""
        self.requests += requests
        self.tokens += tokens
        if quota.day:
            days = self.days
            left = days.get(day, 0.0) - tokens
            days[day] = left if left > 0 else 0.0
            if len(days) > 2:  # the first counted goes, even if the clock went back
                del days[next(iter(days))]

    def balance(self, quota: Quota, day: str, running: int) -> Balance:
        return Balance(
            self.requests if quota.requests else 0.0,
            self.tokens if quota.tokens else 0.0,
            self.days.get(day, 0.0) if quota.day else 0.0,
            running if quota.parallel else 0,
        )


def _refilled(level: float, capacity: int, elapsed_s: float) -> float:
    """Return a bucket's level after `elapsed_s`, infinite without a capacity."""
    if not capacity:
        return inf
    level += elapsed_s * capacity / MINUTE_S
    return level if level < capacity else capacity  # `min` would take four times as long


class MemoryStore:
    """Keeps counts in memory until the process ends. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, _Counts] = {}
        self._sweep_above = _SWEEP_ABOVE

    def start(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def reserve(self, claim: QuotaClaim) -> Grant:
        quotas, tokens, lease, day = claim
        now = self._clock()
        counted = []
        granted = True
        for quota in quotas:
            counts = self._of(quota.subject, now)
            counts.refill(quota, now)
            granted = granted and counts.has_room(quota, tokens, day)
            # The lease of the request itself is not in its balance.
            counted.append((quota, counts, len(counts.leases)))
        if granted:
            for quota, counts, _ in counted:
                counts.add(quota, -tokens, -1, day)
                if quota.parallel:
                    counts.leases[lease] = now + LEASE_S
        balances = [counts.balance(quota, day, running) for quota, counts, running in counted]
        return Grant(granted, tuple(balances))

    def settle(self, claim: QuotaClaim, tokens_back: float, requests_back: int = 0) -> None:
        now = self._clock()
        for quota in claim.quotas:
            counts = self._of(quota.subject, now)
            if quota.parallel:
                counts.leases.pop(claim.lease, None)
            counts.refill(quota, now)
            counts.add(quota, tokens_back, requests_back, claim.day)

    def renew(self, leases: Iterable[tuple[str, str]]) -> None:
        now = self._clock()
        for subject, lease in leases:
            self._of(subject, now).leases[lease] = now + LEASE_S

    async def close(self) -> None:
        """Do nothing: the counts end with the process."""

    def _of(self, subject: str, now: float) -> _Counts:
        counts = self._counts.get(subject)
        if counts is None:
            if len(self._counts) >= self._sweep_above:
                self._sweep(now)
            counts = self._counts[subject] = _Counts(now)
        return counts

    def _sweep(self, now: float) -> None:
        kept = {s: c for s, c in self._counts.items() if c.leases or now - c.at < _IDLE_S}
        self._counts = kept
        self._sweep_above = max(_SWEEP_ABOVE, 2 * len(kept))

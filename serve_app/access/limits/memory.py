"""A store of counts in this process: exact where the ingress has one replica."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic

from serve_app.access.limits.quotas import (
    LEASE_S,
    Balance,
    Grant,
    Quota,
    credited,
    is_within,
    refill,
)
from serve_app.access.limits.store import QuotaClaim

# Subjects that are idle for so long are dropped; their buckets are full.
_IDLE_S = 2 * 86400.0
_SWEEP_ABOVE = 20_000


@dataclass(slots=True)
class _Counts:
    """The counts of one subject. Levels are None before the first request."""

    at: float
    requests: float | None = None
    tokens: float | None = None
    days: dict[str, float] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)  # the time at which each expires

    def balance(self, quota: Quota, day: str, now: float) -> Balance:
        elapsed_s = now - self.at
        if elapsed_s < 0:  # the clock went back: count from here, or no bucket refills for long
            self.at = now
        requests, tokens = self.requests, self.tokens
        if quota.parallel and self.leases:
            self.leases = {k: at for k, at in self.leases.items() if now < at <= now + LEASE_S}
        return Balance(
            quota.requests if requests is None else refill(requests, quota.requests, elapsed_s),
            quota.tokens if tokens is None else refill(tokens, quota.tokens, elapsed_s),
            self.days.get(day, 0.0) if quota.day else 0.0,
            len(self.leases) if quota.parallel else 0,
        )

    def write(self, quota: Quota, balance: Balance, day: str, now: float) -> None:
        self.at = now
        self.requests = balance.requests if quota.requests else None
        self.tokens = balance.tokens if quota.tokens else None
        if quota.day:
            self.days[day] = balance.today
            if len(self.days) > 2:
                del self.days[
                    next(iter(self.days))
                ]  # the first counted, even if the clock went back


class MemoryStore:
    """Keeps counts in memory until the process ends. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, _Counts] = {}
        self._sweep_above = _SWEEP_ABOVE

    def start(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def reserve(self, claim: QuotaClaim) -> Grant:
        now, tokens, day = self._clock(), claim.tokens, claim.day
        states = []
        granted = True
        for quota in claim.quotas:
            counts = self._of(quota.subject, now)
            balance = counts.balance(quota, day, now)
            granted = granted and is_within(quota, balance, tokens)
            states.append((quota, counts, balance))
        if granted:
            return Grant(True, tuple([self._take(claim, *state, now) for state in states]))
        return Grant(False, tuple([balance for _, _, balance in states]))

    def _take(
        self, claim: QuotaClaim, quota: Quota, counts: _Counts, old: Balance, now: float
    ) -> Balance:
        if quota.parallel:
            counts.leases[claim.lease] = now + LEASE_S
        new = credited(quota, old, -claim.tokens, -1)
        counts.write(quota, new, claim.day, now)
        return new

    def settle(self, claim: QuotaClaim, tokens_back: float, requests_back: int = 0) -> None:
        now = self._clock()
        for quota in claim.quotas:
            counts = self._of(quota.subject, now)
            counts.leases.pop(claim.lease, None)
            old = counts.balance(quota, claim.day, now)
            counts.write(quota, credited(quota, old, tokens_back, requests_back), claim.day, now)

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

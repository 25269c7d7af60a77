"""The protocol of a store of counts."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from serve_app.access.limits.quotas import Grant, Quota


class StoreAway(Exception):
    """Raised when a store gives no decision in time. Its text names the cause."""


class QuotaClaim(NamedTuple):
    """One request's claim on the quotas of its caller, all or none.

    `tokens`: reserved. `lease`: identifies the request among all processes, "" if no quota bounds
    parallel requests. `day`: the calendar day that the request counts for.
    """

    quotas: tuple[Quota, ...]
    tokens: float
    lease: str
    day: str


class Store(Protocol):
    """Counts the use of keys and groups."""

    def start(self) -> None:
        """Connect, so that no request has to wait for that. Needs a running event loop."""

    async def reserve(self, claim: QuotaClaim) -> Grant:
        """Take the claim from every quota, or from none. Raises StoreAway."""

    def settle(self, claim: QuotaClaim, tokens_back: float, requests_back: int = 0) -> None:
        """Return tokens and requests of a granted claim, and end its lease.

        A negative `tokens_back` is use beyond the reservation.
        """

    def renew(self, leases: Iterable[tuple[str, str]]) -> None:
        """Extend leases, given as pairs of subject and lease."""

    async def close(self) -> None:
        """Write the pending counts, within a bound."""

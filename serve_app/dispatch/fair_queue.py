"""The order of every queue: a policy without a clock or an event loop.

Requests wait in bands by priority. The next request comes from the group of a band with the least
service per weight, from the key with the least in it, and is that key's oldest. A key without a
group counts as a group. If the place is at a replica, the key's oldest request whose prompt is
cached there goes before its other requests. Service is prompt tokens + 2 x generated tokens, as
llm-d counts it: reserved at the start, corrected at the end, halved every `half_life_s`. The ratio
of used to expected service of a key corrects the reservations of its later requests.

Instead of halving past service, new service doubles: at time t it counts 2 ** ((t - origin) /
half_life_s) times. So the order of the waiting requests changes only with events.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Self, TypeVar

from serve_app.dispatch.shares import Band, Share
from serve_app.dispatch.ticket import BANDS, Ticket
from serve_app.engines.base import Flow, Priority, Served
from serve_app.settings import Settings

T = TypeVar("T")

# Half-lives after which all service is converted to a new unit, before a float overflows.
_MAX_HALF_LIVES = 500.0
# The oldest requests of a key among which a replica's place finds one with its prompt there.
LOOK = 64
# How often a key's later requests may go before its oldest.
MAX_PASSED = 16


@dataclass(frozen=True, slots=True)
class Fairness:
    """The half-life of past service, and the wait after which batch counts as interactive."""

    half_life_s: float = 60.0
    aging_s: float = float("inf")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.fairness.half_life_s, settings.aging_s)


class FairQueue(Generic[T]):
    """The waiting requests, and the service of those that have started.

    A request takes O(log n) for n waiting keys; only `surplus` visits all of them.
    """

    def __init__(self, fairness: Fairness | None = None) -> None:
        self._fairness = fairness or Fairness()
        self._bands: tuple[Band[Ticket[T]], ...] = tuple(Band() for _ in Priority)
        self._batch: OrderedDict[Ticket[T], None] = OrderedDict()  # those that wait, by arrival
        self._by_key: dict[tuple[str, str], OrderedDict[Ticket[T], None]] = {}  # those that wait
        self._waiting = 0
        self._origin = 0.0
        self._served: dict[tuple[int, Flow], float] | None = None  # since the last take

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return self._waiting

    def tickets(self) -> Iterator[Ticket[T]]:
        """Yield the waiting requests, key by key."""
        for tickets in self._by_key.values():
            yield from tickets

    @property
    def known_keys(self) -> int:
        """The number of keys, by priority, whose service is remembered."""
        return sum(map(len, self._bands))

    def waiting_by_flow(self) -> dict[tuple[Priority, str, str], int]:
        """Return how many requests wait, by (priority, group, key). May run in any thread."""
        counts: Counter[tuple[Priority, str, str]] = Counter()
        for (group, key), tickets in list(self._by_key.items()):
            for ticket in list(tickets):
                counts[ticket.flow.priority, group, key] += 1
        return counts

    def waits_before(self, priority: Priority) -> bool:
        """Tell whether a request of this priority would have to wait for others."""
        if not self._waiting:
            return False  # the usual case, before every call of a gateway
        return any(band.next() for band in self._bands[: BANDS[priority] + 1])

    def start(self, ticket: Ticket[T], now: float) -> None:
        """Charge a request that starts without a wait."""
        ticket.arrived = now
        if ticket.flow.key or ticket.flow.group:
            ticket.share = self._bands[ticket.band].enter(ticket.flow)
            self._charge(ticket, ticket.share, now)

    def push(self, ticket: Ticket[T], now: float) -> None:
        """Let a request wait."""
        ticket.arrived = now
        ticket.waits = True
        self._waiting += 1
        self._by_key.setdefault(_key(ticket.flow), OrderedDict())[ticket] = None
        if ticket.is_batch:
            self._batch[ticket] = None
        self._enter_band(ticket)

    def pop(self, now: float, *, batch: bool = True, replica: str = "") -> Ticket[T] | None:
        """Start the request that is next, and return it; None where none waits.

        `batch`: whether it may be a batch request that has not waited for `aging_s`. `replica`: the
        one that has a place for it.
        """
        if not self._waiting:
            return None
        self._lift(now)
        ticket = self._next()
        if ticket is None or (ticket.is_batch and not batch):
            return None
        ticket = _suited(ticket, replica)
        self._charge(ticket, self._remove(ticket), now)
        return ticket

    def withdraw(self, ticket: Ticket[T]) -> None:
        """Remove a waiting request that was not served."""
        self._bands[ticket.band].exit(ticket.flow, self._remove(ticket))

    def end(self, ticket: Ticket[T], served: float | None = None) -> None:
        """Correct the service of a request that has ended. None: as it was reserved."""
        share = ticket.share
        if share is None:
            return
        unit = self._unit(ticket.started)
        used = ticket.reserved if served is None else served
        if self._served is not None and used:
            at = (ticket.band, ticket.flow)
            self._served[at] = self._served.get(at, 0.0) + used
        share.settle(ticket.reserved * unit, used * unit, ticket.weights)
        if served:  # else the engine has not worked on it
            share.learn(ticket.service, served)
        self._bands[ticket.band].exit(ticket.flow, share)

    def take_served(self) -> list[Served]:
        """Return the service of each key since the last call; the first call starts the count.

        It is the service of requests that have ended.
        """
        served, self._served = self._served or {}, {}
        return [
            Served(band, flow.group, flow.key, flow.weight, flow.group_weight, service)
            for (band, flow), service in served.items()
            if flow.key or flow.group
        ]

    def credit(self, served: Iterable[Served], at: float, now: float) -> None:
        """Count service of other queues from a time before `now`."""
        self._keep_in_range(now)
        unit = self._unit(at)
        for part in served:
            band = self._bands[part.band]
            flow = Flow(part.key, part.group)
            share = band.enter(flow)
            weights = (part.weight, part.group_weight) if part.group else (part.weight,)
            share.add(part.service * unit, weights)
            band.exit(flow, share)

    def surplus(self, flow: Flow | None = None) -> Ticket[T] | None:
        """Return the request to refuse when one of `flow` arrives at a full queue.

        It is the newest request, in the least urgent band, of the key with the most waiting
        requests; None: the arriving one. Between equal keys, the one with the least urgent request
        loses.
        """
        tickets = max(self._by_key.values(), key=_claim, default=None)
        if tickets is None or flow is None:
            return _newest(tickets) if tickets else None
        own = self._by_key.get(_key(flow), OrderedDict())
        if _claim(tickets) > (len(own) + 1, BANDS[flow.priority]):
            return _newest(tickets)
        loser = _newest(own) if own else None
        return loser if loser and loser.band > BANDS[flow.priority] else None

    def _next(self) -> Ticket[T] | None:
        for band in self._bands:
            if ticket := band.next():
                return ticket
        return None

    def _lift(self, now: float) -> None:
        """Move batch requests that have waited for `aging_s` to the most urgent band."""
        while self._batch:
            ticket = next(iter(self._batch))
            if now - ticket.arrived < self._fairness.aging_s:
                return
            del self._batch[ticket]
            self._bands[ticket.band].exit(ticket.flow, self._leave_band(ticket))
            ticket.band = 0
            self._enter_band(ticket)

    def _enter_band(self, ticket: Ticket[T]) -> None:
        share = ticket.share = self._bands[ticket.band].enter(ticket.flow)
        if not share.tickets:
            share.join()
            share.wait()
        share.tickets[ticket] = None

    def _leave_band(self, ticket: Ticket[T]) -> Share[Ticket[T]]:
        share = ticket.share
        assert share  # a request that waits has one
        del share.tickets[ticket]
        if not share.tickets:
            share.leave()
        return share

    def _remove(self, ticket: Ticket[T]) -> Share[Ticket[T]]:
        self._waiting -= 1
        ticket.waits = False
        key = _key(ticket.flow)
        del self._by_key[key][ticket]
        if not self._by_key[key]:
            del self._by_key[key]
        if ticket.is_batch:
            del self._batch[ticket]
        return self._leave_band(ticket)

    def _charge(self, ticket: Ticket[T], share: Share[Ticket[T]], now: float) -> None:
        self._keep_in_range(now)
        ticket.started = now
        ticket.reserved = ticket.service * share.ratio
        share.reserve(ticket.reserved * self._unit(now), ticket.weights)

    def _unit(self, at: float) -> float:
        """Return the weight of a token that is served at this time."""
        return float(2.0 ** ((at - self._origin) / self._fairness.half_life_s))

    def _keep_in_range(self, now: float) -> None:
        """Rescale all service to the present unit before its numbers become too large."""
        if now - self._origin <= _MAX_HALF_LIVES * self._fairness.half_life_s:
            return
        factor = 2.0 ** ((self._origin - now) / self._fairness.half_life_s)
        self._origin = now
        for band in self._bands:
            band.rescale(factor)


def _key(flow: Flow) -> tuple[str, str]:
    return flow.group, flow.key


def _suited(oldest: Ticket[T], replica: str) -> Ticket[T]:
    """Return the key's oldest request with its prompt cached at the replica, else the oldest."""
    if oldest.is_at_home(replica) or oldest.passed >= MAX_PASSED:
        return oldest
    assert oldest.share  # a request that waits has one
    for ticket in islice(oldest.share.tickets, 1, LOOK):
        if ticket.is_at_home(replica):
            oldest.passed += 1
            return ticket
    return oldest


def _newest(tickets: OrderedDict[Ticket[T], None]) -> Ticket[T]:
    """Return the newest of the least urgent band."""
    return max(reversed(tickets), key=lambda ticket: ticket.band)


def _claim(tickets: OrderedDict[Ticket[T], None]) -> tuple[int, int]:
    return len(tickets), next(reversed(tickets)).band

"""Counts the service of one band's keys and groups; finds the waiting one with the least.

A band is a tree: its children are groups, and keys without a group; a group's children are keys.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

from serve_app.dispatch.ranking import Ranking
from serve_app.engines.base import Flow

T = TypeVar("T")

# Share of the newest request in a key's ratio of used to expected service.
_NEWEST = 0.1
# Keys without a request, in one band, whose service is remembered.
MAX_IDLE = 1024


class Share(Generic[T]):
    """The service of a key, a group, or a band, per weight.

    `used`: of requests that have ended. `reserved`: of those that run.
    `ratio`: the service that a key's recent requests used, over the service expected of them.
    `level`: the service of the child that started last: it had used the least.
    """

    __slots__ = (
        "level",
        "open",
        "parent",
        "path",
        "ratio",
        "reserved",
        "tickets",
        "used",
        "waiting",
        "waits",
    )

    def __init__(self, parent: "Share[T] | None" = None) -> None:
        self.parent: Share[T] = parent or self  # a band is its own
        self.path: tuple[Share[T], ...] = (self, *parent.path) if parent else ()
        self.used = self.reserved = self.level = 0.0
        self.ratio = 1.0
        self.waits = False  # it has requests that wait
        self.open = 0  # of a key: its requests; of a group: its keys
        self.tickets: OrderedDict[T, None] = OrderedDict()  # of a key: its requests that wait
        self.waiting: Ranking[Share[T]] = Ranking()  # children that wait

    def join(self) -> None:
        """Begin level with the waiting children, else the running ones: idling earns no credit."""
        for share in self.path:
            lowest = share.parent.waiting.lowest()
            level = lowest.used if lowest else share.parent.level
            if share.used < level and not share.waits:
                share.used = level

    def wait(self) -> None:
        """Count among the waiting children, with its group."""
        for share in self.path:
            if share.waits:
                break
            share.waits = True
            share.rank()

    def rank(self) -> None:
        self.parent.waiting.put(self, self.used + self.reserved)

    def leave(self) -> None:
        """Stop counting among the waiting children; so does a group without a waiting key."""
        for share in self.path:
            share.waits = False
            share.parent.waiting.remove(share)
            if share.parent.waiting:
                break

    def reserve(self, service: float, weights: tuple[float, ...]) -> None:
        """Add the expected service of a request that starts."""
        for share, weight in zip(self.path, weights, strict=True):
            parent = share.parent
            if share.used > parent.level:
                parent.level = share.used
            share.reserved += service / weight
            if share.waits:
                share.rank()

    def settle(self, reserved: float, used: float, weights: tuple[float, ...]) -> None:
        """Replace the expected service of a request that has ended by the service used."""
        for share, weight in zip(self.path, weights, strict=True):
            left = share.reserved - reserved / weight
            share.reserved = left if left > 0 else 0.0
            share.used += used / weight
            if share.waits:
                share.rank()

    def add(self, service: float, weights: tuple[float, ...]) -> None:
        """Count service that another queue has given."""
        for share, weight in zip(self.path, weights, strict=True):
            share.used += service / weight
            if share.waits:
                share.rank()

    def learn(self, expected: float, used: float) -> None:
        """Correct later expectations by the service that a request used."""
        self.ratio += _NEWEST * (used / expected - self.ratio)

    def rescale(self, factor: float) -> None:
        self.used *= factor
        self.reserved *= factor
        self.level *= factor
        self.waiting.rescale(factor)


class Band(Generic[T]):
    """The shares of one priority. Memory: those with requests, and MAX_IDLE keys without."""

    def __init__(self) -> None:
        self._root: Share[T] = Share()
        self._groups: dict[str, Share[T]] = {}
        self._keys: dict[tuple[str, str], Share[T]] = {}
        self._idle: OrderedDict[tuple[str, str], None] = OrderedDict()  # longest idle first

    def __len__(self) -> int:
        return len(self._keys)

    def next(self) -> T | None:
        """Return the request that is next, or None where none waits."""
        share = self._root
        while child := share.waiting.lowest():
            share = child
        return next(iter(share.tickets), None)

    def enter(self, flow: Flow) -> Share[T]:
        """Return the key's share, with one request more."""
        name = (flow.group, flow.key)
        share = self._keys.get(name)
        if share is None:
            share = self._keys[name] = Share(self._parent(flow.group))
            share.parent.open += 1
        elif not share.open:
            del self._idle[name]
        if not share.open:
            share.join()
        share.open += 1
        return share

    def _parent(self, group: str) -> Share[T]:
        if not group:
            return self._root
        if group not in self._groups:
            self._groups[group] = Share(self._root)
        return self._groups[group]

    def exit(self, flow: Flow, share: Share[T]) -> None:
        """Take one request back; forget the key that has been idle for longest."""
        share.open -= 1
        if share.open:
            return
        share.reserved = 0.0  # removes rounding errors
        self._idle[flow.group, flow.key] = None
        if len(self._idle) > MAX_IDLE:
            self._forget(self._idle.popitem(last=False)[0])

    def _forget(self, name: tuple[str, str]) -> None:
        parent = self._keys.pop(name).parent
        parent.open -= 1
        if not parent.open and parent is not self._root:
            del self._groups[name[0]]

    def rescale(self, factor: float) -> None:
        for share in (self._root, *self._groups.values(), *self._keys.values()):
            share.rescale(factor)

"""Keeps items by value and finds the lowest, while values change."""

import heapq
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Ranking(Generic[T]):
    """Items with values; of equal items the oldest comes first.

    Every method takes O(log n), amortised. Outdated entries stay in the heap until they come up or
    outnumber the others.
    """

    __slots__ = ("_entries", "_heap", "_numbers")

    def __init__(self) -> None:
        self._entries: dict[T, tuple[float, int, T]] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: T) -> bool:
        return item in self._entries

    def put(self, item: T, value: float) -> None:
        """Add an item, or give it another value."""
        entry = self._entries[item] = (value, next(self._numbers), item)
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + 16:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def remove(self, item: T) -> None:
        """Raises KeyError for an item that is not there."""
        del self._entries[item]

    def lowest(self) -> T | None:
        """Return the item with the lowest value, or None where there is none."""
        heap, entries = self._heap, self._entries
        while heap and entries.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def rescale(self, factor: float) -> None:
        """Multiply every value, which leaves the order as it is. `factor`: above 0."""
        self._entries = {
            item: (value * factor, number, item)
            for item, (value, number, _) in self._entries.items()
        }
        self._heap = list(self._entries.values())
        heapq.heapify(self._heap)

"""A ledger in the memory of this process."""

from collections.abc import Sequence
from copy import copy

from serve_app.access.usage.totals import MAX_ROWS, OTHERS, Row, Totals, Use


class MemoryLedger:
    """Keeps totals of the last `keep_days` days with use."""

    def __init__(self, keep_days: int, max_rows: int = MAX_ROWS) -> None:
        self._keep_days = keep_days
        self._max_rows = max_rows
        self._days: dict[str, Totals] = {}

    def add(self, row: Row, use: Use) -> None:
        totals = self._days.get(row.day)
        if totals is None:
            totals = self._begin(row.day)
        total = totals.get(row)
        if total is None:
            if len(totals) >= self._max_rows:
                row = Row(row.day, OTHERS, OTHERS, OTHERS)
            total = totals.setdefault(row, Use())
        total.add(use)

    def _begin(self, day: str) -> Totals:
        totals = self._days[day] = {}
        for old in sorted(self._days)[: -self._keep_days]:
            del self._days[old]
        return totals

    @property
    def days(self) -> list[str]:
        """The days with use."""
        return list(self._days)

    async def read(self, days: Sequence[str]) -> Totals:
        return {row: copy(use) for day in days for row, use in self._days.get(day, {}).items()}

    async def close(self) -> None:
        """Do nothing: all totals are in memory."""

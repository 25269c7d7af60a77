"""Totals of use: their rows, their sums, and the groups of rows."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from io import StringIO
from typing import Any, NamedTuple, Protocol, Self

from serve_app.limit_settings import Cost

# Rows of one day. Further names share a row, so that no caller can make a ledger grow.
MAX_ROWS = 100_000
OTHERS = "(others)"


class Row(NamedTuple):
    """The subject of a total. `day`: such as `2026-11-30`, in the time zone of the limits."""

    day: str
    key: str
    group: str
    model: str


@dataclass(slots=True)
class Use:
    """Requests and tokens. `prompt_tokens` includes `cached_tokens`.

    `estimated_requests`: those whose engine gave no counts, so that their tokens are estimates.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    estimated_requests: int = 0

    def add(self, other: Self) -> None:
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTERS = tuple(field.name for field in fields(Use))
WEIGHTED = "weighted_tokens"  # as limits count them
Totals = dict[Row, Use]


class Ledger(Protocol):
    """Keeps totals by row for a number of days."""

    def add(self, row: Row, use: Use) -> None:
        """Add to a total; must neither block nor raise."""

    async def read(self, days: Sequence[str]) -> Totals:
        """Return the totals of these days. Raises LedgerAway."""

    async def close(self) -> None:
        """Write the pending sums, within a bound."""


class LedgerAway(Exception):
    """Raised when a ledger can't be read. Its text names the cause."""


def days_between(since: date, until: date) -> list[str]:
    """Return the names of the days, both included."""
    return [(since + timedelta(n)).isoformat() for n in range((until - since).days + 1)]


def grouped(totals: Totals, by: Sequence[str], cost: Callable[[str], Cost]) -> list[dict[str, Any]]:
    """Return one record for each group of rows that are equal in the fields `by`.

    A record holds the fields in `by`, the counters, and their tokens weighed by the `cost` that a
    model has now.
    """
    sums: dict[tuple[str, ...], Use] = {}
    weighted: defaultdict[tuple[str, ...], float] = defaultdict(int)
    for row, use in totals.items():
        names = tuple(getattr(row, name) for name in by)
        sums.setdefault(names, Use()).add(use)
        weighted[names] += cost(row.model).of(
            use.prompt_tokens, use.generated_tokens, use.cached_tokens
        )
    return [
        dict(zip(by, names, strict=True))
        | {name: getattr(use, name) for name in COUNTERS}
        | {WEIGHTED: round(weighted[names], 3)}
        for names, use in sorted(sums.items())
    ]


def as_csv(records: Iterable[dict[str, Any]], by: Sequence[str]) -> str:
    """Return the records as CSV with a line of names."""
    text = StringIO()
    writer = csv.DictWriter(text, [*by, *COUNTERS, WEIGHTED], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Quote a text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value

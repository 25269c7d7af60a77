"""Whether a generator measured the server or itself. Pure functions.

A run that fails here is not averaged in, not planned from and not shown without the reason. What
the server did (refused, was slow, let arrivals find no free virtual user) is never a reason.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serve_app.capacity.results.request_records import Record, Run
from serve_app.capacity.results.statistics import quantile


@dataclass(frozen=True, slots=True)
class Limits:
    """`late_s`: 99 of 100 requests must be sent within this time of their intended start. It is a
    tenth of a bound of 1 s on the time to first token. `cpu_share`: of what one process of the
    generator can use; above it, its own queueing is in the figures."""

    late_s: float = 0.1
    cpu_share: float = 0.85


DEFAULT = Limits()


def judged(run: Run, records: Sequence[Record], limits: Limits = DEFAULT) -> Run:
    """The run with all reasons against it, those that it knows already included."""
    new_reasons = (reason for reason in reasons(run, records, limits) if reason not in run.invalid)
    return replace(run, invalid=(*run.invalid, *new_reasons))


def reasons(run: Run, records: Sequence[Record], limits: Limits = DEFAULT) -> Iterator[str]:
    """Why the figures say less of the server than of the generator."""
    if not any(record.started for record in records):
        yield "no request was sent"
    yield from _late(records, limits)
    yield from _bound(run, limits)
    yield from _short_of_users(run, records)


def _late(records: Sequence[Record], limits: Limits) -> Iterator[str]:
    late = quantile([r.lateness for r in records if r.lateness is not None], 0.99)
    if late > limits.late_s:
        yield (
            f"the generator was late: 1 in 100 requests was sent {late:.3g} s or more after its "
            f"intended start (limit {limits.late_s:g} s)"
        )


def _bound(run: Run, limits: Limits) -> Iterator[str]:
    if run.cpu_share is not None and run.cpu_share > limits.cpu_share:
        yield (
            f"the generator was bound by its own CPU: {run.cpu_share:.0%} of what a process of it "
            f"can use (limit {limits.cpu_share:.0%})"
        )


def _short_of_users(run: Run, records: Sequence[Record]) -> Iterator[str]:
    """Dropped arrivals are the server's doing only if all that may wait could have waited."""
    if not run.dropped or run.max_virtual_users is None or run.timeout_s is None:
        return
    needed = busiest(records, run.timeout_s)
    if run.max_virtual_users < needed:
        yield (
            f"{run.dropped} arrivals found no virtual user: there were {run.max_virtual_users}, "
            f"and up to {needed} arrive within the time-out of {run.timeout_s:g} s"
        )


def busiest(records: Sequence[Record], seconds: float) -> int:
    """Most arrivals in any window of so many seconds: rate x time-out, at the peak."""
    times = sorted(record.intended for record in records)
    return max((bisect_left(times, at + seconds) - i for i, at in enumerate(times)), default=0)

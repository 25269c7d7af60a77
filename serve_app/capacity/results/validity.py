"""Checks whether a load generator measured the server or itself. Pure functions.

An invalid run is not averaged, not used for plans and not shown without the reason. Behaviour of
the server (it refuses, is slow, or keeps all virtual users busy) never makes a run invalid.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serve_app.capacity.results.request_records import Record, Run
from serve_app.capacity.results.statistics import quantile


@dataclass(frozen=True, slots=True)
class ValidityLimits:
    """Limits of a valid run.

    `late_s`: 99 of 100 requests must be sent within this time of their intended start; a tenth of
    a usual bound of 1 s on TTFT. `cpu_share`: the share of one core that the busiest process may
    use; above it, queueing in the generator distorts the figures.
    """

    late_s: float = 0.1
    cpu_share: float = 0.85


DEFAULT = ValidityLimits()


def judged(run: Run, records: Sequence[Record], limits: ValidityLimits = DEFAULT) -> Run:
    """Add the reasons against a run to those that it already has."""
    new_reasons = (reason for reason in reasons(run, records, limits) if reason not in run.invalid)
    return replace(run, invalid=(*run.invalid, *new_reasons))


def reasons(run: Run, records: Sequence[Record], limits: ValidityLimits = DEFAULT) -> Iterator[str]:
    """Yield the reasons why the figures describe the generator and not the server."""
    if not any(record.started for record in records):
        yield "no request was sent"
    yield from _late(records, limits)
    yield from _bound(run, limits)
    yield from _short_of_users(run, records)


def _late(records: Sequence[Record], limits: ValidityLimits) -> Iterator[str]:
    late = quantile([r.lateness for r in records if r.lateness is not None], 0.99)
    if late > limits.late_s:
        yield (
            f"the generator was late: 1 in 100 requests was sent {late:.3g} s or more after its "
            f"intended start (limit {limits.late_s:g} s)"
        )


def _bound(run: Run, limits: ValidityLimits) -> Iterator[str]:
    if run.cpu_share is not None and run.cpu_share > limits.cpu_share:
        yield (
            f"the generator was short of CPU: its busiest process used {run.cpu_share:.0%} of what "
            f"it can use (limit {limits.cpu_share:.0%})"
        )


def _short_of_users(run: Run, records: Sequence[Record]) -> Iterator[str]:
    """Blame the generator for dropped arrivals if it had fewer users than requests may wait."""
    if not run.dropped or run.max_virtual_users is None or run.timeout_s is None:
        return
    needed = busiest(records, run.timeout_s)
    if run.max_virtual_users < needed:
        yield (
            f"{run.dropped} arrivals were dropped although {run.max_virtual_users} virtual users "
            f"are fewer than the {needed} requests that arrive within the time-out of "
            f"{run.timeout_s:g} s"
        )


def busiest(records: Sequence[Record], seconds: float) -> int:
    """Return the maximum number of arrivals in any window of `seconds`."""
    times = sorted(record.intended for record in records)
    return max((bisect_left(times, at + seconds) - i for i, at in enumerate(times)), default=0)

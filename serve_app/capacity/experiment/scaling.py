"""The response of replicas to the load: pure functions of samples, records and the shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve_app.capacity.results.cluster_samples import Sample
from serve_app.capacity.results.request_records import Record
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.results.statistics import counted_records
from serve_app.capacity.workload.shapes import Shape

WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Rise:
    """A span in which the load grows: begin and end, and the levels at both."""

    begin: float
    end: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReplicaStep:
    """The n-th replica: seconds from the rise's begin until it was wanted and until it served."""

    replicas: int
    wanted_s: float
    running_s: float | None


@dataclass(frozen=True, slots=True)
class ScalingResponse:
    """The reaction to one rise of the load, in seconds from its begin.

    `slo_lost_s`: when the SLO was first missed, None if never. `slo_met_s`: when it was met again
    until the next rise, None if never.
    """

    rise: Rise
    steps: tuple[ReplicaStep, ...]
    slo_lost_s: float | None
    slo_met_s: float | None


def rises(shape: Shape) -> list[Rise]:
    """Return the spans of a shape in which the level grows, in order."""
    growths: list[Rise] = []
    for (begin, low), (end, high) in pairwise(shape.points):
        if high <= low:
            continue
        if growths and growths[-1].end == begin:
            begin, low = growths[-1].begin, growths.pop().low
        growths.append(Rise(begin, end, low, high))
    return growths


def responses(
    begins: Sequence[Rise], samples: Sequence[Sample], records: Sequence[Record], slo: Slo
) -> list[ScalingResponse]:
    """Compute the response to each rise until the next one; `begins` in Unix seconds."""
    ends = [rise.begin for rise in begins[1:]] + [float("inf")]
    missed = list(missed_windows(records, slo))
    return [
        ScalingResponse(
            rise,
            tuple(_steps(rise, [s for s in samples if rise.begin <= s.at < end])),
            *_slo(rise, [w for w in missed if rise.begin <= w < end], end, records),
        )
        for rise, end in zip(begins, ends, strict=True)
    ]


def _steps(rise: Rise, samples: Sequence[Sample]) -> Iterator[ReplicaStep]:
    if not samples:
        return
    for number in range(samples[0].target + 1, max(s.target for s in samples) + 1):
        wanted_at = next(s.at for s in samples if s.target >= number)
        served = next((s.at for s in samples if s.running >= number), None)
        yield ReplicaStep(
            number, wanted_at - rise.begin, None if served is None else max(0, served - rise.begin)
        )


def _slo(
    rise: Rise, missed: Sequence[float], end: float, records: Sequence[Record]
) -> tuple[float | None, float | None]:
    if not missed:
        return None, None
    met_at = missed[-1] + 1.0
    last = max((r.intended for r in records if r.intended < end), default=met_at)
    return missed[0] - rise.begin, met_at - rise.begin if met_at < last else None


def missed_windows(records: Sequence[Record], slo: Slo) -> Iterator[float]:
    """Yield the whole seconds whose window misses the SLO.

    The window holds the requests intended in the `WINDOW_S` before the second's end. It misses the
    SLO if fewer of them met every bound than its lowest percentile requires.
    """
    counted = sorted(counted_records(records), key=lambda record: record.intended)
    if not counted:
        return
    share = min((b.quantile for b in slo.bounds if b.quantile), default=1.0)
    met_at = [slo.met_by(record) for record in counted]
    times = [record.intended for record in counted]
    low = high = 0
    second = times[0]
    while second <= times[-1]:
        while high < len(times) and times[high] < second + 1:
            high += 1
        while times[low] < second + 1 - WINDOW_S:
            low += 1
        if high > low and sum(met_at[low:high]) < share * (high - low):
            yield second
        second += 1


def changes(samples: Sequence[Sample]) -> list[tuple[float, int]]:
    """Return the times and amounts of changes of the target."""
    return [
        (after.at, after.target - before.target)
        for before, after in pairwise(samples)
        if after.target != before.target
    ]


def flaps(samples: Sequence[Sample], shape: Shape | None) -> int:
    """Count the reversals of the target beyond those of the shape.

    A load that goes up and down has one reversal.
    """
    turns = _reversals([change for _, change in changes(samples)])
    levels = [level for _, level in shape.points] if shape else []
    steps = [high - low for low, high in pairwise(levels) if high != low]
    # A constant shape also goes up and down, at its ends.
    return max(0, turns - max(1, _reversals(steps)))


def _reversals(steps: Sequence[float]) -> int:
    return sum((before > 0) != (after > 0) for before, after in pairwise(steps))

"""The schedule of k6's arrival-rate executor. Pure functions.

k6 starts or drops an iteration when the area under the rate reaches 1, 2, 3, …. It reports the
number of dropped iterations but not which: those are due times without a start nearby.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from serve_app.capacity.workload.shapes import Shape

# k6 stamps starts in whole milliseconds.
_TICK_S = 0.002


def schedule(shape: Shape, until_s: float) -> list[float]:
    """Return the due times in seconds from the start, up to the shape's end or `until_s`."""
    return list(_due(shape, until_s))


def _due(shape: Shape, until_s: float) -> Iterator[float]:
    for number in count(1):
        at = shape.when(number)
        if at > min(until_s, shape.seconds):
            return
        yield at


def head_start(due: Sequence[float], starts: Sequence[float]) -> float:
    """Return the seconds from the start that k6 reports to the start of its schedule.

    k6 initialises its users in between. No iteration starts before it is due, so the smallest
    difference is the best estimate; dropped iterations only increase the others.
    """
    return min((start - at for at, start in zip(due, starts, strict=False)), default=0.0)


@dataclass(frozen=True, slots=True)
class Matched:
    """Due times. `intended`: that of each start, in order. `missing`: those without a start."""

    intended: list[float]
    missing: list[float]


def match(due: Sequence[float], starts: Sequence[float]) -> Matched:
    """Match starts to due times, both in order; as many due times are missing as there are more."""
    spare = max(0, len(due) - len(starts))
    matched, missing, place = [], [], 0
    for start in starts:
        while spare and place + 1 < len(due) and due[place + 1] <= start + _TICK_S:
            missing.append(due[place])
            place, spare = place + 1, spare - 1
        # More starts than due times: rounding at the very end
        matched.append(due[place] if place < len(due) else start)
        place += 1
    return Matched(matched, [*missing, *due[place:]])

"""When k6's arrival-rate executor is due to start iterations. Pure functions.

k6 starts an iteration when the area under the rate reaches 1, 2, 3, …, or drops it. It says how
many it dropped, not which: those that no start lies near.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from serve_app.capacity.workload.shapes import Shape

# k6's clock and ours in one place: starts are stamped in whole milliseconds.
_TICK_S = 0.002


def schedule(shape: Shape, until_s: float) -> list[float]:
    """Seconds from the scenario's start, up to the end of the shape or to `until_s`."""
    return list(_due(shape, until_s))


def _due(shape: Shape, until_s: float) -> Iterator[float]:
    for number in count(1):
        at = shape.when(number)
        if at > min(until_s, shape.seconds):
            return
        yield at


def head_start(due: Sequence[float], starts: Sequence[float]) -> float:
    """Seconds between the start that k6 names and the schedule's: it wakes its users in between.

    No iteration starts before it is due; one that was dropped before it only makes it seem later.
    """
    return min((start - at for at, start in zip(due, starts, strict=False)), default=0.0)


@dataclass(frozen=True, slots=True)
class Matched:
    """`intended` of each start, in order; `missing`: due times that nothing started at."""

    intended: list[float]
    missing: list[float]


def match(due: Sequence[float], starts: Sequence[float]) -> Matched:
    """Both in order. As many due times are passed over as there are too many, no more."""
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

"""Shapes of load: a level over time, linear between points.

The level is arrivals per second of an open load, and users of a closed one.
"""

import bisect
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

from serve_app.capacity.workload.text import WorkloadError, pairs, parse_number

HELP = """\
constant:level=5,hold=1m | ramp:to=10,up=1m,hold=5m,down=1m | step:low=1,high=6,before=30s,hold=2m |
spike:base=1,peak=10,before=1m,hold=15s,after=2m | soak:level=2,hold=1h |
diurnal:mean=5,peak=9,period=24h | points:0s=1,30s=6,90s=6"""


@dataclass(frozen=True)
class Shape:
    """A level over time. `points` are (second, level) in order; two at one second are a jump."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [at for at, _ in self.points]
        if len(times) < 2 or times != sorted(times) or times[0] != 0 or times[-1] <= 0:
            raise WorkloadError(
                f"{self}: a shape needs at least two points in order of time, the first at 0 s"
            )
        if min(level for _, level in self.points) < 0:
            raise WorkloadError(f"{self}: a level must be at least 0")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse one of the forms in `HELP`. Raises WorkloadError with the correct form."""
        name, _, options = text.partition(":")
        if name == "points":
            return cls(
                tuple((parse_number(at), parse_number(level)) for at, level in pairs(options))
            )
        if name not in _NAMED:
            raise WorkloadError(f"unknown shape {name!r}; use one of {', '.join(_NAMED)} or points")
        known = inspect.signature(_NAMED[name]).parameters
        values = {key or next(iter(known)): parse_number(value) for key, value in pairs(options)}
        try:
            return cls(tuple(_NAMED[name](**values)))
        except TypeError:
            form = ",".join(f"{option.name}={_default(option)}" for option in known.values())
            raise WorkloadError(f"{text!r} has wrong options; write {name}:{form}") from None

    @property
    def seconds(self) -> float:
        return self.points[-1][0]

    @property
    def peak(self) -> float:
        return max(level for _, level in self.points)

    @property
    def total(self) -> float:
        """The area under the shape: the expected number of arrivals."""
        return self._areas[-1]

    @property
    def mean(self) -> float:
        return self.total / self.seconds

    def at(self, second: float) -> float:
        """Return the level at a second; 0 outside. At a jump, the level after it."""
        if not 0 <= second <= self.seconds:
            return 0.0
        index = min(bisect.bisect_right(self._times, second), len(self.points) - 1)
        (begin, low), (end, high) = self.points[index - 1], self.points[index]
        return low + (high - low) * (second - begin) / (end - begin) if end > begin else high

    def when(self, area: float) -> float:
        """Return the second at which the area under the shape reaches `area`; else inf."""
        if area > self.total:
            return math.inf
        index = max(1, bisect.bisect_left(self._areas, area))
        (begin, low), (end, high) = self.points[index - 1], self.points[index]
        rest = area - self._areas[index - 1]
        slope = (high - low) / (end - begin) if end > begin else 0.0
        # The root of low*t + slope*t²/2 = rest, in the form that loses no digits where slope is 0.
        root = math.sqrt(max(0.0, low * low + 2 * slope * rest))
        return min(end, begin + (2 * rest / (low + root) if rest else 0.0))

    def scaled(self, level: float = 1.0, time: float = 1.0) -> Self:
        return type(self)(tuple((at * time, high * level) for at, high in self.points))

    def __str__(self) -> str:
        return "points:" + ",".join(f"{at:g}s={level:g}" for at, level in self.points)

    @cached_property
    def _times(self) -> list[float]:
        return [at for at, _ in self.points]

    @cached_property
    def _areas(self) -> list[float]:
        areas = [0.0]
        for (begin, low), (end, high) in pairwise(self.points):
            areas.append(areas[-1] + (low + high) / 2 * (end - begin))
        return areas


def _default(parameter: inspect.Parameter) -> str:
    return "…" if parameter.default is parameter.empty else f"{parameter.default:g}"


Points = list[tuple[float, float]]


def constant(level: float, hold: float = 60) -> Points:
    return [(0, level), (hold, level)]


def soak(level: float, hold: float = 3600) -> Points:
    return constant(level, hold)


def ramp(to: float, up: float = 60, hold: float = 300, down: float = 60, low: float = 0) -> Points:
    """Return a rise, a constant level and a fall."""
    return [(0, low), (up, to), (up + hold, to), (up + hold + down, low)]


def step(low: float, high: float, before: float = 60, hold: float = 300) -> Points:
    return [(0, low), (before, low), (before, high), (before + hold, high)]


def spike(
    base: float, peak: float, before: float = 60, hold: float = 15, after: float = 120
) -> Points:
    """Return a base level with a sudden peak."""
    over = before + hold
    high = [(before, base), (before, peak), (over, peak), (over, base)]
    return [(0, base), *high, (over + after, base)]


def diurnal(
    mean: float, peak: float, period: float = 86400, periods: float = 1, pieces: float = 96
) -> Points:
    """Return a sine from trough to trough, in `pieces` straight lines per period."""
    count = round(pieces * periods)
    swing = peak - mean
    return [
        (period * i / pieces, max(0.0, mean - swing * math.cos(2 * math.pi * i / pieces)))
        for i in range(count + 1)
    ]


_NAMED: dict[str, Callable[..., Points]] = {
    shape.__name__: shape for shape in (constant, ramp, step, spike, soak, diurnal)
}

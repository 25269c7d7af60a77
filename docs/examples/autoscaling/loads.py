"""The loads of the proof: recorded traces and drawn ones, each with a part to learn from."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from serve_app.capacity.workload.lengths import Independent, parse_lengths
from serve_app.capacity.workload.requests import Synthetic, WorkloadRequest, limited, window
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.traces import Trace
from serve_app.scaling.schedules import Schedule

HOUR, DAY = 3600.0, 86400.0
# Reasoning models: an answer holds its slot for half a minute.
LENGTHS = Independent(
    parse_lengths("lognormal:median=500,p95=2000,max=4000"),
    parse_lengths("lognormal:median=2000,p95=5000,max=8000"),
)
REPLICA_S = 6.9  # the work of such a request in a replica with four slots
MAX_PROMPT = 4000
SHORT = ("lognormal:median=10s,p95=20s", "lognormal:median=60s,p95=120s")
LONG = ("lognormal:median=300s,p95=600s",)
# The day begins on a Monday.
MONDAY = 4 * DAY


def right(now: float) -> float:
    """Return what a clock shows that is right."""
    return now


@dataclass(frozen=True, eq=False)
class Load:
    """Requests to learn from in [0, `split_s`), to be judged by in [`split_s`, `end_s`)."""

    name: str
    split_s: float
    end_s: float
    startups: tuple[str, ...] = LONG
    seeds: int = 3
    control_s: float = 1.0  # Serve's controller decides ten times a second
    trace: Path | None = None
    shape: Shape | None = None
    schedules: tuple[Schedule, ...] = ()
    search_s: float | None = None  # of the part to learn from, its end, for searches of settings
    clock: Callable[[float], float] = right  # of the controller
    same: str = ""  # a load with the same requests: policies without a clock have its results

    def requests(self, seed: int, begin_s: float, end_s: float) -> list[WorkloadRequest]:
        return list(window(_drawn(self, seed), begin_s, end_s))

    def learned(self, seed: int) -> list[WorkloadRequest]:
        return self.requests(seed, 0.0, self.split_s)

    @property
    def searched_s(self) -> float:
        """The seconds of the part that settings are searched on."""
        return self.search_s or self.split_s

    def searched(self, seed: int) -> list[WorkloadRequest]:
        return self.requests(seed, self.split_s - self.searched_s, self.split_s)

    def judged(self, seed: int) -> list[WorkloadRequest]:
        return self.requests(seed, self.split_s, self.end_s)


@lru_cache(maxsize=2)
def _drawn(load: Load, seed: int) -> list[WorkloadRequest]:
    if load.trace:
        return list(limited(Trace(load.trace), MAX_PROMPT, 100_000))
    shape = load.shape if load.shape else bursts(seed)
    return list(Synthetic(shape.scaled(1 / REPLICA_S), LENGTHS, seed))


def repeated(points: Iterable[tuple[float, float]], period: float, times: int) -> Shape:
    listed = list(points)
    return Shape(tuple((n * period + at, level) for n in range(times) for at, level in listed))


def levels(*steps: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield the points of levels, each with its hours."""
    at = 0.0
    for hours, level in steps:
        yield at, level
        at += hours * HOUR
        yield at, level


def wave(days: int, growth: float = 0.0, peak: float = 7.0, low: float = 1.0) -> Shape:
    points = []
    for day in range(days):
        factor = (1 + growth) ** day
        day_shape = Shape.parse(f"diurnal:mean={(peak + low) / 2},peak={peak}")
        points += [(day * DAY + at, level * factor) for at, level in day_shape.points]
    return Shape(tuple(points))


def week(weeks: int) -> Shape:
    weekday = Shape.parse("diurnal:mean=1.4,peak=2.6").points
    quiet = Shape.parse("diurnal:mean=0.4,peak=0.5").points
    days = [weekday] * 5 + [quiet] * 2
    return Shape(
        tuple((n * DAY + at, level) for n, day in enumerate(days * weeks) for at, level in day)
    )


def shifted(days: int) -> Shape:
    """Return waves of which the last day's comes half a day later."""
    points = wave(days).points
    late = [(at + DAY / 2, level) for at, level in points if at >= (days - 1) * DAY]
    return Shape((*(point for point in points if point[0] < (days - 1) * DAY), *late))


def ceased() -> Shape:
    """Return 6 hours with a burst at each half hour, then 6 hours without."""
    points = [(0.0, 1.0)]
    for number in range(12):
        at = number * HOUR / 2 + 600
        points += [(at, 1.0), (at, 5.0), (at + 600, 5.0), (at + 600, 1.0)]
    return Shape((*points, (12 * HOUR, 1.0)))


def on_off(times: int) -> Shape:
    """Return ten minutes without a load and ten at five replicas, in turn."""
    return repeated([(0, 0.0), (600, 0.0), (600, 5.0), (1200, 5.0)], 1200, times)


def unlike() -> Shape:
    """Return 6 hours at two replicas, then three waves of two hours."""
    waves = Shape.parse("diurnal:mean=4,peak=7,period=2h,periods=3").points
    return Shape((*levels((6, 2)), *((6 * HOUR + at, level) for at, level in waves)))


def jumping(now: float) -> float:
    """Return what a clock shows that jumps by an hour, and back by a day."""
    since = now - DAY
    jump = 0.0 if since < 6 * HOUR else HOUR if since < 12 * HOUR else -DAY
    return now + jump


def bursts(seed: int) -> Shape:
    """Return 12 hours at one replica with single bursts of 10 minutes at random times."""
    rng = random.Random(f"{seed} bursts")
    points = [(0.0, 1.0)]
    for hour in range(1, 12, 2):
        at = (hour + rng.uniform(0, 0.8)) * HOUR
        points += [(at, 1.0), (at, 6.0), (at + 600, 6.0), (at + 600, 1.0)]
    return Shape((*points, (12 * HOUR, 1.0)))


_STEPS = tuple(levels((8, 1), (4, 6), (1, 3), (5, 6), (6, 1)))


def _floor(start: str, end: str, replicas: int) -> tuple[Schedule, ...]:
    return (Schedule("office", start, end, "UTC", min_replicas=replicas),)


def loads(data: Path) -> dict[str, Load]:
    """Return all loads by name; traces are read from `data`."""
    azure, mooncake = data / "azure_llm_2023_conv.csv", data / "mooncake_conversation.jsonl"
    listed = (
        Load("azure", HOUR / 2, 3509.0, SHORT, control_s=0.1, trace=azure),
        Load("mooncake", HOUR / 2, 3537.0, SHORT, control_s=0.1, trace=mooncake),
        Load(
            *("wave", DAY, 2 * DAY),
            seeds=2,
            control_s=2.0,
            shape=wave(2),
            schedules=_floor("0 9 * * *", "0 17 * * *", 8),
            search_s=DAY,
        ),
        Load(
            *("steps", DAY, 2 * DAY),
            seeds=2,
            control_s=2.0,
            shape=repeated(_STEPS, DAY, 2),
            schedules=_floor("0 8 * * *", "0 18 * * *", 8),
            search_s=6 * HOUR + 12 * HOUR,
        ),
        Load("bursts", 6 * HOUR, 12 * HOUR),
        Load(
            "on-off",
            2 * HOUR,
            6 * HOUR,
            shape=on_off(18),
        ),
        Load(
            "unlike",
            6 * HOUR,
            12 * HOUR,
            shape=unlike(),
        ),
        Load(
            *("growth", 3 * DAY, 4 * DAY),
            seeds=2,
            control_s=2.0,
            shape=wave(4, 0.05, peak=5, low=0.5),
            search_s=DAY,
        ),
        Load(
            *("week", 7 * DAY, 14 * DAY),
            seeds=2,
            control_s=2.0,
            shape=week(2),
            schedules=_floor("0 9 * * MON-FRI", "0 17 * * MON-FRI", 4),
            search_s=3 * DAY,
        ),
        # Forecasts that are wrong on purpose
        Load(
            *("shifted", 2 * DAY, 3.5 * DAY),
            seeds=2,
            control_s=2.0,
            shape=shifted(3),
            search_s=DAY,
        ),
        Load("ceased", 6 * HOUR, 12 * HOUR, shape=ceased()),
        Load(
            *("clock", DAY, 2 * DAY),
            seeds=2,
            control_s=2.0,
            shape=wave(2),
            search_s=DAY,
            clock=jumping,
            same="wave",
        ),
    )
    return {load.name: load for load in listed}

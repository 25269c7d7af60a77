"""Floors and ceilings of replicas, set by operators for times of the day or week.

A schedule holds from each time of its cron expression `start` until the next of `end`, in its own
time zone. A time in an hour that summer time skips comes at that hour's end; of a repeated hour,
the first counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_LOOKED_AHEAD = timedelta(days=8)
_MAX_STARTS = 500
_SCHEDULE = "schedule "


@dataclass(frozen=True, slots=True)
class Schedule:
    """A floor, a ceiling or both for the times of the schedule. None: no such bound."""

    name: str
    start: str
    end: str
    time_zone: str
    min_replicas: int | None = None
    max_replicas: int | None = None

    def holds(self, now: float) -> bool:
        """Tell whether the schedule holds at `now`, in seconds since 1970."""
        at = datetime.fromtimestamp(now + 1, UTC).astimezone(ZoneInfo(self.time_zone))
        began, ended = _latest(self.start, at), _latest(self.end, at)
        return began is not None and (ended is None or began > ended)

    def problem(self) -> str:
        """Return why the schedule can't work, or ""."""
        for field in ("start", "end"):
            if problem := cron_problem(getattr(self, field)):
                return f"schedule {self.name}: {field} {problem}"
        if problem := zone_problem(self.time_zone):
            return f"schedule {self.name}: {problem}"
        low, high = self.min_replicas, self.max_replicas
        if low is None and high is None:
            return f"schedule {self.name} sets neither min_replicas nor max_replicas: set one"
        if low is not None and high is not None and low > high:
            return f"schedule {self.name}: min_replicas ({low}) is above max_replicas ({high})"
        return ""


@dataclass(frozen=True, slots=True)
class TargetBounds:
    """Bounds of the target, with the name of the schedule or setting behind each."""

    low: int
    high: int
    low_by: str = "min_replicas"
    high_by: str = "max_replicas"

    @property
    def schedule(self) -> str:
        """The schedules that set a bound, such as `schedule office`, or ""."""
        by = dict.fromkeys((self.low_by, self.high_by))
        return ", ".join(name for name in by if name.startswith(_SCHEDULE))


def target_bounds(
    schedules: Sequence[Schedule], bounds: TargetBounds, now: float, start_s: float = 0.0
) -> TargetBounds:
    """Return the bounds at `now`: the highest floor and the lowest ceiling that hold.

    A floor counts from `start_s` before it begins, so that its replicas run when it does.
    """
    low, high = (bounds.low, bounds.low_by), (bounds.high, bounds.high_by)
    for schedule in schedules:
        name = f"{_SCHEDULE}{schedule.name}"
        floor, ceiling = schedule.min_replicas, schedule.max_replicas
        holds = schedule.holds(now)
        soon = floor is not None and (holds or schedule.holds(now + start_s))
        if floor is not None and soon and floor > low[0]:
            low = floor, name
        if ceiling is not None and holds and ceiling < high[0]:
            high = ceiling, name
    if low[0] > high[0]:  # a floor begins soon, but the ceiling still holds
        low = high[0], low[1]
    return TargetBounds(low[0], high[0], low[1], high[1])


def bound_problems(schedule: Schedule, low: int, high: int) -> Iterator[str]:
    """Yield why a schedule can't work beside the pool's bounds."""
    if schedule.min_replicas is not None and schedule.min_replicas > high:
        yield (
            f"schedule {schedule.name}: min_replicas ({schedule.min_replicas}) is above the "
            f"pool's max_replicas ({high})"
        )
    if schedule.max_replicas is not None and schedule.max_replicas < low:
        yield (
            f"schedule {schedule.name}: max_replicas ({schedule.max_replicas}) is below the "
            f"pool's min_replicas ({low})"
        )


def schedule_problems(
    schedules: Sequence[Schedule], low: int, high: int, now: float
) -> Iterator[str]:
    """Yield why schedules can't work, alone, beside the pool's bounds, or beside each other."""
    names = [schedule.name for schedule in schedules]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"two schedules are called {name}: give them different names"
    for schedule in schedules:
        if problem := schedule.problem():
            yield problem
            return
        yield from bound_problems(schedule, low, high)
    for one, other in combinations(schedules, 2):
        if _contradict(one, other) and (at := _together(one, other, now)):
            yield (
                f"schedules {one.name} and {other.name} contradict each other at {at}: the "
                "min_replicas of one is above the max_replicas of the other"
            )


def cron_problem(text: str) -> str:
    """Return why a cron expression can't be used, or ""."""
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as exc:
        return f"{text!r} is not a cron expression of five fields: {exc or 'it never comes'}"
    return ""


def zone_problem(name: str) -> str:
    """Return why a time zone can't be used, or ""."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfo's own error is a KeyError
        return f"{name!r} is not a time zone: write one like Europe/Berlin or UTC"
    return ""


def _latest(cron: str, at: datetime) -> datetime | None:
    """Return the last time of a cron expression before `at`, in UTC."""
    # Times of one zone compare by their clocks: in the hour that comes twice, look from its end.
    begin = at + timedelta(hours=1) if at.fold else at
    times = (time.astimezone(UTC) for time in CronSim(cron, begin, reverse=True))
    return next((time for time in times if time < at.astimezone(UTC)), None)


def _contradict(one: Schedule, other: Schedule) -> bool:
    return any(
        a.min_replicas is not None
        and b.max_replicas is not None
        and a.min_replicas > b.max_replicas
        for a, b in ((one, other), (other, one))
    )


def _together(one: Schedule, other: Schedule, now: float) -> datetime | None:
    """Return a time within the next days at which both schedules hold."""
    # Such a time begins with the start of one of them.
    for schedule in (one, other):
        begin = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(schedule.time_zone))
        for number, start in enumerate(CronSim(schedule.start, begin)):
            if start > begin + _LOOKED_AHEAD or number > _MAX_STARTS:
                break
            if one.holds(start.timestamp()) and other.holds(start.timestamp()):
                return start
    return None

"""Floors and ceilings by the clock."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from serve_app.scaling.schedules import Schedule, TargetBounds, schedule_problems, target_bounds

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = Schedule("office", "0 8 * * MON-FRI", "0 18 * * MON-FRI", "Europe/Berlin", 4)
NIGHT = Schedule("night", "0 22 * * *", "0 6 * * *", "Europe/Berlin", max_replicas=2)
BOUNDS = TargetBounds(1, 10)


def at(*when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=BERLIN, fold=fold).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (at(2026, 6, 1, 7, 59), TargetBounds(1, 10)),
        (at(2026, 6, 1, 8), TargetBounds(4, 10, "schedule office")),
        (at(2026, 6, 1, 17, 59, 59), TargetBounds(4, 10, "schedule office")),
        (at(2026, 6, 1, 18), TargetBounds(1, 10)),
        (at(2026, 6, 6, 12), TargetBounds(1, 10)),  # a Saturday
        (at(2026, 6, 1, 23), TargetBounds(1, 2, high_by="schedule night")),
        (at(2026, 1, 1, 3), TargetBounds(1, 2, high_by="schedule night")),
    ],
)
def test_a_schedule_holds_between_its_times(now: float, expected: TargetBounds) -> None:
    """In its own zone, on its own days, over midnight."""
    assert target_bounds([OFFICE, NIGHT], BOUNDS, now) == expected


def test_a_floor_counts_before_it_begins() -> None:
    """By the time that its replicas take to start."""
    now = at(2026, 6, 1, 7, 56)
    assert target_bounds([OFFICE], BOUNDS, now, start_s=300).low == 4
    assert target_bounds([OFFICE], BOUNDS, now, start_s=60).low == 1


def test_a_ceiling_stays_until_it_ends() -> None:
    """A floor that begins soon does not rise above a ceiling that holds."""
    early = Schedule("early", "0 6 * * *", "0 9 * * *", "Europe/Berlin", 5)
    assert target_bounds([NIGHT, early], BOUNDS, at(2026, 6, 1, 5, 59), start_s=300).low == 2


def test_the_highest_floor_and_the_lowest_ceiling_count() -> None:
    """Where schedules overlap."""
    more = Schedule("more", "0 9 * * *", "0 10 * * *", "Europe/Berlin", 6)
    assert target_bounds([OFFICE, more], BOUNDS, at(2026, 6, 1, 9, 30)).low == 6


def test_an_hour_that_summer_time_skips() -> None:
    """A floor from 2:30 begins at 3:00 on the day without that time."""
    early = Schedule("early", "30 2 * * *", "0 5 * * *", "Europe/Berlin", 3)
    assert target_bounds([early], BOUNDS, at(2026, 3, 29, 1, 59)).low == 1
    assert target_bounds([early], BOUNDS, at(2026, 3, 29, 3, 0)).low == 3


def test_an_hour_that_comes_twice() -> None:
    """A floor from 2:30 begins in the first of both hours, and stays in the second."""
    early = Schedule("early", "30 2 * * *", "0 5 * * *", "Europe/Berlin", 3)
    assert target_bounds([early], BOUNDS, at(2026, 10, 25, 2, 29)).low == 1
    assert target_bounds([early], BOUNDS, at(2026, 10, 25, 2, 31)).low == 3
    assert target_bounds([early], BOUNDS, at(2026, 10, 25, 2, 10, fold=1)).low == 3


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule("a", "0 25 * * *", "0 9 * * *", "UTC", 2), "start '0 25 "),
        (Schedule("a", "0 8 * * *", "sometimes", "UTC", 2), "end 'sometimes'"),
        (Schedule("a", "0 8 31 2 *", "0 9 * * *", "UTC", 2), "start '0 8 31 2 \\*'"),
        (Schedule("a", "0 8 * * *", "0 9 * * *", "Europe/Atlantis", 2), "not a time zone"),
        (Schedule("a", "0 8 * * *", "0 9 * * *", "", 2), "not a time zone"),
        (Schedule("a", "0 8 * * *", "0 9 * * *", "../../etc/passwd", 2), "not a time zone"),
        (Schedule("a", "0 8 * * *", "0 9 * * *", "UTC"), "neither"),
        (Schedule("a", "0 8 * * *", "0 9 * * *", "UTC", 5, 4), "above max_replicas"),
        (Schedule("a", "0 8 * * *", "0 9 * * *", "UTC", 11), r"pool's max_replicas \(10\)"),
        (Schedule("b", "0 8 * * *", "0 9 * * *", "UTC", None, 1), r"pool's min_replicas \(2\)"),
    ],
)
def test_what_can_not_work_is_named(schedule: Schedule, message: str) -> None:
    """Wrong times, zones and bounds."""
    import re

    (problem,) = schedule_problems([schedule], 2, 10, at(2026, 6, 1))
    assert problem.startswith(f"schedule {schedule.name}")
    assert re.search(message, problem)


def test_schedules_that_contradict_each_other_are_named() -> None:
    """A floor above the ceiling of another at the same time."""
    late = Schedule("late", "0 20 * * *", "0 23 * * *", "Europe/Berlin", 5)
    (problem,) = schedule_problems([NIGHT, late], 1, 10, at(2026, 6, 1))
    assert "night and late contradict each other at 2026-06-01 22:00" in problem
    assert not list(schedule_problems([NIGHT, OFFICE], 1, 10, at(2026, 6, 1)))


def test_two_of_one_name_are_refused() -> None:
    """Because logs and errors could not tell them apart."""
    (problem,) = schedule_problems([OFFICE, OFFICE], 1, 10, at(2026, 6, 1))
    assert "two schedules are called office" in problem

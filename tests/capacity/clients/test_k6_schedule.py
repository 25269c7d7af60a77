"""Which arrivals k6 started, and which it dropped without saying so."""

import pytest

from serve_app.capacity.clients.k6.schedule import head_start, match, schedule
from serve_app.capacity.workload.shapes import Shape


def test_the_first_is_due_when_the_area_is_one() -> None:
    """As k6 counts: at 10 a second after 0.1 s."""
    assert schedule(Shape(((0, 10), (0.4, 10))), 99) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_run_that_was_stopped_has_a_shorter_schedule() -> None:
    """What was due later was never asked."""
    assert schedule(Shape(((0, 10), (10, 10))), 0.25) == pytest.approx([0.1, 0.2])


def test_each_start_has_its_due_time() -> None:
    """In order, however late."""
    matched = match([1, 2, 3], [1.0, 3.5, 3.6])
    assert (matched.intended, matched.missing) == ([1, 2, 3], [])


def test_what_no_start_lies_near_is_missing() -> None:
    """Dropped in the middle, cut off at the end."""
    matched = match([1, 2, 3, 4, 5], [1.0, 4.0])
    assert (matched.intended, matched.missing) == ([1, 4], [2, 3, 5])


def test_no_more_are_passed_over_than_there_are_too_many() -> None:
    """Two starts that are late are late, not dropped and on time."""
    matched = match([1, 2, 3], [2.9, 3.0])
    assert (matched.intended, matched.missing) == ([2, 3], [1])


def test_starts_count_from_the_first_that_was_on_time() -> None:
    """k6 names its start before it wakes its users; drops only make later ones seem late."""
    assert head_start([1, 2, 3, 4], [1.3, 2.1, 4.2]) == pytest.approx(0.1)
    assert head_start([1, 2], []) == 0

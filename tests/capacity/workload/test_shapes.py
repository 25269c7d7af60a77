"""Shapes of load and the arrivals that follow them."""

import math
import random
from itertools import pairwise
from statistics import mean, stdev

import pytest

from serve_app.capacity.workload.arrivals import arrivals
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.text import WorkloadError


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("constant:5", ((0, 5), (60, 5))),
        ("soak:level=2,hold=1h", ((0, 2), (3600, 2))),
        ("ramp:to=10,up=30s,hold=1m,down=30s", ((0, 0), (30, 10), (90, 10), (120, 0))),
        ("step:low=1,high=6,before=10s,hold=20s", ((0, 1), (10, 1), (10, 6), (30, 6))),
        ("points:0s=60/m,30s=2/s", ((0, 1), (30, 2))),
    ],
)
def test_a_shape_is_read_from_one_option(text: str, points: tuple[tuple[float, float]]) -> None:
    """Units and defaults included."""
    assert Shape.parse(text).points == points


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("hill:to=3", "ramp"),
        ("ramp:top=3", "write ramp:to=…,up=60,hold=300"),
        ("ramp:to=three", "30s"),
        ("constant:5,60", "key=value"),
        ("points:0s=1", "two points"),
        ("points:5s=1,9s=1", "first at 0"),
    ],
)
def test_what_is_no_shape_is_refused(text: str, word: str) -> None:
    """With the form that would do."""
    with pytest.raises(WorkloadError, match=word):
        Shape.parse(text)


def test_a_shape_is_read_as_it_is_written() -> None:
    """So a report can be run again."""
    shape = Shape.parse("spike:base=1,peak=10,before=5s,hold=2s,after=5s")
    assert Shape.parse(str(shape)) == shape


def test_levels_lie_on_straight_lines() -> None:
    """A jump counts from its second on; outside there is none."""
    shape = Shape.parse("points:0s=0,10s=10,10s=4,20s=4")
    assert [shape.at(t) for t in (-1, 5, 10, 20, 21)] == [0, 5, 4, 4, 0]
    assert (shape.total, shape.peak, shape.mean) == (90, 10, 4.5)


@pytest.mark.parametrize(
    "text", ["ramp:to=9,up=7,hold=3,down=5", "diurnal:mean=5,peak=9,period=60", "step:low=0,high=3"]
)
def test_areas_and_seconds_are_each_others_inverse(text: str) -> None:
    """Against the area by small steps."""
    shape = Shape.parse(text)
    for share in (0.1, 0.5, 0.9):
        end = shape.when(share * shape.total)
        steps = 20_000
        area = sum(shape.at(end * (i + 0.5) / steps) for i in range(steps)) * end / steps
        assert area == pytest.approx(share * shape.total, rel=2e-3)


def test_a_diurnal_shape_keeps_its_mean_and_peak() -> None:
    """A day's worth of arrivals is the mean's."""
    shape = Shape.parse("diurnal:mean=5,peak=9")
    assert shape.mean == pytest.approx(5)
    assert shape.peak == pytest.approx(9)


def test_even_arrivals_are_even() -> None:
    """Burstiness 0."""
    shape = Shape.parse("constant:level=2,hold=2")
    assert list(arrivals(shape, random.Random(1), 0)) == [0.25, 0.75, 1.25, 1.75]


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 3.0])
def test_gaps_vary_as_asked(burstiness: float) -> None:
    """Mean and coefficient of variation, within four standard errors of so many gaps."""
    shape = Shape(((0, 10), (4000, 10)))
    times = list(arrivals(shape, random.Random(3), burstiness))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert mean(gaps) == pytest.approx(0.1, rel=4 * burstiness / math.sqrt(len(gaps)))
    assert stdev(gaps) / mean(gaps) == pytest.approx(burstiness, rel=0.1)


def test_poisson_arrivals_follow_the_shape() -> None:
    """Counts of each piece of a ramp, within four standard deviations of a Poisson variable."""
    shape = Shape.parse("ramp:to=100,up=100,hold=100,down=100")
    times = list(arrivals(shape, random.Random(5)))
    for begin, expected in ((0, 1250), (50, 3750), (100, 5000), (250, 1250)):
        count = sum(begin <= t < begin + 50 for t in times)
        assert abs(count - expected) < 4 * math.sqrt(expected)


def test_one_seed_gives_one_sequence() -> None:
    """And another seed another."""
    shape = Shape.parse("constant:5")
    first, again, other = (list(arrivals(shape, random.Random(s))) for s in (1, 1, 2))
    assert first == again != other

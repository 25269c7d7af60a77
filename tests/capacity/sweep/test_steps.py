"""Steps of load: throughput, saturation, knee, and the largest load that meets an SLO."""

import pytest

from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.steps import (
    StepKind,
    SweepStep,
    knee,
    largest,
    saturation,
    split_into_steps,
    step_of,
    unjudged,
)

SLO = Slo.parse("ttft_p50=1s,error_rate=50%")


def answers(rate: float, seconds: float, wait: float = 0.1, length: float = 0.4) -> list[Record]:
    """Even arrivals; each answer of 10 tokens begins after `wait`."""
    times = [i / rate for i in range(int(rate * seconds))]
    return [
        Record(t, ClientOutcome.OK, t, t + wait, t + wait + length, output_tokens=10) for t in times
    ]


def rate(level: float, wait: float = 0.1, seconds: float = 100) -> SweepStep:
    return step_of(StepKind.RATE, level, answers(level, seconds, wait), 0, seconds)


def users(level: int, per_s: float) -> SweepStep:
    return step_of(StepKind.CONCURRENCY, level, answers(per_s, 100), 0, 100)


def test_a_step_knows_its_throughput() -> None:
    """Little's law gives the requests at once; tokens beyond the step's end don't count."""
    step = rate(4.0)
    assert step.offered_per_s == pytest.approx(4.0)
    assert step.completed_per_s == pytest.approx(4.0, rel=0.01)
    assert step.tokens_per_s == pytest.approx(40.0, rel=0.01)
    assert step.ongoing == pytest.approx(4.0 * 0.5)
    assert step.quantile("ttft", 0.5) == pytest.approx(0.1)


def test_users_saturate_where_throughput_stops_to_grow() -> None:
    """Less than 5 % more than at any lower level."""
    steps = [users(1, 2.0), users(2, 4.0), users(4, 7.5), users(8, 7.6)]
    step = saturation(steps)
    assert step is not None
    assert step.level == 8
    assert saturation(steps[:3]) is None


def test_arrivals_saturate_where_answers_fall_behind() -> None:
    """Here each begins 20 s late, and one in five is not there by the end."""
    assert saturation([rate(4.0)]) is None
    assert saturation([rate(4.0, wait=20)]) is not None


def test_the_knee_lies_where_more_users_stop_to_pay() -> None:
    """Linear up to four users, hardly anything beyond."""
    steps = [users(1, 2.0), users(2, 4.0), users(4, 8.0), users(8, 8.6), users(16, 8.7)]
    step = knee(steps)
    assert step is not None
    assert step.level == 4
    assert knee(steps[:2]) is None


def test_the_largest_load_lies_below_the_first_that_misses() -> None:
    """A higher one that met the SLO by luck does not count."""
    steps = [rate(1.0), rate(2.0), rate(3.0, wait=1.5), rate(4.0)]
    step = largest(steps, SLO)
    assert step is not None
    assert step.level == 2.0
    assert largest(steps[2:], SLO) is None


def test_a_bound_with_too_few_requests_is_not_met() -> None:
    """It is named instead."""
    strict = Slo.parse("ttft_p99=1s")
    steps = [rate(4.0, seconds=100)]
    assert largest(steps, strict) is None
    (finding,) = unjudged(steps, strict)
    assert (finding.count, finding.bound.needed) == (400, 500)


def test_any_run_is_cut_into_steps_of_its_arrival_rate() -> None:
    """The rest that is too short is left out."""
    later = [Record(r.intended + 10, r.outcome, output_tokens=1) for r in answers(6, 10)]
    steps = split_into_steps(answers(2, 10) + later, 5.0)
    assert [step.level for step in steps] == pytest.approx([2, 2, 6])
    assert split_into_steps([], 5.0) == []

"""How replicas followed a load: rises, steps, missed windows, flaps."""

import pytest

from serve_app.capacity.experiment.scaling import (
    Rise,
    flaps,
    missed_windows,
    responses,
    rises,
)
from serve_app.capacity.results.cluster_samples import Sample, replica_seconds
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.workload.shapes import Shape

SLO = Slo.parse("ttft_p90=1s")


def records(*, slow: range = range(0), until: int = 60) -> list[Record]:
    """Two a second; those intended within `slow` wait 3 s for their first token."""
    halves = [second / 2 for second in range(2 * until)]
    return [
        Record(at, ClientOutcome.OK, at, at + (3.0 if int(at) in slow else 0.1), at + 4.0)
        for at in halves
    ]


def samples(targets: list[int], lag: int = 0) -> list[Sample]:
    """One a second; as many run as were demand `lag` seconds before."""
    return [
        Sample(at=float(i), target=target, running=targets[max(0, i - lag)])
        for i, target in enumerate(targets)
    ]


def test_a_rise_is_an_uninterrupted_growth() -> None:
    """Two slopes up are one rise; a plateau ends it; a jump is a rise without length."""
    shape = Shape.parse("points:0s=1,10s=1,20s=3,30s=6,50s=6,50s=9,60s=0")
    assert rises(shape) == [Rise(10, 30, 1, 6), Rise(50, 50, 6, 9)]


def test_a_shape_that_only_falls_has_no_rise() -> None:
    """Then the load's beginning is the step."""
    assert rises(Shape.parse("points:0s=5,10s=1")) == []


def test_each_new_replica_is_timed_from_the_rise() -> None:
    """Until it was demand and until it served; those that never served have no time."""
    series = samples([1] * 12 + [2] * 4 + [4] * 10, lag=5)[:20]
    (response,) = responses([Rise(10, 15, 1, 4)], series, [], SLO)
    assert [(s.replicas, s.wanted_s, s.running_s) for s in response.steps] == [
        (2, 2, 7),
        (3, 6, None),
        (4, 6, None),
    ]


def test_each_rise_answers_until_the_next() -> None:
    """What the second rise adds is not the first one's."""
    series = samples([1] * 5 + [2] * 10 + [3] * 10)
    first, second = responses([Rise(2, 3, 0, 1), Rise(10, 11, 1, 2)], series, [], SLO)
    assert [step.replicas for step in first.steps] == [2]
    assert [step.replicas for step in second.steps] == [3]


def test_the_slo_is_missed_while_too_few_in_a_window_met_it() -> None:
    """20 requests in 10 s: at p90 two may be slow, three may not."""
    missed = list(missed_windows(records(slow=range(20, 30)), SLO))
    assert (missed[0], missed[-1]) == (21, 37)


def test_the_slo_is_met_again_for_good_after_the_last_miss() -> None:
    """A short recovery in between does not count."""
    requests = records(slow=range(20, 24)) + records(slow=range(40, 44))
    (response,) = responses([Rise(10, 15, 1, 4)], samples([1] * 60), requests, SLO)
    assert response.slo_lost_s is not None
    assert response.slo_met_s is not None
    assert response.slo_lost_s < 15 < 40 < response.slo_met_s


def test_an_slo_that_is_missed_to_the_end_is_not_met_again() -> None:
    """Then there is no time to state."""
    (response,) = responses(
        [Rise(10, 15, 1, 4)], samples([1] * 60), records(slow=range(30, 60)), SLO
    )
    assert response.slo_lost_s is not None
    assert response.slo_met_s is None


def test_an_slo_that_was_always_met_was_never_lost() -> None:
    """Nor met again."""
    (response,) = responses([Rise(10, 15, 1, 4)], samples([1] * 60), records(), SLO)
    assert (response.slo_lost_s, response.slo_met_s) == (None, None)


@pytest.mark.parametrize(
    ("targets", "shape", "count"),
    [
        ([1, 2, 4, 6, 6, 3, 1], "ramp:to=6", 0),
        ([1, 2, 1, 2, 4, 1], "ramp:to=6", 2),
        ([1, 4, 1, 4, 1], "points:0s=1,9s=5,20s=1,30s=5,40s=1", 0),
        ([1, 2, 1], "constant:level=3", 0),
        ([1, 1, 1], "ramp:to=6", 0),
    ],
)
def test_a_flap_is_a_turn_that_the_load_did_not_make(
    targets: list[int], shape: str, count: int
) -> None:
    """A load that goes up and down explains one turn; two peaks explain three."""
    assert flaps(samples(targets), Shape.parse(shape)) == count


def test_replicas_cost_while_they_start_and_drain() -> None:
    """Each sample holds until the next, however far that is."""
    series = [
        Sample(0, 1, 1),
        Sample(1, 2, 1, starting=1),
        Sample(3, 1, 1, draining=1),
        Sample(4, 1, 1),
    ]
    assert replica_seconds(series) == 1 * 1 + 2 * 2 + 1 * 2

"""What replicas measure and report, and what becomes of reports that are wrong."""

import math

import pytest

from serve_app.scaling.meter import (
    ARRIVED,
    SLOT,
    SLOTS,
    SLOWDOWN,
    UNMEASURED,
    WAITING,
    WorkMeter,
)
from serve_app.scaling.reports import ReportedWork


def report(arrived: float, waiting: float = 0.0) -> dict[str, float]:
    return {ARRIVED: arrived, WAITING: waiting, SLOT: 4.0, SLOTS: 4.0}


def end(meter: WorkMeter, model: str, service: float, slot_s: float) -> None:
    """Let a request hold a slot for some time."""
    meter.end(meter.begin(0.0), model, service, slot_s, None)


def test_a_meter_tells_long_requests_from_short_ones() -> None:
    """Thirty thousand tokens are more work than a greeting, by what either has taken."""
    meter = WorkMeter(slots=4)
    for _ in range(50):
        for service, slot_s in ((100.0, 1.0), (30_000.0, 9.0)):
            meter.take("m", service)
            end(meter, "m", service, slot_s)
    before = meter.report(0)[ARRIVED]
    meter.take("m", 100.0)
    short = meter.report(0)[ARRIVED] - before
    meter.take("m", 30_000.0)
    long = meter.report(0)[ARRIVED] - before - short
    assert short == pytest.approx(1 / 4, rel=0.2)
    assert long == pytest.approx(9 / 4, rel=0.2)


def test_a_meter_knows_the_mean_where_all_are_alike() -> None:
    """The mean time in a slot, a fourth of a replica of four slots."""
    meter = WorkMeter(slots=4)
    end(meter, "m", 10.0, 2.0)
    meter.take("m", 10.0)
    assert meter.report(3) == {
        ARRIVED: 0.5,
        UNMEASURED: 0.0,
        WAITING: 3.0,
        SLOT: 2.0,
        SLOTS: 4.0,
        SLOWDOWN: 0.0,
    }


def taken_s(meter: WorkMeter, model: str, service: float) -> float:
    """Return the work that a request adds."""
    before = meter.report(0)[ARRIVED]
    meter.take(model, service)
    return meter.report(0)[ARRIVED] - before


def test_a_meter_learns_the_times_of_each_model() -> None:
    """Equal prompts of a small and of a large model are different work."""
    meter = WorkMeter(slots=4)
    for _ in range(20):
        end(meter, "small", 100.0, 1.0)
        end(meter, "large", 100.0, 9.0)
    assert taken_s(meter, "small", 100.0) == pytest.approx(1 / 4)
    assert taken_s(meter, "large", 100.0) == pytest.approx(9 / 4)
    assert taken_s(meter, "new", 100.0) == pytest.approx(5 / 4, rel=0.1)


def test_requests_of_a_new_replica_weigh_as_those_of_the_pool() -> None:
    """It counts them until its first one has ended."""
    meter = WorkMeter(slots=4)
    reported = ReportedWork().after({"a": report(10), "b": meter.report(0)}, 0)
    for _ in range(3):
        meter.take("m", 100.0)
    reported = reported.after({"a": report(10), "b": meter.report(2)}, 0)
    assert (reported.arrived_s, reported.waiting_s) == (3.0, 2.0)
    end(meter, "m", 100.0, 8.0)
    meter.take("m", 100.0)
    reported = reported.after({"a": report(10), "b": meter.report(0)}, 0)
    assert reported.arrived_s == 2.0


def test_before_any_request_has_ended_the_declared_time_counts() -> None:
    """The first requests of a pool are work as well."""
    new = {UNMEASURED: 0.0, ARRIVED: 0.0, SLOTS: 4.0}
    reported = ReportedWork(slot_s=12.0).after({"a": new}, 0)
    reported = reported.after({"a": {**new, UNMEASURED: 2.0}}, 1)
    assert (reported.arrived_s, reported.waiting_s) == (9.0, 3.0)


def test_before_any_replica_has_reported_the_configured_slots_count() -> None:
    """A request that waits for the first replica is no whole replica of work."""
    reported = ReportedWork(slot_s=12.0, slots=4.0).after({}, 2)
    assert (reported.arrived_s, reported.waiting_s) == (6.0, 6.0)
    assert reported.after({}, 1).waiting_s == 3.0


def test_times_of_idle_replicas_become_those_of_full_ones() -> None:
    """Also of a replica that does not know how much slower it gets."""
    new = {**report(10), SLOWDOWN: 0.0}
    reported = ReportedWork().after({"a": {**report(10), SLOWDOWN: 1.5}, "b": new}, 0)
    reported = reported.after({"b": {**new, ARRIVED: 14.0}}, 2)
    assert (reported.slot_s, reported.arrived_s, reported.waiting_s) == (6.0, 6.0 + 3.0, 3.0)


def test_a_meter_measures_how_many_slots_are_busy() -> None:
    """On average over the time of each request; a failed one counts until it fails."""
    meter = WorkMeter(slots=2)
    for second in range(0, 800, 20):
        first = meter.begin(second)
        second_start = meter.begin(second + 2)
        meter.end(first, "m", 10.0, second + 4, (0, 300))
        if second % 40:
            meter.end(second_start, "m", 10.0, second + 6, (0, 300))
        else:
            meter.leave(second + 6)
        meter.end(meter.begin(second + 10), "m", 10.0, second + 12, (0, 200))
    # 100 tokens take a second alone, and 1.5 beside another request.
    assert meter.report(0)[SLOWDOWN] == pytest.approx(1.5 / 1.2, rel=0.1)


def test_a_meter_remembers_a_bounded_number_of_models() -> None:
    """Requests of further ones are the mean of all."""
    meter = WorkMeter(slots=1)
    for number in range(1000):
        end(meter, f"model-{number}", 10.0, 2.0)
    assert taken_s(meter, "model-999", 10.0) == pytest.approx(2.0)


def test_work_that_arrived_is_what_counters_grew() -> None:
    """Of all replicas together."""
    reported = ReportedWork().after({"a": report(10), "b": report(20)}, 0)
    reported = reported.after({"a": report(11), "b": report(23)}, 0)
    assert reported.arrived_s == 4.0


def test_the_first_reports_say_nothing_of_arrivals() -> None:
    """Because nobody knows since when the counters count."""
    assert ReportedWork().after({"a": report(1000)}, 0).arrived_s == 0.0


def test_a_new_replica_counts_from_its_start() -> None:
    """What it has taken in since."""
    reported = ReportedWork().after({"a": report(10)}, 0)
    assert reported.after({"a": report(10), "b": report(2)}, 0).arrived_s == 2.0


def test_a_request_in_a_gateway_counts_once() -> None:
    """When it comes, by the mean of recent requests, and no more when a replica gets it."""
    reported = ReportedWork().after({"a": report(10)}, 0)
    reported = reported.after({"a": report(10)}, 2)
    assert (reported.arrived_s, reported.waiting_s) == (2.0, 2.0)
    reported = reported.after({"a": report(12)}, 0)
    assert (reported.arrived_s, reported.waiting_s) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [{}, {ARRIVED: -5.0}, {ARRIVED: math.nan}, {ARRIVED: math.inf}])
def test_a_wrong_report_counts_as_the_last_one(wrong: dict[str, float]) -> None:
    """Missing, negative or not finite numbers change nothing, and nothing arrives twice."""
    reported = ReportedWork().after({"a": report(10)}, 0)
    reported = reported.after({"a": wrong}, 0)
    assert reported.arrived_s == 0.0
    assert reported.after({"a": report(11)}, 0).arrived_s == 1.0


def test_a_replica_that_died_takes_nothing_with_it() -> None:
    """Its counter is missing, then back, or begins anew."""
    reported = ReportedWork().after({"a": report(10), "b": report(50)}, 0)
    reported = reported.after({"a": report(11)}, 0)
    assert reported.arrived_s == 1.0
    reported = reported.after({"a": report(11), "b": report(50)}, 0)
    assert reported.arrived_s == 0.0
    assert reported.after({"a": report(11), "b": report(3)}, 0).arrived_s == 3.0


def test_a_queue_that_is_unknown_stays() -> None:
    """Where Serve has no number of what waits."""
    reported = ReportedWork().after({"a": report(10)}, 2)
    assert reported.after({"a": report(10)}, math.nan).waiting_s == 2.0

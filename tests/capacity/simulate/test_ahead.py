"""The service's own policy in virtual time."""

from dataclasses import replace

import pytest

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.ahead import AheadPolicy
from serve_app.capacity.simulate.run import SimulatedRouting, SimulatedService, simulate
from serve_app.capacity.simulate.startup import FixedStartup
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.lengths import Fixed, Independent
from serve_app.capacity.workload.requests import Synthetic
from serve_app.capacity.workload.shapes import Shape
from serve_app.scaling.memory import Aim
from serve_app.scaling.meter import ARRIVED, SLOT, UNMEASURED
from serve_app.scaling.reports import Reports
from serve_app.scaling_settings import Autoscaling

SERVICE = SimulatedService(
    ServiceModel(4000, 100, 0.06),
    scaling=Autoscaling(max_replicas=12, metrics_interval_s=1, look_back_period_s=2),
    startup=FixedStartup(20.0),
)
LOAD = Synthetic(Shape.parse("constant:level=4,hold=15m"), Independent(Fixed(400), Fixed(200)))


def play(service: SimulatedService, load: Synthetic, seconds: float) -> tuple[float, float]:
    """Return the share of requests within the SLO, and the mean of the billed replicas."""
    policy = AheadPolicy(Aim(start_s=20.0), service.scaling)
    result = simulate(load, service, policy, 0, seconds)
    return result.attainment(Slo.parse("wait_p99=3s")), result.replica_seconds / seconds


def test_a_steady_load_is_served_by_its_work() -> None:
    """Four requests a second with 2.5 seconds of four slots each: 2.5 replicas of work."""
    service = replace(SERVICE, scaling=SERVICE.scaling.model_copy(update={"initial_replicas": 4}))
    attainment, replicas = play(service, LOAD, 900)
    assert attainment > 0.99
    assert 2.5 < replicas < 6


def test_equal_seeds_give_equal_runs() -> None:
    """The policy draws nothing and reads no clock."""
    assert play(SERVICE, LOAD, 900) == play(SERVICE, LOAD, 900)


class Recorder:
    """A policy that keeps one replica, and the reports."""

    def __init__(self) -> None:
        self.reports: list[tuple[Reports, int]] = []

    def reported(self, reports: Reports, queued: int) -> None:
        self.reports.append((reports, queued))

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        return 1


def test_replicas_report_what_their_meters_know() -> None:
    """Until the first request has ended, only how many have arrived."""
    recorder = Recorder()
    simulate(LOAD, replace(SERVICE, slots=2, queue=2), recorder, 0, 10)
    own = [reports["1"] for reports, _ in recorder.reports]
    known = [report[ARRIVED] > 0 for report in own]
    assert known == sorted(known)
    first = known.index(True)
    assert own[first - 1][UNMEASURED] > 0
    assert own[-1][UNMEASURED] == own[first][UNMEASURED]
    assert own[-1][SLOT] == pytest.approx(2.2, rel=0.1)


@pytest.mark.parametrize(("routing", "is_seen"), [("gateway", True), ("haproxy", False)])
def test_gateways_report_their_queue(routing: SimulatedRouting, is_seen: bool) -> None:
    """HAProxy does not report its own."""
    recorder = Recorder()
    service = replace(SERVICE, slots=1, queue=0, max_ongoing=1, routing=routing)
    simulate(LOAD, service, recorder, 0, 10)
    assert any(queued for _, queued in recorder.reports) is is_seen


def first_target(expected_request_s: float) -> int:
    scaling = SERVICE.scaling.model_copy(update={"expected_request_s": expected_request_s})
    policy = AheadPolicy(Aim(start_s=20.0), scaling)
    simulate(LOAD, replace(SERVICE, scaling=scaling), policy, 0, 900)
    return policy.decisions[0][1].target


def test_a_pool_begins_with_the_expected_time_of_a_request() -> None:
    """The first requests of a minute are more work than those of a second."""
    assert first_target(60.0) > first_target(1.0)

"""The service's own policy in virtual time."""

from dataclasses import replace

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.ahead import AheadPolicy
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.simulate.startup import FixedStartup
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.lengths import Fixed, Independent
from serve_app.capacity.workload.requests import Synthetic
from serve_app.capacity.workload.shapes import Shape
from serve_app.scaling.memory import Aim
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

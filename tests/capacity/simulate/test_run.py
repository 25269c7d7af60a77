"""What a simulated fleet does with its load: scaling, routing, refusing, draining, paying."""

import gc
import tracemalloc
from collections.abc import Iterable

import pytest

from serve_app.capacity.results.slo import Slo, Verdict
from serve_app.capacity.simulate.policies import Demand, ReplicaSchedule, Static, demand, oracle
from serve_app.capacity.simulate.policy import RayPolicy
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.run import SimulatedRouting, SimulatedService, simulate
from serve_app.capacity.simulate.startup import FixedStartup, UniformStartup
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.lengths import Fixed, Independent
from serve_app.capacity.workload.requests import Synthetic, WorkloadRequest
from serve_app.capacity.workload.shapes import Shape
from serve_app.scaling_settings import Autoscaling

SECOND = ServiceModel(0.0, 100.0)  # 100 tokens take one
LENGTHS = Independent(Fixed(1), Fixed(100))
ROUTINGS: tuple[SimulatedRouting, ...] = ("serve", "gateway", "haproxy")


def scaling(**options: float) -> Autoscaling:
    quick = {"upscale_delay_s": 1, "downscale_delay_s": 5, "look_back_period_s": 5}
    return Autoscaling.model_validate(quick | {"metrics_interval_s": 1, **options})


def run(
    requests: Iterable[WorkloadRequest],
    service: SimulatedService,
    seconds: float | None = None,
    seed: int = 0,
) -> Result:
    options = service.scaling.serve_options
    options["target_ongoing_requests"] = service.target_ongoing_requests
    return simulate(requests, service, RayPolicy(options), seed, seconds)


def load(text: str, seed: int = 0, burstiness: float = 1.0) -> Synthetic:
    return Synthetic(Shape.parse(text), LENGTHS, seed, burstiness)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_fleet_follows_its_load_up_and_down(routing: SimulatedRouting) -> None:
    """One replica, six under the load, one again; nothing is lost, each start is paid for."""
    service = SimulatedService(
        SECOND,
        queue=200,
        scaling=scaling(max_replicas=6),
        startup=FixedStartup(5),
        routing=routing,
    )
    ramp = load("points:0s=1,20s=1,40s=18,100s=18,110s=1,140s=1")
    result = run(ramp, service, 180)
    running = [sample.running for sample in result.samples]
    assert (running[0], max(running), running[-1]) == (1, 6, 1)
    assert result.error_rate == 0
    assert result.requests == sum(1 for _ in ramp)
    by_the_second = sum(sample.billed for sample in result.samples)
    assert result.replica_seconds == pytest.approx(by_the_second, rel=0.03)


def test_a_pool_wakes_from_zero_and_sleeps_again() -> None:
    """The first request waits for the start, and for the router's next note of it: no delay."""
    service = SimulatedService(
        SECOND, scaling=scaling(min_replicas=0, max_replicas=2), startup=FixedStartup(7)
    )
    result = run([WorkloadRequest(10, 1, 100)], service, 60)
    assert 7 < result.quantile("ttft", 0.5) < 7 + 1 + 0.2
    assert [result.samples[at].running for at in (5, 20, 55)] == [0, 1, 0]


def test_one_seed_gives_one_result() -> None:
    """Another seed another one, on the same arrivals."""
    service = SimulatedService(
        SECOND, scaling=scaling(max_replicas=4), startup=UniformStartup(3, 9)
    )
    one, same, other = (run(load("ramp:to=9"), service, seed=seed) for seed in (1, 1, 2))
    assert one.summary() == same.summary() != other.summary()


def test_what_finds_no_room_is_refused() -> None:
    """Slots and queue of one replica hold five; the surplus counts as errors."""
    service = SimulatedService(SECOND, slots=2, queue=3, max_ongoing=100)
    result = simulate([WorkloadRequest(0, 1, 100)] * 8, service, Static(1))
    assert (result.requests, result.refusals) == (8, 3)
    assert result.judge(Slo.parse("error_rate=50%"))[0].verdict is Verdict.MET


def test_the_router_holds_what_replicas_do_not_take() -> None:
    """Up to its own bound."""
    service = SimulatedService(SECOND, slots=2, queue=0, max_queued=3)
    result = simulate([WorkloadRequest(0, 1, 100)] * 8, service, Static(1))
    assert (result.requests, result.refusals) == (8, 3)
    assert result.quantile("e2e", 1.0) == pytest.approx(3.0)


def test_a_queue_is_left_after_the_timeout() -> None:
    """A request that waits for a slot longer than the time-out is refused, as by the service."""
    service = SimulatedService(SECOND, slots=1, queue=9, queue_timeout_s=2.5)
    result = simulate([WorkloadRequest(0, 1, 100)] * 6, service, Static(1))
    assert (result.refusals, result.quantile("e2e", 1.0)) == (3, pytest.approx(3.0))


def test_a_replica_that_drains_finishes_its_answers_and_is_paid_for() -> None:
    """Its queue as well."""
    service = SimulatedService(SECOND, slots=1, queue=9, scaling=scaling(max_replicas=2), drain_s=1)
    down = ReplicaSchedule(1.0, (2, 1))
    result = simulate([WorkloadRequest(0.5, 1, 400)] * 2, service, down, seconds=20)
    assert result.error_rate == 0
    assert result.quantile("e2e", 1.0) == pytest.approx(4.0)
    assert result.replica_seconds == pytest.approx(20 + 0.5 + 4 + 1, abs=0.2)


def test_a_slot_reads_no_prompt_twice() -> None:
    """A conversation's next turn finds its history in the slot; so do equal blocks."""
    model = ServiceModel(prefill_tokens_per_s=1000.0)
    turns = [WorkloadRequest(0, 1000, 1, "one"), WorkloadRequest(10, 1500, 1, "one")]
    result = simulate(turns, SimulatedService(model), Static(1))
    assert result.values("ttft").tolist() == pytest.approx([1.0, 0.499])
    blocks = [
        WorkloadRequest(0, 1024, 1, blocks=(7, 8)),
        WorkloadRequest(10, 1024, 1, blocks=(7, 9)),
    ]
    result = simulate(blocks, SimulatedService(model), Static(1))
    assert result.values("ttft").tolist() == pytest.approx([1.024, 0.512])


@pytest.mark.parametrize("routing", ROUTINGS)
def test_load_is_spread_over_the_replicas(routing: SimulatedRouting) -> None:
    """With ten replicas of one slot, half busy, the wait depends on the routing rule."""
    ten = scaling(min_replicas=10, max_replicas=10)
    service = SimulatedService(SECOND, slots=1, queue=50, scaling=ten, routing=routing)
    result = simulate(load("constant:level=5,hold=400"), service, Static(10))
    waited = result.values("ttft") > 0.02
    # Two random ones are both busy in one of four cases; of eight one is free, HAProxy finds it.
    assert waited.mean() == pytest.approx(0.25 if routing == "serve" else 0.02, abs=0.03)


def test_demand_is_the_work_of_full_replicas() -> None:
    """Four slots at one second each: eight a second keep two replicas busy."""
    needed = demand(load("constant:level=8,hold=100", burstiness=0), SECOND, slots=4)
    assert needed.replicas == pytest.approx([2.0] * 10)
    assert (needed.mean, needed.peak) == (pytest.approx(2.0), pytest.approx(2.0))


def test_the_oracle_starts_replicas_before_they_are_needed() -> None:
    """And keeps them through a short lull."""
    steps = Demand(10.0, (0.5, 0.5, 0.5, 2.5, 0.5, 2.5, 0.5, 0.5, 0.5, 0.5))
    schedule = oracle(steps, lead_s=5, hold_s=10)
    assert schedule.replicas == (1, 3, 3, 3, 3, 3, 3, 1, 1, 1)
    assert schedule.target(1e9, 0, 0, 0.0) == 1


def test_attainment_counts_requests_that_met_every_bound() -> None:
    """Who was refused did not."""
    service = SimulatedService(SECOND, slots=1, queue=2)
    result = simulate([WorkloadRequest(0, 1, 100)] * 5, service, Static(1))
    # Served after 0, 1 and 2 s; two are refused.
    assert result.attainment(Slo.parse("ttft_p99=1.5s")) == pytest.approx(2 / 5)
    assert result.attainment(Slo.parse("itl_p99=5ms")) == 0.0
    assert not result.meets(Slo.parse("error_rate=10%"))


def test_memory_is_bounded_by_a_few_numbers_a_request() -> None:
    """Less than 64 bytes each: requests, jobs and events do not pile up."""
    service = SimulatedService(SECOND, scaling=scaling(min_replicas=8, max_replicas=8))
    tracemalloc.start()
    result = simulate(load("constant:level=25,hold=160"), service, Static(8))
    gc.collect()  # whether the last objects were collected depends on other tests
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    samples = len(result.samples)
    assert held < 64 * result.requests + 600 * samples + 150_000


def test_a_service_without_load_costs_its_minimum() -> None:
    """And has nothing to judge."""
    result = run([], SimulatedService(SECOND, scaling=scaling(max_replicas=3)), 100)
    assert result.replica_seconds == pytest.approx(100, abs=1.1)
    assert result.judge(Slo.parse("ttft_p50=1s"))[0].verdict is Verdict.TOO_FEW


def test_gaps_between_tokens_are_pooled_over_tokens() -> None:
    """One answer alone for a second, then two that slow each other."""
    model = ServiceModel(0.0, 100.0, 1.0)
    requests = [WorkloadRequest(0, 1, 300), WorkloadRequest(1, 1, 1000)]
    result = simulate(requests, SimulatedService(model), Static(1))
    assert result.quantile("itl", 0.0) == pytest.approx(0.01)
    assert result.quantile("itl", 0.9) == pytest.approx(0.02)

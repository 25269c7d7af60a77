"""Plans: settings with their evidence, and refusals with their reasons."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from kuberay.changes.checks import check
from serve_app.capacity.planning.plan import Plan, Refused, make_plan
from serve_app.capacity.planning.recommendations import PlannedDemand, Recommendation, ongoing_at
from serve_app.capacity.results.request_records import ClientOutcome, Record, Run, write_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.policies import Static
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.measured import Measured, Sweep, SweepError
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.sweep.report import fit_model, report, slot_wait
from serve_app.capacity.sweep.steps import StepKind, SweepStep, step_of
from serve_app.capacity.workload.lengths import Fixed, Independent, parse_lengths
from serve_app.capacity.workload.requests import Synthetic
from serve_app.capacity.workload.shapes import Shape
from serve_app.dispatch.pool_placement import fleet_view
from serve_app.settings import Settings

SLO = Slo.parse("ttft_p99=2s,error_rate=1%")


def step(kind: StepKind, level: float, per_s: float, wait: float = 0.2) -> SweepStep:
    """Answers of 0.8 s and 40 tokens, 100 s of them."""
    times = [i / per_s - 10 for i in range(int(110 * per_s))]  # ten seconds of warm-up
    records = [
        Record(
            t, ClientOutcome.OK, t, t + wait, t + wait + 0.8, prompt_tokens=100, output_tokens=40
        )
        for t in times
    ]
    return step_of(kind, level, records, 0.0, 100.0)


USERS = (
    step(StepKind.CONCURRENCY, 1, 1.25),
    step(StepKind.CONCURRENCY, 4, 8.0),
    step(StepKind.CONCURRENCY, 8, 8.1),
)
RATES = (step(StepKind.RATE, 6, 6.0), step(StepKind.RATE, 8, 8.0, wait=3.0))
GOOD = Measured(4, USERS + RATES)


def by_name(made: Plan) -> dict[str, Recommendation]:
    return {choice.name.rpartition(".")[2]: choice for choice in made.recommendations}


def test_a_plan_follows_from_the_largest_load_within_the_slo() -> None:
    """6 requests/s at six requests at once: 85 % of both is planned for."""
    choices = by_name(make_plan([GOOD], SLO, PlannedDemand(peak=50, base=6, startup_s=20)))
    values = {name: choice.value for name, choice in choices.items()}
    assert values == {
        "slots": 4,
        "queue": 12,  # 6 requests/s x 2 s
        "max_ongoing_requests": 16 + 256,
        "max_queued_requests": 102,  # 10 replicas x 5.1 requests/s x 2 s
        "target_ongoing_requests": 5.1,
        "expected_request_s": 1.0,
        "max_replicas": 10,
        "min_replicas": 2,
        "initial_replicas": 2,
        "look_back_period_s": 2.0,
        "metrics_interval_s": 0.5,
        "upscale_delay_s": 2.0,
        "downscale_delay_s": 60,
    }
    assert all(choice.because.endswith(".") for choice in choices.values())
    assert "At 5.1 requests/s" in choices["target_ongoing_requests"].because


def test_a_pool_behind_a_gateway_expects_the_speeds_of_the_sweep() -> None:
    """The service starts with them: its routing reads the prompts' speed, both the held time."""
    made = make_plan([GOOD], SLO, PlannedDemand(peak=50, direct=False))
    args = made.config()["applications"][0]["args"]
    (pool,) = Settings.model_validate(args).all_pools
    speeds = fleet_view(pool).speeds("m")
    rate = fit_model(GOOD).model.prefill_tokens_per_s
    assert (round(speeds.prefill_tokens_per_s), speeds.hold_s) == (round(rate), 1.0)


def test_requests_at_once_are_read_between_the_steps() -> None:
    """From zero on; beyond the last step nothing is known but that step."""
    assert ongoing_at(RATES, 3.0) == pytest.approx(3.0)
    assert ongoing_at(RATES, 7.0) == pytest.approx((6.0 + 8 * 3.8) / 2, rel=0.01)
    assert ongoing_at(RATES, 99.0) == pytest.approx(8 * 3.8, rel=0.01)


def test_a_plan_is_a_serve_config_that_ray_and_the_service_take() -> None:
    """As it is written: `serve deploy` takes it, the rest comes from the environment."""
    text = make_plan([GOOD], SLO, PlannedDemand(peak=50, startup_s=20)).yaml()
    assert text.startswith("# engine.slots: 4. ")
    config = yaml.safe_load(text)
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    assert (application["name"], application["deployments"][0]["name"]) == ("default", "pool")
    assert (application["import_path"], application["route_prefix"]) == ("serve_app:app", "/")
    args = Settings.model_validate(application["args"])
    assert (
        args.all_pools[0].max_ongoing_requests(True)
        == (application["deployments"][0]["max_ongoing_requests"])
    )


def test_what_serves_most_is_chosen_among_numbers_of_slots() -> None:
    """And the others are named in evidence."""
    better = Measured(8, (*USERS, step(StepKind.RATE, 7, 7.0), RATES[1]))
    choice = by_name(make_plan([GOOD, better], SLO, PlannedDemand(peak=10)))["slots"]
    assert choice.value == 8
    assert "6 with 4" in choice.because


def test_without_a_start_up_time_no_delay_is_planned() -> None:
    """Nothing measured says how long they should be."""
    names = by_name(make_plan([GOOD], SLO, PlannedDemand(peak=10)))
    assert not {"upscale_delay_s", "downscale_delay_s", "look_back_period_s"} & set(names)


def test_a_pool_that_may_sleep_begins_at_zero() -> None:
    """With one replica at deployment."""
    values = by_name(make_plan([GOOD], SLO, PlannedDemand(peak=10, to_zero=True, direct=False)))
    assert values["min_replicas"].value == 0
    assert values["initial_replicas"].value == 1
    assert values["max_ongoing_requests"].value == 6


@pytest.mark.parametrize(
    "demand",
    [
        PlannedDemand(peak=50, startup_s=20),
        PlannedDemand(peak=50, base=6, direct=False),
        PlannedDemand(peak=50, direct=False, to_zero=True),
    ],
    ids=["direct", "gateway", "to zero"],
)
def test_a_plan_contradicts_nothing(demand: PlannedDemand) -> None:
    """Neither Serve, nor our settings, nor itself: its topology and its zero stand in args too."""
    config = make_plan([GOOD], SLO, demand).config()
    check(config)
    (application,) = config["applications"]
    settings = Settings.model_validate(application["args"])
    assert settings.resolved_topology == ("direct" if demand.direct else "gateway")


@pytest.mark.parametrize(
    ("measurement", "slo", "reason"),
    [
        (Measured(4, USERS[:2] + RATES[:1]), SLO, "saturation was not reached"),
        (Measured(4, USERS), SLO, "there is no step of arrivals"),
        (GOOD, Slo.parse("ttft_p99.9=2s"), "too few samples for ttft_p99.9=2s"),
        (GOOD, Slo.parse("ttft_p99=10ms"), "missed even at the lowest rate, 6 requests/s"),
        (
            Measured(4, (*USERS, replace(RATES[0], invalid=("it was late",)), RATES[1])),
            SLO,
            "a run is invalid: rate 6: it was late",
        ),
    ],
)
def test_what_the_data_does_not_support_is_refused(
    measurement: Measured, slo: Slo, reason: str
) -> None:
    """With the reason."""
    with pytest.raises(Refused, match=reason):
        make_plan([measurement], slo, PlannedDemand(peak=10))


def test_one_good_measurement_is_enough() -> None:
    """Others that say nothing are left aside."""
    made = make_plan([Measured(8, USERS), GOOD], SLO, PlannedDemand(peak=10))
    assert by_name(made)["slots"].value == 4


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Records, slots, SLO and scenario."""
    for number, measured_step in enumerate(GOOD.steps):
        write_run(tmp_path / str(number), Run("reference", "", 0.0, 100.0), measured_step.records)
    places = [[str(number) for number in range(len(GOOD.steps))]]
    measured.write(tmp_path, Sweep((GOOD,), SLO, {"queue": 3}, {"seed": 1}), places)
    again = measured.read(tmp_path)
    assert (again.slo, again.service, again.load) == (SLO, {"queue": 3}, {"seed": 1})
    assert report(again.measured[0], SLO).largest is not None
    assert [s.level for s in again.measured[0].steps] == [s.level for s in GOOD.steps]


def simulated(rate: float, burstiness: float) -> SweepStep:
    """Two slots; answers of 0.9 s on average, more or less."""
    lengths = Independent(Fixed(1), parse_lengths("lognormal:median=80,p95=200"))
    load = Synthetic(Shape(((0, rate), (2000, rate))), lengths, 3, burstiness)
    result = simulate(load, SimulatedService(ServiceModel(0.0, 100.0), 2, 500), Static(1))
    rows = zip(*(result.values(name).tolist() for name in ("first", "ttft", "e2e")), strict=True)
    records = [
        Record(
            intended=first - ttft,
            outcome=ClientOutcome.OK,
            first=first,
            ended=first - ttft + e2e,
            prompt_tokens=1,
            output_tokens=round((e2e - ttft) * 100) + 1,
        )
        for first, ttft, e2e in rows
    ]
    kind = StepKind.RATE if burstiness else StepKind.CONCURRENCY
    return step_of(kind, rate, records, 0.0, 2000.0)


def test_waits_for_a_slot_are_held_against_theory() -> None:
    """Simulated M/G/2 arrivals at 70 % load: both means agree within a fifth."""
    alone, busy = simulated(0.1, burstiness=0.0), simulated(1.5, burstiness=1.0)
    model = fit_model(Measured(2, (alone, busy))).model
    wait = slot_wait(busy, 2, model)
    assert wait is not None
    assert wait.measured_s == pytest.approx(wait.expected_s, rel=0.2)


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(SweepError, match=tmp_path.name):
        measured.read(tmp_path)

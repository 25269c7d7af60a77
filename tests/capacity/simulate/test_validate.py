"""Replaying live experiments: what is read from their folders, and how errors are counted."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from serve_app.capacity.results.cluster_samples import SAMPLES, Sample, read_samples
from serve_app.capacity.results.request_records import ClientOutcome, Record, Run, write_run
from serve_app.capacity.simulate.ahead import AheadPolicy
from serve_app.capacity.simulate.live import Live, ValidationError, read_live
from serve_app.capacity.simulate.policy import RayPolicy
from serve_app.capacity.simulate.run import simulate
from serve_app.capacity.simulate.scene import service_of
from serve_app.capacity.simulate.startup import FixedStartup, ReplayedStartup
from serve_app.capacity.simulate.validate import ComparedFigure, validate
from serve_app.capacity.workload.lengths import Fixed, Independent
from serve_app.capacity.workload.requests import Synthetic
from serve_app.capacity.workload.scenario import Scenario
from serve_app.capacity.workload.shapes import Shape
from serve_app.scaling.memory import Aim

BEGAN = 1_700_000_000.0
SERVICE: dict[str, Any] = {
    "engine": {
        "kind": "simulated",
        "slots": 2,
        "simulated": {"prefill_tokens_per_s": 1000, "decode_tokens_per_s": 50},
    },
    "autoscaling": {
        "max_replicas": 4,
        "upscale_delay_s": 1,
        "downscale_delay_s": 10,
        "look_back_period_s": 5,
        "metrics_interval_s": 1,
    },
}
LOAD = Synthetic(
    Shape.parse("points:0s=1,20s=1,30s=6,80s=6,90s=1,120s=1"), Independent(Fixed(100), Fixed(25))
)


AHEAD: dict[str, Any] = {**SERVICE, "autoscaling": {"policy": "ahead", "max_replicas": 4}}


def live(
    folder: Path, seed: int, startup_s: float, stretch: float = 1.0, settings: Any = SERVICE
) -> None:
    """A run as an experiment keeps it. Its service is the simulator, its answers `stretch`ed."""
    scenario = Scenario(service=settings)
    service = service_of(scenario, startup=FixedStartup(startup_s))
    scaling = scenario.pool.autoscaling
    options = scaling.serve_options
    options["target_ongoing_requests"] = scenario.pool.target_ongoing_requests
    policy = AheadPolicy(Aim(), scaling) if settings is AHEAD else RayPolicy(options)
    result = simulate(LOAD, service, policy, seed, 150)
    order = sorted(
        zip(*(result.values(name).tolist() for name in ("first", "ttft", "e2e")), strict=True),
        key=lambda row: row[0] - row[1],
    )
    records = [
        Record(
            intended=BEGAN + first - ttft,
            outcome=ClientOutcome.OK,
            started=BEGAN + first - ttft,
            first=BEGAN + first - ttft + stretch * ttft,
            ended=BEGAN + first - ttft + stretch * ttft + (e2e - ttft),
            prompt_tokens=100,
            output_tokens=25,
        )
        for first, ttft, e2e in order
    ]
    write_run(folder, Run("reference", "", BEGAN, BEGAN + 150), records)
    samples = [replace(sample, at=BEGAN + sample.at).line() for sample in result.samples]
    (folder / SAMPLES).write_bytes(b"".join(samples))
    scenario = {"service": settings, "haproxy": True}
    (folder / "scenario.json").write_bytes(orjson.dumps(scenario))


def nothing() -> None:
    """No progress to be shown."""


def test_runs_that_behave_as_the_model_says_are_met(tmp_path: Path) -> None:
    """Three of them; start-up times are read from their samples."""
    for seed in (7, 8, 9):
        live(tmp_path / f"run-{seed - 6}", seed, startup_s=6)
    validation = validate(tmp_path, range(6), nothing)
    assert validation.holds
    assert (validation.runs, validation.seeds) == (3, 6)
    assert {figure.name for figure in validation.figures} == {
        "replicas over time",
        "TTFT p50",
        "TTFT p99",
        "replica-seconds",
    }


def test_runs_of_the_own_policy_are_replayed_with_it(tmp_path: Path) -> None:
    """Its replicas follow the load as they did; Serve's policy would not have added them so."""
    for seed in (7, 8, 9):
        live(tmp_path / f"run-{seed - 6}", seed, startup_s=6, settings=AHEAD)
    assert validate(tmp_path, range(3), nothing).holds


def test_a_run_that_begins_below_its_minimum_is_replayed(tmp_path: Path) -> None:
    """Its first sample is of a service that still starts."""
    settings = {**SERVICE, "autoscaling": {**SERVICE["autoscaling"], "min_replicas": 2}}
    live(tmp_path, 7, startup_s=6, settings=settings)
    first, *others = (tmp_path / SAMPLES).read_bytes().splitlines(keepends=True)
    first = replace(Sample.read(first), running=1, starting=1).line()
    (tmp_path / SAMPLES).write_bytes(b"".join((first, *others)))
    assert validate(tmp_path, range(1), nothing).runs == 1


def test_starts_before_the_replay_begins_are_left_out(tmp_path: Path) -> None:
    """It begins with two replicas; the second has taken 25 s to start, later ones 6."""
    live(tmp_path, 7, startup_s=6)
    before = [
        Sample(BEGAN - 40, 2, 1),
        Sample(BEGAN - 35, 2, 1, starting=1),
        Sample(BEGAN - 10, 2, 2),
    ]
    samples = [*before, *(replace(s, running=max(2, s.running)) for s in read_samples(tmp_path))]
    (tmp_path / SAMPLES).write_bytes(b"".join(sample.line() for sample in samples))
    (startup,) = validate(tmp_path, range(1), nothing).startups
    assert "25" not in startup


def test_a_slower_service_is_told_apart(tmp_path: Path) -> None:
    """First tokens twice as late as modelled: no overhead explains the tail, the replicas hold."""
    for number in (1, 2, 3):
        live(tmp_path / f"run-{number}", number, startup_s=6, stretch=2)
    validation = validate(tmp_path, range(3), nothing)
    assert not validation.holds
    failed = {figure.name for figure in validation.figures if not figure.holds}
    assert failed == {"TTFT p99"}


def test_one_run_proves_nothing(tmp_path: Path) -> None:
    """Its own spread is not known."""
    live(tmp_path, 1, startup_s=6)
    validation = validate(tmp_path, range(2), nothing)
    assert not validation.holds
    assert all(figure.holds for figure in validation.figures)


@pytest.mark.parametrize(
    ("error", "spread", "holds"), [(0.14, 0.0, True), (0.16, 0.0, False), (0.3, 0.4, True)]
)
def test_an_error_is_allowed_up_to_the_runs_own_spread(
    error: float, spread: float, holds: bool
) -> None:
    """Or 15 %, if that is more."""
    assert ComparedFigure("TTFT p50", "s", 1.0, 1.0, error, spread).holds is holds


def sampled(*states: tuple[int, int, int]) -> Live:
    """A run with one sample a second: replicas running, starting, draining."""
    return Live((), tuple(Sample(float(at), 1, *state) for at, state in enumerate(states)), 0.0)


def test_start_times_are_read_first_in_first_out() -> None:
    """Two replicas start; the first runs after 3 s, the second after 5."""
    starting = [0, 2, 2, 2, 1, 1, 0]
    run = sampled(*((2 - count if at else 0, count, 0) for at, count in enumerate(starting)))
    assert run.start_times() == [3.0, 5.0]


def test_a_start_in_the_second_in_which_another_ends_counts() -> None:
    """The number of starting replicas stays the same in that second."""
    run = sampled((1, 0, 0), (1, 1, 0), (1, 1, 0), (2, 1, 0), (2, 1, 0), (2, 1, 0), (3, 0, 0))
    assert run.start_times() == [2.0, 3.0]


def test_a_start_that_was_cancelled_has_no_time() -> None:
    """Serve stops the newest first; it drains like a running one."""
    run = sampled((1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 0, 1), (2, 0, 0))
    assert run.start_times() == [3.0]
    assert run.drain_times() == [2.0]


def test_drain_times_are_read_first_in_first_out() -> None:
    """One replica ends in the second in which another begins to drain."""
    run = sampled((3, 0, 0), (2, 0, 1), (2, 0, 1), (1, 0, 1), (1, 0, 1), (1, 0, 0))
    assert run.drain_times() == [2.0, 2.0]


def answered(intended: float, ttft: float) -> Record:
    return Record(intended, ClientOutcome.OK, first=intended + ttft, ended=intended + ttft)


def test_the_time_to_join_ends_with_the_first_request_that_need_not_wait() -> None:
    """All waited when the second replica ran, 3.5 s before a request reached it."""
    records = (answered(3.0, 9.0), answered(5.0, 8.0), answered(7.5, 0.1), answered(8.0, 4.0))
    run = replace(sampled((1, 1, 0), *[(1, 1, 0)] * 3, (2, 0, 0), (3, 0, 0)), records=records)
    assert run.join_time() == 3.5


def test_the_time_to_join_is_unknown_where_nobody_waited() -> None:
    """One of the last requests did not, or there was none."""
    run = sampled((1, 1, 0), *[(1, 1, 0)] * 3, (2, 0, 0))
    assert run.join_time() is None
    assert replace(run, records=(answered(2.5, 9.0), answered(3.0, 0.1))).join_time() is None


def test_start_times_are_replayed_in_their_order() -> None:
    """And drawn from after the last, whatever the seed."""
    startup = ReplayedStartup((7.0, 12.0, 9.0))
    rng = random.Random(1)
    assert [startup.draw(rng) for _ in range(3)] == [7.0, 12.0, 9.0]
    assert {startup.draw(rng) for _ in range(50)} == {7.0, 12.0, 9.0}


def test_a_replay_begins_with_the_target_at_the_begin_of_the_load() -> None:
    """Polls of readiness, which are not recorded, may have raised it before."""
    samples = [Sample(at, target, running=1) for at, target in ((-2.0, 1), (-1.0, 2), (1.0, 5))]
    assert Live((), tuple(samples), 0.0).target_at_load == 2
    assert Live((), tuple(samples), -9.0).target_at_load == 1


def test_who_cannot_have_waited_is_known() -> None:
    """With one slot: the first, and the one that comes when the others have gone."""
    spans = [(0.0, 5.0), (1.0, 6.0), (7.0, 9.0)]
    records = [Record(begin, ClientOutcome.OK, ended=end) for begin, end in spans]
    run = Live(tuple(records), (), 0.0)
    assert run.unhindered(1) == [records[0], records[2]]
    assert run.unhindered(2) == records


def test_failed_requests_are_replayed_as_they_were_asked(tmp_path: Path) -> None:
    """And what was cancelled is not."""
    live(tmp_path, 1, startup_s=6)
    late = [
        Record(BEGAN + 149, ClientOutcome.TIMEOUT, asked_prompt_tokens=7, asked_output_tokens=9),
        Record(BEGAN + 149, ClientOutcome.CANCELLED),
    ]
    write_run(tmp_path, Run("reference", "", BEGAN, BEGAN + 150), late)
    run = read_live(tmp_path)
    last = run.requests(run.begin_s)[-1]
    assert (last.prompt_tokens, last.output_tokens) == (7, 9)
    assert last.at_s == pytest.approx(148)  # the first sample came after a second


def test_a_folder_that_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    """With what is missing, or what the simulator can't know."""
    with pytest.raises(ValidationError, match="holds no run"):
        validate(tmp_path, range(1), nothing)
    live(tmp_path, 1, startup_s=6)
    (tmp_path / "scenario.json").write_bytes(orjson.dumps({"service": {"models": "llama3.2:3b"}}))
    with pytest.raises(ValidationError, match="is not in the settings"):
        validate(tmp_path, range(1), nothing)

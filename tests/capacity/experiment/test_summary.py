"""What one run's records and samples say."""

import orjson
import pytest

from serve_app.capacity.experiment.summary import findings
from serve_app.capacity.results.request_records import ClientOutcome, Record
from tests.capacity.experiment import recorded


def test_a_run_is_summed_up() -> None:
    """Replicas, their times, what they cost, and what would have done."""
    summary = findings(recorded.SCENARIO, recorded.RUN, recorded.records(), recorded.samples())
    (response,) = summary.responses
    (step,) = response.steps
    assert (step.replicas, step.wanted_s, step.running_s) == (2, 3.0, 9.0)
    assert (summary.start_s, summary.peak_running, summary.lowest_after) == (6.0, 2, 1)
    assert (summary.flaps, summary.target_changes, summary.engine_starts) == (0, 2, 2)
    assert summary.replica_seconds == 64 + (47 - 13)
    assert summary.cost == pytest.approx(summary.replica_seconds * 2.0 / 3600)
    assert summary.hindsight.cheapest is not None
    assert summary.hindsight.work <= summary.hindsight.cheapest < summary.replica_seconds
    assert response.slo_lost_s == pytest.approx(2.0)
    assert response.slo_met_s == pytest.approx(10 + 9.0, abs=1.5)


def test_lost_requests_are_those_without_answer_or_refusal() -> None:
    """Truncated ones are among them; refused and cancelled ones are not."""
    outcomes = [*ClientOutcome]
    broken = [Record(recorded.BEGAN, outcome) for outcome in outcomes]
    summary = findings(recorded.SCENARIO, recorded.RUN, broken, recorded.samples())
    assert (summary.lost, summary.truncated, summary.refused) == (4, 1, 1)


def test_without_a_sample_there_is_nothing_to_say() -> None:
    """A run that was not watched is no experiment."""
    with pytest.raises(ValueError, match="no sample"):
        findings(recorded.SCENARIO, recorded.RUN, recorded.records(), [])


def test_a_load_that_only_holds_is_one_step_at_its_beginning() -> None:
    """From nothing."""
    load = {**recorded.SCENARIO.load, "shape": "constant:level=4,hold=40s"}
    scenario = recorded.SCENARIO.model_copy(update={"load": load})
    summary = findings(scenario, recorded.RUN, recorded.records(), recorded.samples())
    (response,) = summary.responses
    assert (response.rise.begin, response.rise.high) == (recorded.BEGAN, 4)


def test_a_summary_is_json() -> None:
    """What is not a number is null there."""
    summary = findings(recorded.SCENARIO, recorded.RUN, [], recorded.samples())
    value = orjson.loads(orjson.dumps(summary.as_json()))
    assert value["slo_attainment"] is None
    assert value["replica_seconds"] == 98
    assert value["least"].keys() == {"work", "least"}
    assert "least_cost" in value

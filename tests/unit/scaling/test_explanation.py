"""Why a pool has its target, as a record."""

import pytest

from serve_app.scaling.explanation import STATE, DecisionRecord, Explanation, read_explanation
from serve_app.scaling.forecast import ForecastBound
from serve_app.scaling.policy import ScalingDecision
from serve_app.scaling.schedules import TargetBounds

OFFICE = TargetBounds(4, 8, "schedule office", "max_replicas")
FORECAST = ForecastBound("season of 20 min", 2.9, 3.804)


def record(
    forecast: ForecastBound | None = FORECAST, bounds: TargetBounds = OFFICE
) -> DecisionRecord:
    decision = ScalingDecision(4, "load", 3.1234, 4, forecast, 0.995, 61.26, bounds)
    return DecisionRecord.of(decision, 2, 1000.04)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (
            record(),
            "load 3.12, needed 4, forecast 3.80 (season of 20 min at 0.995), start-up 61 s, "
            "schedule office, set by load",
        ),
        (
            record(None, TargetBounds(1, 8)),
            "load 3.12, needed 4, forecast none yet, start-up 61 s, set by load",
        ),
    ],
)
def test_a_record_has_every_reason(record: DecisionRecord, sentence: str) -> None:
    """Load, forecast with its quantile, start-up time, schedule, and the bound that won."""
    assert record.reasons == sentence
    assert record.change == f"from 2 to 4 replicas: {sentence}"


def test_changes_are_remembered_and_decisions_are_not() -> None:
    """The last ten, the newest first."""
    explanation = Explanation(True, record())
    for number in range(30):
        decision = ScalingDecision(number, "load", 0.0, 0, None, 0.9, 1.0, OFFICE)
        is_change = number % 2 == 0
        explanation = explanation.after(DecisionRecord.of(decision, 0, number), is_change)
    document = explanation.as_dict()
    assert document["target"] == 29
    assert "at" not in document  # or every poll of an idle pool would be another document
    assert [change["target"] for change in document["changes"]] == list(range(28, 8, -2))


def test_an_explanation_is_read_from_the_state_of_its_policy_alone() -> None:
    """Serve's own policy keeps other things there."""
    explanation = Explanation(False, record())
    assert read_explanation({STATE: explanation}) == explanation.as_dict()
    assert explanation.as_dict()["policy"] == "shadow"
    for state in (None, {}, {STATE: "text"}, {"decision_counter": 3}):
        assert read_explanation(state) is None

"""What a key may do: its own policy, its group's, the default."""

import pytest
from pydantic import ValidationError

from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.access.policies import Policy


def test_a_policy_takes_what_it_does_not_say_from_the_default() -> None:
    """Each value for itself."""
    own, default = Policy(weight=2), Policy(weight=1, tokens_per_day=9)
    assert own.or_those_of(default) == Policy(weight=2, tokens_per_day=9)


@pytest.mark.parametrize(
    "values", [{"weight": 0}, {"max_parallel": 0}, {"models": ()}, {"priority": "urgent"}, {"x": 1}]
)
def test_impossible_values_are_refused(values: dict[str, object]) -> None:
    """And so are fields that there are not."""
    with pytest.raises(ValidationError):
        Policy.model_validate(values)


def test_a_caller_may_use_what_its_patterns_match() -> None:
    """Without patterns every model."""
    caller = Caller("ada", models=("llama3:*", "smollm2:135m"))
    assert caller.may_use("llama3:8b")
    assert not caller.may_use("llama31:8b")
    assert ANONYMOUS.may_use("anything")


def test_only_a_policy_with_limits_is_limited() -> None:
    """Weight, priority and models are no limits."""
    assert not Policy(weight=2).is_limited
    assert Policy(tokens_per_minute=5).is_limited
    assert Policy(tokens_per_minute=5, weight=2).limits.tokens_per_minute == 5

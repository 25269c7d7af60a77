"""What a replica knows of its models over time."""

import pytest

from serve_app.engines.call_rates import HALF_LIFE_S, CallRates
from serve_app.engines.model_state import MAX_RETRY_S, MIN_RETRY_S, ModelState


def test_calls_count_half_after_a_while() -> None:
    """A steady rate is found, and forgotten when it ends."""
    rates = CallRates()
    for second in range(1000):
        rates.count("a", float(second))
    assert rates.per_second(1000)["a"] == pytest.approx(1.0, rel=0.02)
    assert rates.per_second(1000 + HALF_LIFE_S)["a"] == pytest.approx(0.5, rel=0.02)


def test_walls_grow_with_each_failure_and_fall_with_a_load() -> None:
    """A load that keeps failing is tried less and less often."""
    state = ModelState()
    seconds = [state.note_failure("a", frozenset(), 0.0) for _ in range(9)]
    assert seconds[:3] == [MIN_RETRY_S, 2 * MIN_RETRY_S, 4 * MIN_RETRY_S]
    assert seconds[-1] == MAX_RETRY_S
    assert state.view({}, 1.0).failed_loads
    state.note_load("a", 2.0)
    assert not state.view({}, 1.0).failed_loads
    assert state.note_failure("a", frozenset(), 0.0) == MIN_RETRY_S


def test_measured_loads_are_averaged() -> None:
    """The first one counts whole, later ones by a share."""
    state = ModelState()
    state.note_load("a", 10.0)
    state.note_load("a", 20.0)
    assert state.view({}, 0.0).load_s["a"] == pytest.approx(13.0)


def test_a_model_keeps_its_size_and_its_users_over_an_unload() -> None:
    """A known size says whether it fits the next time; calls may outlive the engine's list."""
    state = ModelState()
    state.add("a", 7, 0.0)
    state.use("a")
    state.lose("a")
    assert state.view({}, 1.0).lost == {"a"}
    assert state.add("a", 0, 2.0)
    (model,) = state.view({}, 3.0).loaded.values()
    assert (model.bytes, model.users, model.since) == (7, 1, 2.0)
    assert state.release("a", 4.0)
    assert state.view({}, 5.0).loaded["a"].idle_since == 4.0

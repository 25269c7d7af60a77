"""The service model: its arithmetic, and how it is fitted to records."""

import random
from collections.abc import Iterator

import pytest

from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.sweep.model import FitError, ServiceModel, fit_steps, streams

MODEL = ServiceModel(2000.0, 50.0, 0.2, 0.03)


def step(users: int, model: ServiceModel = MODEL, seed: int = 0) -> Iterator[Record]:
    """Users that start together again and again, with the times of the model."""
    rng = random.Random(seed)
    for turn in range(5):
        begin = 100.0 * turn
        for _ in range(users):
            prompt = rng.randint(100, 2000)
            token = model.token_s(users)
            # All prompts end at one time, so that so many answers really run at once.
            first = begin + model.overhead_s + model.prefill_s(2000) + token
            start = first - model.overhead_s - model.prefill_s(prompt) - model.token_s()
            yield Record(
                intended=start,
                started=start,
                outcome=ClientOutcome.OK,
                first=first,
                ended=first + 40 * token,
                prompt_tokens=prompt,
                output_tokens=41,
            )


def test_answers_slow_each_other_in_proportion() -> None:
    """Each further one adds the same to the time of a step."""
    assert [MODEL.token_s(n) for n in (1, 2, 3)] == pytest.approx([0.02, 0.024, 0.028])
    assert MODEL.tokens_per_s(4) == pytest.approx(4 / 0.032)
    assert MODEL.service_s(1000, 10, 2) == pytest.approx(0.5 + 0.24)


def test_a_rate_of_zero_is_instant() -> None:
    """As in the simulated engine."""
    assert ServiceModel().service_s(1000, 1000, 8) == 0.0


def test_the_fit_finds_the_model_that_made_the_records() -> None:
    """Rates, slowdown and overhead, from four levels of concurrency."""
    result = fit_steps([list(step(users)) for users in (1, 2, 4, 8)])
    assert result.streams == pytest.approx((1, 2, 4, 8))
    assert result.error == pytest.approx(0.0, abs=1e-9)
    model = result.model
    assert model.decode_tokens_per_s == pytest.approx(50.0)
    assert model.decode_slowdown == pytest.approx(0.2)
    assert model.prefill_tokens_per_s == pytest.approx(2000.0, rel=1e-6)
    assert model.overhead_s == pytest.approx(0.03, abs=1e-6)


def test_one_level_alone_knows_no_slowdown() -> None:
    """The fit is exact for the observed steps."""
    assert fit_steps([list(step(2))]).model.decode_slowdown == 0.0


def test_nothing_is_fitted_to_answers_of_one_token() -> None:
    """They have no time between tokens."""
    with pytest.raises(FitError):
        fit_steps([[Record(0.0, ClientOutcome.OK, 0.0, 1.0, 1.0, output_tokens=1)]])


def test_streams_are_weighted_by_who_sees_them() -> None:
    """Two answers at once for a second, then one alone for a second."""
    pair = [
        Record(0.0, ClientOutcome.OK, 0.0, first=0.0, ended=1.0, output_tokens=9),
        Record(0.0, ClientOutcome.OK, 0.0, first=0.0, ended=2.0, output_tokens=9),
    ]
    assert streams(pair) == pytest.approx((2 * 2 + 1) / 3)

"""Speeds of engines, from what was declared to what is measured."""

import pytest

from serve_app.dispatch.rates import LearnedSpeeds, Mean, Speeds


def test_the_first_value_replaces_what_was_declared() -> None:
    rates = LearnedSpeeds(Speeds(prefill_tokens_per_s=10, hold_s=9))
    assert (rates.speeds.prefill_tokens_per_s, rates.speeds.hold_s) == (10, 9)
    rates.note_prefill(1000, 0.5)
    rates.note_hold(3)
    assert rates.speeds.prefill_tokens_per_s == pytest.approx(2000)
    assert rates.speeds.hold_s == 3


def test_later_values_move_the_mean() -> None:
    mean = Mean(0)
    for value in [1.0] * 50 + [2.0] * 50:
        mean.note(value)
    assert mean.value == pytest.approx(2, abs=0.01)


def test_a_guess_that_looks_too_fast_counts_little() -> None:
    """Every third prompt was cached although nobody knew; the others tell the speed."""
    rates = LearnedSpeeds()
    for number in range(300):
        rates.note_prefill(1000, 0.1 if number % 3 == 0 else 1.0, is_guess=True)
    assert rates.speeds.prefill_tokens_per_s == pytest.approx(1000, rel=0.15)


def test_short_prompts_tell_nothing_of_the_speed() -> None:
    rates = LearnedSpeeds()
    rates.note_prefill(10, 1.0)
    rates.note_prompt(40, 1)
    rates.note_decode(1, 3.0)
    assert rates.speeds == Speeds()

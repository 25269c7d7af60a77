"""Speeds of engines, from what was declared to what is measured."""

from statistics import fmean

import pytest

from serve_app.dispatch.rates import LearnedSpeeds, Mean, Speeds


def test_two_values_that_agree_replace_what_was_declared() -> None:
    """The first one alone changes it by a factor of four at most."""
    rates = LearnedSpeeds(Speeds(prefill_tokens_per_s=10, hold_s=9))
    assert (rates.speeds.prefill_tokens_per_s, rates.speeds.hold_s) == (10, 9)
    for speed in (40, 2000):
        rates.note_prefill(1000, 0.5)
        rates.note_hold(3)
        assert rates.speeds.prefill_tokens_per_s == pytest.approx(speed)
        assert rates.speeds.hold_s == 3


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_an_outlier_among_two_values_does_not_decide(factor: float) -> None:
    """The declared speed is there to tell which of the two it is."""
    for outlier in (0, 1):
        rates = LearnedSpeeds(Speeds(prefill_tokens_per_s=800))
        for number in range(2):
            rates.note_prefill(1000, factor if number == outlier else 1.0)
        assert 750 < rates.speeds.prefill_tokens_per_s < 1050


def test_the_mean_time_in_a_slot_is_that_of_mixed_answers() -> None:
    """One long answer after nine short ones, as tool calls and texts do."""
    rates, means = LearnedSpeeds(), list[float]()
    for number in range(400):
        rates.note_hold(40.0 if number % 10 == 9 else 1.0)
        means.append(rates.speeds.hold_s)
    assert fmean(means[100:]) == pytest.approx(4.9, rel=0.1)


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


def learned(values: int = 0) -> LearnedSpeeds:
    """Return speeds after some answers of 2 s, whose prompts were read at 1000 tokens/s."""
    rates = LearnedSpeeds()
    for _ in range(values):
        rates.note_hold(2.0)
        rates.note_prefill(1000, 1.0)
        rates.note_decode(100, 2.0)
    return rates


def test_one_outlier_moves_no_learned_time_far() -> None:
    """A single answer that was a thousand times slower, or faster, is not the engine's speed.

    The time in a slot differs more, with the length of the answer.
    """
    for factor in (1000.0, 0.001):
        rates = learned(20)
        rates.note_hold(2.0 * factor)
        rates.note_prefill(1000, 1.0 * factor)
        rates.note_decode(100, 2.0 * factor)
        assert rates.speeds.hold_s < 3 * 2.0
        assert rates.speeds.prefill_tokens_per_s == pytest.approx(1000, rel=0.31)
        assert rates.speeds.token_s == pytest.approx(0.02, rel=0.31)


@pytest.mark.parametrize("before", [0, 1, 2, 4])
def test_an_outlier_among_the_first_values_is_outvoted(before: int) -> None:
    """The first request of an engine is often slow; two more show its speed."""
    rates = learned(before)
    rates.note_hold(600.0)
    rates.note_prefill(64, 60.0)
    for _ in range(2):
        rates.note_hold(2.0)
        rates.note_prefill(1000, 1.0)
    assert rates.speeds.hold_s == pytest.approx(2.0)
    assert rates.speeds.prefill_tokens_per_s == pytest.approx(1000)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_lasting_change_is_learned(factor: float) -> None:
    """An engine that is ten times slower or faster from now on is known within 50 answers."""
    rates = learned(20)
    for _ in range(50):
        rates.note_hold(2.0 * factor)
    assert rates.speeds.hold_s == pytest.approx(2.0 * factor, rel=0.1)


def test_a_time_of_nothing_is_not_learned() -> None:
    """A clock that steps back would leave an average from which no factor leads away."""
    rates = LearnedSpeeds()
    for _ in range(5):
        rates.note_hold(0.0)
    assert rates.speeds == Speeds()

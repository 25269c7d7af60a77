"""Estimates come near to what engines count."""

from serve_app.access.limits.estimate import Estimator


def test_prompts_are_learned_by_model() -> None:
    """A model whose tokens are shorter gets more of them for the same bytes."""
    estimator = Estimator()
    first = estimator.prompt("a", 4000)
    for _ in range(100):
        estimator.learn_prompt("a", 4000, 2000)
    assert first == 1000
    assert 1900 < estimator.prompt("a", 4000) < 2000
    assert estimator.prompt("b", 4000) == 1000


def test_answers_are_learned_by_key() -> None:
    """A new key gets what the model's answers usually have, never more than it may."""
    estimator = Estimator()
    assert estimator.answer("ada", "m", 4096) == 256
    for _ in range(100):
        estimator.learn_answer("ada", "m", 40)
    assert estimator.answer("ada", "m", 4096) == 40
    assert estimator.answer("bob", "m", 4096) == 40
    assert estimator.answer("bob", "m", 16) == 16
    assert estimator.answer("bob", "other", 4096) == 256


def test_keys_without_number_need_no_memory_without_bound() -> None:
    """The oldest are forgotten."""
    estimator = Estimator()
    for number in range(30_000):
        estimator.learn_answer(f"jwt:{number}", "m", 40)
    assert len(estimator._answers) <= 20_000

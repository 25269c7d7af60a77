"""The benchmark of a million requests, a small part of it."""

from tests.bench.million import play


def test_the_load_needs_all_replicas() -> None:
    """A thousand requests each."""
    seen = play(3).summary()
    assert 2_850 < seen["requests"] < 3_450
    assert seen["peak_replicas"] >= 3

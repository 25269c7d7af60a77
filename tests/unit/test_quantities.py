"""Numbers with units."""

import pytest

from serve_app.quantities import quantity


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), (".5", 0.5)]
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    """A number without a unit counts seconds."""
    assert quantity(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 m", "5ms", "-5", "1e3", "5m30s", "5m\n"])
def test_other_texts_are_refused(text: str) -> None:
    """Neither an unknown unit nor a sign is guessed at."""
    with pytest.raises(ValueError, match="is not a number with one of the units"):
        quantity(text)


def test_other_units_come_with_their_factors() -> None:
    """The caller names the units it accepts."""
    assert quantity("5%", {"%": 0.01}) == 0.05

"""How much slower requests get when all slots are busy."""

import random

import pytest

from serve_app.scaling.slowdown import Slowdown


def learned(most_busy: float, count: int = 200, noise: float = 0.0) -> Slowdown:
    """Return what requests teach that take 6 % longer for each further busy slot."""
    rng, slowdown = random.Random(1), Slowdown()
    for _ in range(count):
        busy = rng.uniform(1.0, most_busy)
        prompt, generated = rng.randrange(4000), rng.randrange(50, 3000)
        slot_s = prompt / 4000 + generated / 100 * (1 + 0.06 * (busy - 1))
        slowdown.note(prompt, generated, busy, slot_s * rng.uniform(1 - noise, 1 + noise))
    return slowdown


def test_it_is_learned_from_times_of_busy_and_idle_replicas() -> None:
    """Recent requests had 2.5 busy slots of 4: (1 + 0.06 * 3) / (1 + 0.06 * 1.5)."""
    assert learned(4.0).factor(4.0) == pytest.approx(1.18 / 1.09, rel=0.02)


@pytest.mark.parametrize(
    "slowdown",
    [
        learned(1.0),
        learned(1.2),
        learned(4.0, count=20),
        learned(4.0, count=40, noise=0.9),
        Slowdown(),
    ],
)
def test_what_was_never_seen_stays_unknown(slowdown: Slowdown) -> None:
    """Requests that were alone, few of them, or times that say nothing."""
    assert slowdown.factor(4.0) is None


def test_full_replicas_need_no_correction() -> None:
    """Their times are what counts."""
    slowdown = Slowdown()
    for number in range(100):
        slowdown.note(100, 1000 + number, 4.0, 10.0 + number / 100)
    assert slowdown.factor(4.0) == pytest.approx(1.0)

"""Ray's policy in virtual time decides as Ray's controller does in wall time."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.serve import autoscaling_policy
from ray.serve._private.autoscaling_metrics_merge import merge_and_aggregate_arrays
from ray.serve.autoscaling_policy import _apply_autoscaling_config, default_autoscaling_policy

from serve_app.capacity.simulate.policy import RayPolicy, merged
from serve_app.scaling_settings import Autoscaling

OPTIONS = {
    "min_replicas": 0,
    "max_replicas": 8,
    "target_ongoing_requests": 2.0,
    "upscale_delay_s": 3.0,
    "downscale_delay_s": 10.0,
    "downscale_to_zero_delay_s": 20.0,
}


class Clock:
    """Stands in for the module `time` in Ray's policy."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0])
def test_it_decides_as_rays_own_wrapper(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same wall time, load and replicas, tick by tick, from zero and back."""
    clock = Clock()
    monkeypatch.setattr(autoscaling_policy, "time", clock)
    options = OPTIONS | {"upscaling_factor": factor, "downscaling_factor": factor}
    ours = RayPolicy(options)
    theirs: Callable[..., Any] = _apply_autoscaling_config(default_autoscaling_policy)
    rng, state, running, target, seen = random.Random(4), {}, 0, 0, set()
    load = 0.0
    for tick in range(4000):
        clock.now = tick * 0.1
        if tick % 50 == 0:
            load = rng.choice([0, 0, 1, 3, 9, 40])
        context = ours._context(running, target, load)
        context.policy_state = state
        wished, state = theirs(context)
        expected = max(0, min(8, wished))
        assert ours.target(clock.now, running, target, load) == expected
        target = expected
        seen.add(target)
        if rng.random() < 0.05:
            running = target
    assert {0, 1, 8} <= seen


def test_every_setting_of_ours_is_one_of_rays() -> None:
    """The pool's autoscaling settings are handed over as they are."""
    options = Autoscaling(max_replicas=3, target_ongoing_requests=2).serve_options
    assert RayPolicy(options).target(0.0, 1, 1, 0.0) == 1


def test_upscaling_waits_for_its_delay() -> None:
    """A load that lasts shorter adds nothing."""
    policy = RayPolicy(OPTIONS)
    assert [policy.target(t, 1, 1, 9.0) for t in (0.0, 1.0, 2.9, 3.0)] == [1, 1, 1, 5]


@pytest.mark.parametrize("sources", [1, 2, 7])
def test_the_window_is_rays_average(sources: int) -> None:
    """Of random series that begin at different times, whatever the moment of asking."""
    rng = random.Random(sources)
    for _ in range(200):
        series = [_series(rng) for _ in range(sources)]
        now = 100 + rng.uniform(0, 5)
        theirs = merge_and_aggregate_arrays(
            np.concatenate([times for times, _ in series]),
            np.concatenate([values for _, values in series]),
            np.cumsum([0, *(len(times) for times, _ in series)]),
            now,
        )
        assert merged(series).mean(now) == pytest.approx(theirs, abs=1e-9)


def _series(rng: random.Random) -> tuple[list[float], list[float]]:
    begin = rng.choice([90.0, 90.0, 95.0, 99.5])
    times = [begin + i for i in range(int(100 - begin) + 1)]
    return times, [float(rng.choice([0, 0, 1, 2, 5])) for _ in times]


def test_of_no_reports_there_is_no_load() -> None:
    """And none before the first point."""
    assert merged([]).mean(5.0) == merged([([], [])]).mean(5.0) == 0.0

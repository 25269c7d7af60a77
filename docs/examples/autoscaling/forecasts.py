"""Compare the forecast of `ahead` with exponential smoothing of statsmodels, on the same loads.

    pip install statsmodels && python docs/examples/autoscaling/forecasts.py --data FOLDER

Both predict, every 10 s, the peak of the load over the start-up time; the same margins, learned
from their own errors, make bounds of predictions. A bound costs its replicas, and a load above it
as much as the quantile makes it. The table has the means over the judged part of each load.
"""

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from loads import Load, loads
from prove import GPU
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from serve_app.capacity.simulate.policies import demand
from serve_app.capacity.simulate.scene import scenario_of, service_of
from serve_app.scaling.forecast import ROWS, Errors
from serve_app.scaling.history import STEP_S
from serve_app.scaling.memory import Aim, Observation, PolicyMemory, noted

SEED = 11
SLOT_S = 27.0
# The model is fitted again after so many steps, to so many of the latest.
EVERY, FITTED = 30, 360


def played(load: Load, start_s: float) -> Iterator[PolicyMemory]:
    """Yield the memory of the policy at the end of each step; replicas start in `start_s`."""
    service = service_of(scenario_of(str(GPU), {}, None))
    requests = load.requests(SEED, 0.0, load.end_s)
    work = demand(requests, service.model, service.slots, 1.0).replicas
    aim, memory, step = Aim(start_s=start_s), PolicyMemory(), 0.0
    for second, arrived in enumerate(work):
        seen = Observation(float(second), 1, 1, arrived, 0.0, SLOT_S if load.shape else 2.0)
        memory = noted(memory, seen, aim)
        if memory.step_ends != step and not memory.parts_left:
            step = memory.step_ends
            yield memory


class Smoothing:
    """Holt's linear trend, damped, with weights that are fitted to the latest hour."""

    def __init__(self, steps: int, aim: Aim) -> None:
        self._steps = steps
        self._aim = aim
        self._errors = Errors()
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._peaks: list[float] = []
        self._fit = None

    def after(self, peak: float, highest: float) -> float:
        """Return the bound of the next steps, after one more with this peak."""
        self._peaks.append(peak)
        if len(self._pending) >= self._steps:
            kept = 2 ** (-STEP_S / self._aim.half_life_s)
            self._errors = self._errors.after(
                *self._pending[-self._steps], peak, self._aim.quantile, kept
            )
        predicted = np.full(ROWS, np.nan)
        predicted[0] = self._predicted()
        bounds = self._errors.bounds(predicted, highest)
        self._pending = [*self._pending, (predicted, bounds)][-self._steps :]
        return float(bounds[0])

    def _predicted(self) -> float:
        recent = np.array(self._peaks[-FITTED:])
        if len(recent) < 2 * EVERY:
            return float(recent[-6:].mean())
        if self._fit is None or len(self._peaks) % EVERY == 0:
            model = ExponentialSmoothing(
                recent, trend="add", damped_trend=True, initialization_method="estimated"
            )
            self._fit = model.fit().params
        level, trend = recent[0], 0.0
        alpha, beta, phi = (
            self._fit[name] for name in ("smoothing_level", "smoothing_trend", "damping_trend")
        )
        for value in recent[1:]:
            before = level
            level = alpha * value + (1 - alpha) * (level + phi * trend)
            trend = beta * (level - before) + (1 - beta) * phi * trend
        path, ahead = level, trend
        highest = level
        for _ in range(self._steps):
            ahead *= phi
            path += ahead
            highest = max(highest, path)
        return max(0.0, highest)


def costs(load: Load, start_s: float) -> dict[str, float]:
    """Return the mean cost of both, over the judged part, weighed by the work."""
    aim = Aim(start_s=start_s)
    memories = list(played(load, start_s))
    peaks = np.array([memory.history.last for memory in memories])
    steps = memories[-1].up.steps
    smoothing = Smoothing(steps, aim)
    highest = np.maximum.accumulate(peaks)
    ours = np.array([memory.up.best.load if memory.up.best else 0.0 for memory in memories])
    theirs = np.array([smoothing.after(*pair) for pair in zip(peaks, highest, strict=True)])
    begin, end = int(load.split_s / STEP_S), len(peaks) - steps
    figures = {}
    for name, bounds in (("ahead", ours), ("smoothing", theirs)):
        coming = peaks[begin + steps : end + steps]
        missed = np.maximum(0.0, coming - bounds[begin:end])
        cost = bounds[begin:end] + missed / (1 - aim.quantile)
        figures[name] = float(np.average(cost, weights=np.maximum(coming, 0.01)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the traces")
    parser.add_argument("--only", default="azure,mooncake,bursts,on-off,unlike,wave,steps")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    known = loads(options.data)
    print("| Load, start-up | `ahead` | exponential smoothing |\n| --- | --- | --- |")
    for name in options.only.split(","):
        load = replace(known[name])
        for start_s in (20.0, 120.0) if load.trace else (550.0,):
            found = costs(load, start_s)
            row = f"{name}, {start_s:g} s", *(f"{value:.2f}" for value in found.values())
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()

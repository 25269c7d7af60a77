"""Predictors of the load, judged by their own errors.

Each predictor predicts the highest load of the next steps. A histogram keeps its errors, weighed by
the work that arrived meanwhile; old errors fade. The bound of a predictor is its prediction plus
the quantile of its errors: as many replicas would have been enough for that share of the work. A
margin raises no bound above the highest load of the past, which was never exceeded. The bound with
the lowest mean cost is chosen; among about equal ones, the highest. A predictor that was wrong gets
a wide margin, so its bound becomes expensive.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serve_app.scaling.history import STEP_S, History

PEAKS_S = (120, 300, 900, 3600, 7200, 28800, 86400)
SEASONS_S = (600, 900, 1200, 1800, 3600, 7200, 86400, 604800)
_SEASON = "season of "
NAMES = (
    "level",
    "trend",
    *(f"peak of {seconds // 60} min" for seconds in PEAKS_S),
    *(f"{_SEASON}{seconds // 60} min" for seconds in SEASONS_S),
)
ROWS = len(NAMES)
# Errors in units of `_spread`, in bins of a tenth from -4 to 8.
_BIN, _LOWEST, BINS = 0.1, -4.0, 120
# A predictor begins as if it had been wrong by this error, in this many steps.
_DOUBT, _DOUBTED = 1.0, 2.0
_DOUBTED_BIN = 50
# Every prediction has this margin, in units of `_spread`, even above the highest load of the past.
_NOISE = 0.5
_LEVEL_STEPS, _TREND_STEPS = 6, 30
# The share of a trend that lasts over the horizon: trends end.
_DAMPED = 0.5
_COSTS = 3
# Costs that differ by less than this share are equal.
_TIE = 0.05

Loads = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of all predictors, as packed floats.

    `bins`: work by error, a row for each. `costs`: for each the work that it was judged by, its
    bounds weighed by it, and the steps. `margins`: the errors that the quantile of the work did not
    exceed.
    """

    bins: bytes = bytes(8 * ROWS * BINS)
    costs: bytes = bytes(8 * ROWS * _COSTS)
    margins: bytes = np.array([_DOUBT] * ROWS).tobytes()

    def after(
        self, predicted: Loads, bounds: Loads, peak: float, quantile: float, kept: float
    ) -> Self:
        """Return the errors with those of one more step; a prediction of NaN is not judged.

        `kept`: the share of an old error that counts.
        """
        bins, costs = unpacked(self.bins, BINS) * kept, unpacked(self.costs, _COSTS) * kept
        weight, spread = max(0.01, peak), _spread(predicted)
        (judged,) = np.nonzero(predicted == predicted)
        errors = np.ceil(((peak - predicted[judged]) / spread[judged] - _LOWEST) / _BIN)
        bins[judged, np.clip(errors, 0, BINS - 1).astype(int)] += weight
        costs[judged, 0] += weight
        missed = np.maximum(0.0, peak - bounds[judged])
        costs[judged, 1] += weight * (bounds[judged] + missed / (1 - quantile))
        costs[judged, 2] += 1
        margins = np.frombuffer(self.margins).copy()
        margins[judged] = _margins(bins, costs, quantile)[judged]
        return type(self)(bins.tobytes(), costs.tobytes(), margins.tobytes())

    def bounds(self, predicted: Loads, highest: float) -> Loads:
        """Return predictions with their margins. `highest`: the highest load of the past."""
        spread = _spread(predicted)
        bounds = np.maximum(0.0, predicted + np.frombuffer(self.margins) * spread)
        capped: Loads = np.minimum(bounds, np.maximum(highest, predicted + _NOISE * spread))
        return capped

    @property
    def mean_costs(self) -> Loads:
        """The mean bound of each predictor, infinite before it was judged."""
        worked, cost, _ = unpacked(self.costs, _COSTS).T
        return np.where(worked > 0, cost / np.maximum(worked, 1e-300), np.inf)

    @property
    def is_judged(self) -> bool:
        return bool(unpacked(self.costs, _COSTS)[:, 0].any())


@dataclass(frozen=True, slots=True)
class ForecastBound:
    """The load that will not be exceeded: the predictor's name, its prediction and its bound."""

    name: str
    predicted: float
    load: float

    @property
    def is_season(self) -> bool:
        return self.name.startswith(_SEASON)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predictors over one horizon of `steps`.

    `pending`: their latest predictions and bounds, oldest first.
    """

    steps: int
    pending: tuple[bytes, ...] = ()
    errors: Errors = Errors()
    best: ForecastBound | None = None

    def judged(self, peak: float, quantile: float, half_life_s: float) -> Self:
        """Return the forecast with its errors after a step with this peak. Costs 50 microseconds.

        Each is followed by `chosen`.
        """
        if len(self.pending) < self.steps + _TREND_STEPS:
            return self  # too little history for a prediction
        predicted, bounds = unpacked(self.pending[-self.steps], ROWS)
        kept = 2 ** (-STEP_S / half_life_s)
        return replace(self, errors=self.errors.after(predicted, bounds, peak, quantile, kept))

    def chosen(self, history: History) -> Self:
        """Return the forecast of the next steps after `history`. Costs 50 microseconds."""
        predicted = np.array(predictions(history, self.steps))
        bounds = self.errors.bounds(predicted, history.highest)
        costs = np.where(predicted == predicted, self.errors.mean_costs, np.inf)
        index = _careful(costs, np.minimum(bounds, history.highest))
        best = ForecastBound(NAMES[index], float(predicted[index]), float(bounds[index]))
        row = predicted.tobytes() + bounds.tobytes()
        return replace(self, pending=(*self.pending, row)[-self.steps - _TREND_STEPS :], best=best)

    def over(self, steps: int) -> Self:
        """Return the forecast with another horizon and the same errors."""
        return self if steps == self.steps else replace(self, steps=steps)

    @property
    def is_judged(self) -> bool:
        return self.errors.is_judged


def _careful(costs: Loads, bounds: Loads) -> int:
    """Return the predictor with the highest bound among those that are about as cheap as any.

    Which of these is the cheapest is chance: rare bursts have judged them alike.
    """
    if not np.isfinite(costs.min()):
        return int(np.nanargmax(bounds))  # none has been judged
    bounds = np.where(costs <= (1 + _TIE) * costs.min(), bounds, -1.0)
    return int(np.where(bounds == bounds.max(), costs, np.inf).argmin())


def predictions(history: History, steps: int) -> list[float]:
    """Return each predictor's peak of the next steps, in the order of NAMES.

    NaN where the history does not reach as far back.
    """
    # A trend over less time than the horizon would be mostly noise at its end.
    recent = history.recent(max(_TREND_STEPS, steps))
    level = _mean(recent[-_LEVEL_STEPS:])
    half = len(recent) // 2
    slope = (_mean(recent[half:]) - _mean(recent[:half])) / half if half else 0.0
    return [
        level,
        max(0.0, level + _DAMPED * slope * steps),
        *(history.peak(int(seconds / STEP_S)) for seconds in PEAKS_S),
        *(history.season(int(seconds / STEP_S), steps) for seconds in SEASONS_S),
    ]


def unpacked(values: bytes, columns: int) -> Loads:
    return np.frombuffer(values).reshape(-1, columns)


def _margins(bins: Loads, costs: Loads, quantile: float) -> Loads:
    """Return the errors that `quantile` of the work did not exceed; larger ones at first."""
    total = costs[:, 0]
    doubt = _DOUBTED * total / np.maximum(costs[:, 2], 1.0)
    beyond = np.cumsum(bins[:, ::-1], axis=1)  # work above each bin, from the highest one
    beyond[:, BINS - 1 - _DOUBTED_BIN :] += doubt[:, None]
    covers = beyond > ((1 - quantile) * (total + doubt))[:, None]
    margins: Loads = _LOWEST + _BIN * (BINS - 1 - covers.argmax(axis=1))
    return margins


def _spread(load: Loads) -> Loads:
    """Return the unit of errors: random arrivals spread a load by about its square root."""
    spread: Loads = np.sqrt(load + 0.5)
    return spread


def _mean(values: "memoryview[float]") -> float:
    return sum(values) / len(values) if len(values) else 0.0


def is_whole(forecast: Forecast) -> bool:
    """Tell whether the lengths and numbers of a forecast are possible."""
    errors = forecast.errors
    rows = {len(row) for row in forecast.pending} <= {16 * ROWS}
    sizes = (len(errors.bins), len(errors.costs), len(errors.margins))
    if not rows or sizes != (8 * ROWS * BINS, 8 * ROWS * _COSTS, 8 * ROWS) or forecast.steps < 1:
        return False
    counts = np.frombuffer(errors.bins + errors.costs)
    best = forecast.best
    return bool(
        np.isfinite(counts).all()
        and (counts >= 0).all()
        and np.isfinite(np.frombuffer(errors.margins)).all()
        and (best is None or (math.isfinite(best.load) and best.load >= 0))
    )

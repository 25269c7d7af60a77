"""Predictors of the load, judged by their own errors.

Each predictor says how high the load will be over the next steps. What it missed is kept in a
histogram of errors, weighed by the work that arrived meanwhile; old errors fade. The bound of a
predictor is its prediction plus the quantile of its errors: so many replicas would have been
enough for that share of the work. The forecast is the bound that has cost least on average:
a predictor that was wrong gets a wide margin, becomes dear, and is no longer chosen.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from serve_app.scaling.history import STEP_S, History

RECENT_S = (120, 300, 900, 3600, 7200)
SEASONS_S = (600, 900, 1200, 1800, 3600, 7200, 14400, 21600, 28800, 43200, 86400, 604800)
LEVEL, TREND = "level", "trend"
NAMES = (
    LEVEL,
    TREND,
    *(f"peak of {seconds // 60} min" for seconds in RECENT_S),
    *(f"season of {seconds // 60} min" for seconds in SEASONS_S),
)
# Errors in units of `_spread`, in bins of a tenth from -4 to 8.
_BIN, _LOWEST, BINS = 0.1, -4.0, 120
# A forecast begins as if it had been wrong by this, in so many steps.
_DOUBT, _DOUBTED = 1.0, 2.0
_DOUBTED_BIN = 50
_LEVEL_STEPS, _TREND_STEPS = 6, 30


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of one predictor: work by bin, and the mean of its bound.

    `margin`: the error that the quantile of the work did not exceed, in units of spread. Weights
    grow with time instead of fading: only their ratios matter.
    """

    bins: tuple[float, ...] = (0.0,) * BINS
    total: float = 0.0
    cost: float = 0.0
    costed: float = 0.0
    margin: float = _DOUBT

    def after(self, error: float, weight: float, bound: float, quantile: float) -> Self:
        """Return the errors with one more, of this weight. `bound`: what it cost meanwhile."""
        index = max(0, min(BINS - 1, math.ceil((error - _LOWEST) / _BIN)))
        bins = (*self.bins[:index], self.bins[index] + weight, *self.bins[index + 1 :])
        total = self.total + weight
        return type(self)(
            *(bins, total, self.cost + bound * weight, self.costed + weight),
            _margin(bins, total, quantile, weight),
        )

    def scaled(self, factor: float) -> Self:
        bins = tuple(count * factor for count in self.bins)
        numbers = self.total * factor, self.cost * factor, self.costed * factor
        return type(self)(bins, *numbers, self.margin)

    @property
    def mean_cost(self) -> float:
        return self.cost / self.costed if self.costed else math.inf


@dataclass(frozen=True, slots=True)
class Bound:
    """The load that will not be exceeded: the predictor's name, its prediction and its bound."""

    name: str
    predicted: float
    load: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predictors over one horizon of `steps`. `pending`: their latest predictions, oldest first.

    `growth` is the weight of a new error beside those of the beginning.
    """

    steps: int
    pending: tuple[tuple[float | None, ...], ...] = ()
    errors: tuple[Errors, ...] = (Errors(),) * len(NAMES)
    growth: float = 1.0

    def after(self, history: History, peak: float, quantile: float, half_life_s: float) -> Self:
        """Return the forecast after a step with this peak, which is the last of `history`."""
        growth = self.growth * 2 ** (STEP_S / half_life_s)
        errors = self._judged(peak, growth, quantile)
        if growth > 1e6:
            errors, growth = tuple(error.scaled(1 / growth) for error in errors), 1.0
        pending = (*self.pending, predictions(history, self.steps))[-self.steps - _TREND_STEPS :]
        return type(self)(self.steps, pending, errors, growth)

    def over(self, steps: int) -> Self:
        """Return the forecast with another horizon, of which the errors are those of before."""
        return self if steps == self.steps else replace(self, steps=steps)

    @property
    def is_judged(self) -> bool:
        return any(errors.total for errors in self.errors)

    @property
    def bounds(self) -> list[tuple[float, Bound]]:
        """Return the bound of each predictor with its mean cost."""
        if not self.pending:
            return []
        return [
            (errors.mean_cost, Bound(name, predicted, _bound(errors, predicted)))
            for name, errors, predicted in zip(NAMES, self.errors, self.pending[-1], strict=True)
            if predicted is not None
        ]

    @property
    def best(self) -> Bound | None:
        """Return the bound that has cost least on average."""
        return min(self.bounds, key=lambda bound: bound[0], default=(0.0, None))[1]

    def _judged(self, peak: float, growth: float, quantile: float) -> tuple[Errors, ...]:
        if len(self.pending) < self.steps + _TREND_STEPS:
            return self.errors  # the predictors had seen too little
        weight = max(0.01, peak) * growth
        return tuple(
            errors
            if predicted is None
            else errors.after(
                *((peak - predicted) / _spread(predicted), weight),
                *(_bound(errors, predicted), quantile),
            )
            for errors, predicted in zip(self.errors, self.pending[-self.steps], strict=True)
        )


def predictions(history: History, steps: int) -> tuple[float | None, ...]:
    """Return what each predictor says of the peak of the next steps, in the order of NAMES."""
    recent = history.recent(_TREND_STEPS)
    level = _mean(recent[-_LEVEL_STEPS:])
    half = len(recent) // 2
    slope = (_mean(recent[half:]) - _mean(recent[:half])) / max(1, half) if half else 0.0
    return (
        level,
        max(0.0, level + slope * steps),
        *(max(history.recent(int(seconds / STEP_S)), default=0.0) for seconds in RECENT_S),
        *(history.season(int(seconds / STEP_S), steps) for seconds in SEASONS_S),
    )


def _margin(bins: tuple[float, ...], total: float, quantile: float, newest: float) -> float:
    """Return the error that `quantile` of the work did not exceed, with some doubt at first."""
    doubt = _DOUBTED * newest
    beyond = (1 - quantile) * (total + doubt)
    for index in range(BINS - 1, -1, -1):
        beyond -= bins[index] + (doubt if index == _DOUBTED_BIN else 0.0)
        if beyond < 0:
            return _LOWEST + _BIN * index
    return _LOWEST


def _bound(errors: Errors, predicted: float) -> float:
    return max(0.0, predicted + errors.margin * _spread(predicted))


def _spread(load: float) -> float:
    """Return the unit of errors: arrivals by chance spread a load by about its root."""
    return math.sqrt(load + 0.5)


def _mean(values: "memoryview[float]") -> float:
    return sum(values) / len(values) if len(values) else 0.0

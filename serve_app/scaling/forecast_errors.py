"""Errors of predictors: what they make of a prediction, and which predictor they speak for.

A histogram keeps the errors of each predictor, weighed by the work that arrived meanwhile; old
errors fade. The bound of a predictor is its prediction plus the quantile of its errors: so many
replicas would have been enough for that share of the work. A margin raises no bound above the
highest load of the past, which was never exceeded.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serve_app.scaling.predictors import ROWS

# Errors in units of `_spread`, in bins of a tenth from -4 to 8.
_BIN, _LOWEST, BINS = 0.1, -4.0, 120
# A predictor begins as if it had been wrong by this, in so many steps.
_DOUBT, _DOUBTED = 1.0, 2.0
_DOUBTED_BIN = 50
# Every prediction has this margin, in units of `_spread`, even above the highest load of the past.
_NOISE = 0.5
_COSTS = 3

Loads = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of all predictors, as packed floats.

    `bins`: work by error, a row for each. `costs`: for each the work, the costs of its bounds
    weighed by it, and the steps that it was judged in; `products`: the products of these costs with
    those of every other one, weighed too. `margins`: the errors that the quantile of the work did
    not exceed.
    """

    bins: bytes = bytes(8 * ROWS * BINS)
    costs: bytes = bytes(8 * ROWS * _COSTS)
    products: bytes = bytes(8 * ROWS * ROWS)
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
        cost = bounds + np.maximum(0.0, peak - bounds) / (1 - quantile)
        # Nothing is known of the others: they count as the cheapest.
        cost[predicted != predicted] = cost[judged[self.mean_costs[judged].argmin()]]
        costs[:, 0] += weight
        costs[:, 1] += weight * cost
        costs[judged, 2] += 1
        products = unpacked(self.products, ROWS) * kept + weight * np.outer(cost, cost)
        margins = np.frombuffer(self.margins).copy()
        margins[judged] = _margins(bins, costs[:, 2], quantile)[judged]
        return type(self)(*(array.tobytes() for array in (bins, costs, products, margins)))

    def bounds(self, predicted: Loads, highest: float) -> Loads:
        """Return predictions with their margins. `highest`: the highest load of the past."""
        spread = _spread(predicted)
        bounds = np.maximum(0.0, predicted + np.frombuffer(self.margins) * spread)
        capped: Loads = np.minimum(bounds, np.maximum(highest, predicted + _NOISE * spread))
        return capped

    @property
    def mean_costs(self) -> Loads:
        """The mean cost of each predictor's bounds, infinite before any was judged."""
        worked, cost, _ = unpacked(self.costs, _COSTS).T
        return np.where(worked > 0, cost / np.maximum(worked, 1e-300), np.inf)

    def doubts(self, best: int, steps: int) -> Loads:
        """Return the standard error of each mean cost's distance from that of `best`.

        Costs within `steps` steps are of the same event, and count as one.
        """
        worked, cost, judged = unpacked(self.costs, _COSTS).T
        means = cost / worked
        squares = unpacked(self.products, ROWS) / worked
        own, crossed = np.diag(squares), squares[best]
        variance = own + own[best] - 2 * crossed - (means - means[best]) ** 2
        events = max(1.0, float(judged.max()) / steps)
        errors: Loads = np.sqrt(np.maximum(0.0, variance) / events)
        return errors

    @property
    def is_judged(self) -> bool:
        return bool(unpacked(self.costs, _COSTS)[0, 0])

    @property
    def is_whole(self) -> bool:
        """Tell whether the lengths and numbers are possible."""
        lengths = [len(part) for part in (self.bins, self.costs, self.products, self.margins)]
        if lengths != [8 * ROWS * columns for columns in (BINS, _COSTS, ROWS, 1)]:
            return False
        counts = np.frombuffer(self.bins + self.costs + self.products)
        finite = np.isfinite(counts).all() and np.isfinite(np.frombuffer(self.margins)).all()
        return bool(finite and (counts >= 0).all())


def unpacked(values: bytes, columns: int) -> Loads:
    return np.frombuffer(values).reshape(-1, columns)


def _margins(bins: Loads, judged: Loads, quantile: float) -> Loads:
    """Return the errors that `quantile` of the work did not exceed; larger ones at first.

    `judged`: the steps that each predictor was judged in.
    """
    total = bins.sum(axis=1)
    doubt = _DOUBTED * total / np.maximum(judged, 1.0)
    beyond = np.cumsum(bins[:, ::-1], axis=1)  # work above each bin, from the highest one
    beyond[:, BINS - 1 - _DOUBTED_BIN :] += doubt[:, None]
    covers = beyond > ((1 - quantile) * (total + doubt))[:, None]
    margins: Loads = _LOWEST + _BIN * (BINS - 1 - covers.argmax(axis=1))
    return margins


def _spread(load: Loads) -> Loads:
    """Return the unit of errors: random arrivals spread a load by about its square root."""
    spread: Loads = np.sqrt(load + 0.5)
    return spread

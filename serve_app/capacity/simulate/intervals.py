"""Means of a few seeds with their confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# Student's t, 97.5 %, by degrees of freedom from 1; beyond them by Cornish and Fisher.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % confidence interval; the bounds are nan for one value."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        half = self.high - self.mean
        return f"{self.mean:{spec}}" + ("" if math.isnan(half) else f" ± {half:{spec}}")


def interval(values: Sequence[float]) -> Interval:
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = _t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def _t(freedom: int) -> float:
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom)

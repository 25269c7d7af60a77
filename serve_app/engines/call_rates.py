"""Calls per second by model, as an exponentially decayed average."""

import math
from collections.abc import Mapping

HALF_LIFE_S = 60.0


class CallRates:
    """Counts calls; each counts half after HALF_LIFE_S."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, float]] = {}  # decayed count, at this time

    def count(self, model: str, now: float) -> None:
        self._counts[model] = (self._at(model, now) + 1.0, now)

    def per_second(self, now: float) -> Mapping[str, float]:
        scale = math.log(2) / HALF_LIFE_S
        return {model: self._at(model, now) * scale for model in self._counts}

    def _at(self, model: str, now: float) -> float:
        count, at = self._counts.get(model, (0.0, now))
        return count * float(0.5 ** ((now - at) / HALF_LIFE_S))

"""A reserve of replicas above the forecast, learned from waits.

Where more of the work has waited too long than the quantile allows, the reserve grows by a small
step, once in the time that a replica takes to start; it fades as errors of forecasts do.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

# In square roots of the load: random arrivals spread it by as much.
_STEP, _MAX_LEVEL = 0.15, 2.0
# Seconds that a new replica needs to take its share of the waiting work.
_SETTLES_S = 60.0


@dataclass(frozen=True, slots=True)
class Reserve:
    """A reserve. `arrived_s`, `late_s`: work, and its part that waited too long; both fade."""

    level: float = 0.0
    raised_at: float = 0.0
    arrived_s: float = 0.0
    late_s: float = 0.0

    def after(
        self, now: float, arrived_s: float, is_late: bool, allowed: float, start_s: float
    ) -> Self:
        """Return the reserve after an observation. `allowed`: the share that may be late."""
        arrived_s += self.arrived_s
        late_s = self.late_s + (arrived_s - self.arrived_s if is_late else 0.0)
        reserve = replace(self, arrived_s=arrived_s, late_s=late_s)
        # A clock that went back must not stop its growth.
        rests = self.raised_at <= now <= self.raised_at + start_s + _SETTLES_S
        if not is_late or rests or late_s <= allowed * arrived_s:
            return reserve
        return replace(reserve, level=min(_MAX_LEVEL, self.level + _STEP), raised_at=now)

    def faded(self, kept: float) -> Self:
        """Return the reserve after a step, of which a share `kept` of the past counts."""
        return replace(
            self,
            level=self.level * kept,
            arrived_s=self.arrived_s * kept,
            late_s=self.late_s * kept,
        )

    def above(self, load: float, highest: float) -> float:
        """Return a load with the reserve above it.

        A load above the highest one of the past has a margin of its own for what the reserve is
        for: it gets only the reserve above the highest, where that is more.
        """
        above = min(load, highest)
        return max(load, above + self.level * math.sqrt(above + 0.5))

    @property
    def is_whole(self) -> bool:
        numbers = (self.level, self.raised_at, self.arrived_s, self.late_s)
        return all(math.isfinite(number) and number >= 0 for number in numbers)

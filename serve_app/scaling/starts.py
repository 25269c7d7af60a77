"""Start-up times of replicas, from the decision to start one until it runs."""

from dataclasses import dataclass
from typing import Self

_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Starts:
    """The latest start-up times in seconds, and the begins of the starts in progress."""

    seconds: tuple[float, ...] = ()
    wanted_at: tuple[float, ...] = ()
    running: int = 0

    def after(self, now: float, running: int, target: int) -> Self:
        """Return the starts at `now`.

        A replica that begins to run is assumed to be the one started first.
        """
        began = max(0, running - self.running) if self.wanted_at else 0
        took = tuple(now - at for at in self.wanted_at[:began])
        wanted_at = self.wanted_at[began:]
        missing = max(0, target - running)
        wanted_at = wanted_at[:missing] + (now,) * (missing - len(wanted_at))
        seconds = (self.seconds + took)[-_REMEMBERED:]
        return type(self)(seconds, wanted_at, running)

    def quantile(self, q: float, default_s: float) -> float:
        """Return a quantile of the latest times, or the default before any was measured."""
        if not self.seconds:
            return default_s
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

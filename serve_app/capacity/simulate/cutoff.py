"""Ends a simulation early if its result can't be better than a known one.

Every test here is certain: a search with cutoffs ends with the same settings as one without.
"""

from dataclasses import dataclass

from serve_app.capacity.results.slo import Bound, Slo
from serve_app.capacity.simulate.result import Result

# Simulated seconds between two tests.
EVERY_S = 60


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Limits of a simulation of `requests` requests in `seconds`, which has `floor` replicas.

    `replica_seconds`: None where the cost does not matter. `late`: the number of requests that may
    miss a bound once the SLO is certainly missed.
    """

    slo: Slo
    requests: int
    seconds: float
    floor: int
    replica_seconds: float | None = None
    late: float = 0.0

    def applies(self, result: Result) -> bool:
        """Tell whether a simulation with this interim result must end outside the limits."""
        return self._is_too_dear(result) or self._is_too_late(result)

    def _is_too_dear(self, result: Result) -> bool:
        to_come = self.floor * max(0.0, self.seconds - result.seconds)
        return (
            self.replica_seconds is not None
            and result.replica_seconds + to_come > self.replica_seconds
        )

    def _is_too_late(self, result: Result) -> bool:
        if not any(self._is_missed(bound, result) for bound in self.slo.bounds):
            return False
        return result.missed(self.slo) > self.late

    def _is_missed(self, bound: Bound, result: Result) -> bool:
        """Tell whether too many requests exceed the limit for later ones to outweigh them."""
        if bound.quantity == "error_rate":
            return result.refusals > bound.limit * self.requests
        if bound.quantity == "itl":  # a quantile over tokens, whose number is not known yet
            return False
        return result.beyond(bound) > (1 - bound.quantile) * self.requests + 1

"""How much slower requests get when all slots of an engine are busy.

A token of the prompt and a generated one take constant times each; generated ones take longer by
a constant for each busy slot. Least squares over the ended requests give the three constants.
"""

from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

# Share of the newest request in the means: engines keep their speed, while loads change.
_NEWEST = 0.001
# As of the mean time of a request, in meter.py.
_NEWEST_RECENT = 0.01
_MIN_ENDED = 30
# A prediction counts up to this relative standard error,
_MAX_ERROR = 0.05
# and up to this many standard deviations of the busy slots that it was learned from.
_MAX_REACH = 4.0
_UPPER = np.triu_indices(4)


class Slowdown:
    """Learns the times of one replica's requests. Costs 3 microseconds a request."""

    __slots__ = ("_ended", "_factor", "_products", "_recent")

    def __init__(self) -> None:
        self._ended = 0
        # Means of the products of two of: prompt, generated, generated * busy, seconds
        self._products = [0.0] * 10
        self._recent = [0.0] * 3  # means of the first three over recent requests
        self._factor: tuple[int, float | None] = (0, None)  # after so many requests

    def note(self, prompt: float, generated: float, busy: float, slot_s: float) -> None:
        """Learn from a request. `busy`: slots, its own included, on average over its time."""
        self._ended += 1
        row = prompt, generated, generated * busy, slot_s
        share = max(_NEWEST, 1 / self._ended)
        self._products = [
            mean + share * (one * other - mean)
            for mean, (one, other) in zip(
                self._products, combinations_with_replacement(row, 2), strict=True
            )
        ]
        share = max(_NEWEST_RECENT, share)
        self._recent = [
            mean + share * (value - mean) for mean, value in zip(self._recent, row, strict=False)
        ]

    def factor(self, slots: float) -> float | None:
        """Return the time with all `slots` busy in that of recent requests; None: unknown."""
        ended, factor = self._factor
        if ended != self._ended:
            factor = self._learned_factor(slots) if self._ended >= _MIN_ENDED else None
            self._factor = self._ended, factor
        return factor

    def _learned_factor(self, slots: float) -> float | None:
        matrix: NDArray[np.float64] = np.zeros((4, 4))
        matrix[_UPPER] = matrix.T[_UPPER] = self._products
        scale = np.sqrt(np.diag(matrix)[:3]) + 1e-9
        inverse = np.linalg.inv(matrix[:3, :3] / np.outer(scale, scale) + 1e-9 * np.eye(3))
        causes = matrix[:3, 3] / scale
        constants = inverse @ causes / scale
        rest = max(0.0, matrix[3, 3] - causes @ inverse @ causes)
        spread = scale[2] / np.sqrt(inverse[2, 2])  # of generated * busy beside the others
        error = np.sqrt(rest / (min(self._ended, 1 / _NEWEST) - 3)) / spread
        now_s = float(constants @ self._recent)
        _, generated, busy = self._recent
        missing = max(0.0, generated * slots - busy)
        if now_s <= 0 or missing > _MAX_REACH * spread or missing * error > _MAX_ERROR * now_s:
            return None
        return min(slots, 1 + max(0.0, float(constants[2])) * missing / now_s)

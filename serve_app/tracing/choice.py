"""Chooses the new traces that are sampled, where the sampler is a ratio."""

import math
from collections.abc import Callable
from random import Random

from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

_ID_BITS = 64  # of a trace's id, by which `TraceIdRatioBased` decides
_NEVER = 2**63


class NewTraces:
    """Chooses each request with the same probability, and gives those chosen an id.

    A random id for each request, and the SDK's decision by it, take longer than all else that a
    request costs that is not traced. Here one random number tells how many requests are passed
    over, which has the same distribution: the geometric one. The ids of those chosen are sampled
    by every service that the trace goes through, as by `TraceIdRatioBased`.
    """

    __slots__ = ("_bound", "_left", "_random")

    def __init__(self, bound: int, random: Random) -> None:
        self._bound = bound  # of the sampled ids, in their low bits
        self._random = random
        self._left = self._passed_over()

    def next_id(self) -> int | None:
        """Return the id of the next request's trace; None for one that is not traced."""
        if self._left:
            self._left -= 1
            return None
        self._left = self._passed_over()
        high = self._random.getrandbits(_ID_BITS) or 1  # an id of zero is invalid
        low = self._random.getrandbits(_ID_BITS) * self._bound >> _ID_BITS
        return high << _ID_BITS | low

    def _passed_over(self) -> int:
        share = self._bound / 2**_ID_BITS
        if not 0 < share < 1:
            return 0 if share else _NEVER
        return int(math.log(1 - self._random.random()) / math.log1p(-share))


def new_traces(sampler: Sampler, random: Callable[[], Random] = Random) -> NewTraces | None:
    """Return the choice of requests without a caller's trace; None for samplers of other kinds."""
    root = getattr(sampler, "_root", None) if isinstance(sampler, ParentBased) else sampler
    return NewTraces(root.bound, random()) if type(root) is TraceIdRatioBased else None

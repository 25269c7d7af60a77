"""Times of arrival that follow a shape.

The gaps of a renewal process with mean 1 are mapped through the area under the shape (the time
change theorem). One function thus gives even arrivals, a Poisson process and bursts at any changing
rate, without thinning and without errors at jumps.
"""

import random
from collections.abc import Callable, Iterator

from serve_app.capacity.workload.shapes import Shape


def arrivals(shape: Shape, rng: random.Random, burstiness: float = 1.0) -> Iterator[float]:
    """Yield arrival times in order, in seconds from the start.

    `burstiness` is the coefficient of variation of the gaps at a steady rate: 0 even, 1 Poisson,
    above 1 in bursts (gamma distributed gaps).
    """
    gap = _gaps(rng, burstiness)
    # The first even arrival comes half a gap after the beginning, so that n of them fill n gaps.
    area = gap() * (0.5 if burstiness == 0 else 1.0)
    while area <= shape.total:
        yield shape.when(area)
        area += gap()


def _gaps(rng: random.Random, burstiness: float) -> Callable[[], float]:
    if burstiness == 0:
        return lambda: 1.0
    if burstiness == 1:
        return lambda: rng.expovariate(1.0)
    form = 1 / burstiness**2
    return lambda: rng.gammavariate(form, 1 / form)

"""Closed forms of queues, for comparison with simulations and sweeps.

`offered` is the load in Erlang: arrivals per second times seconds of service. All waits are means,
in the unit of the service time, and infinite where the load is not below the capacity.

Kleinrock, Queueing Systems I (1975): M/M/c 3.5, M/G/1 5.6. Allen, Probability, Statistics and
Queueing Theory (1990): M/G/c.
"""

import math


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that an arrival waits in M/M/c; 1 at and above capacity."""
    if offered >= servers:
        return 1.0
    blocked = 1.0  # Erlang's B by its recursion, which can't overflow
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def mmc_wait(servers: int, arrivals_per_s: float, service_s: float) -> float:
    """Return the mean wait with Poisson arrivals, exponential service and one queue."""
    offered = arrivals_per_s * service_s
    if offered >= servers:
        return math.inf
    return erlang_c(servers, offered) * service_s / (servers - offered)


def mmc_wait_quantile(servers: int, arrivals_per_s: float, service_s: float, q: float) -> float:
    """Return the q-quantile (0..1) of the wait in M/M/c."""
    offered = arrivals_per_s * service_s
    if offered >= servers:
        return math.inf
    waits = erlang_c(servers, offered)
    return (
        max(0.0, math.log(waits / (1 - q)) * service_s / (servers - offered))
        if q < 1
        else (math.inf)
    )


def mg1_wait(arrivals_per_s: float, service_s: float, variation: float) -> float:
    """Return the mean wait in M/G/1 (Pollaczek and Khinchin).

    `variation` is the coefficient of variation of the service time: 0 is M/D/1, 1 is M/M/1.
    """
    load = arrivals_per_s * service_s
    if load >= 1:
        return math.inf
    return load * service_s * (1 + variation**2) / (2 * (1 - load))


def mgc_wait(servers: int, arrivals_per_s: float, service_s: float, variation: float) -> float:
    """Return the mean wait in M/G/c by Allen and Cunneen's approximation."""
    return mmc_wait(servers, arrivals_per_s, service_s) * (1 + variation**2) / 2

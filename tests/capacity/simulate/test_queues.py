"""The simulated replica against closed forms of queueing theory."""

import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from serve_app.capacity.simulate.policies import Static
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.sweep.queueing import mg1_wait, mmc_wait, mmc_wait_quantile
from serve_app.capacity.workload.requests import WorkloadRequest

TOKENS = 1000  # of a mean answer
SERVICE_S = 0.01  # that it takes alone
COUNT = 30_000
MODEL = ServiceModel(decode_tokens_per_s=TOKENS / SERVICE_S)


def poisson(load: float, tokens: Callable[[random.Random], float]) -> Iterator[WorkloadRequest]:
    rng = random.Random(17)
    at = 0.0
    for _ in range(COUNT):
        at += rng.expovariate(load / SERVICE_S)
        yield WorkloadRequest(at, 1, max(1, round(tokens(rng))))


def exponential(rng: random.Random) -> float:
    return rng.expovariate(1 / TOKENS)


def fixed(rng: random.Random) -> float:
    return TOKENS


def mean_wait(
    service: SimulatedService, requests: Iterator[WorkloadRequest]
) -> tuple[float, float]:
    """The mean wait for a slot and its 90th percentile, in mean services."""
    result = simulate(requests, service, Static(1))
    # A first token comes a step after its slot.
    waits = (result.values("ttft") - service.model.token_s()) / SERVICE_S
    return float(waits.mean()), float(np.quantile(waits, 0.9))


@pytest.mark.parametrize(("slots", "load"), [(1, 0.5), (1, 0.7), (4, 0.8)])
def test_exponential_answers_wait_as_in_mmc(slots: int, load: float) -> None:
    """Erlang's C, in the mean and at the 90th percentile, within a tenth of them."""
    service = SimulatedService(MODEL, slots, queue=10_000, queue_timeout_s=math.inf)
    mean, high = mean_wait(service, poisson(load * slots, exponential))
    assert mean == pytest.approx(mmc_wait(slots, load * slots, 1.0), rel=0.1)
    assert high == pytest.approx(mmc_wait_quantile(slots, load * slots, 1.0, 0.9), rel=0.1)


def test_equal_answers_wait_as_in_md1() -> None:
    """Half as long as exponential ones."""
    service = SimulatedService(MODEL, 1, queue=10_000, queue_timeout_s=math.inf)
    mean, _ = mean_wait(service, poisson(0.7, fixed))
    assert mean == pytest.approx(mg1_wait(0.7, 1.0, 0.0), rel=0.05)


@pytest.mark.parametrize("tokens", [exponential, fixed])
def test_answers_that_slow_each_other_share_the_processor(
    tokens: Callable[[random.Random], float],
) -> None:
    """A slowdown of 1 is processor sharing: 1/(1-rho) services, whatever the distribution."""
    shared = ServiceModel(decode_tokens_per_s=TOKENS / SERVICE_S, decode_slowdown=1.0)
    service = SimulatedService(shared, slots=500, queue=0)
    result = simulate(poisson(0.6, tokens), service, Static(1))
    mean = float(result.values("e2e").mean()) / SERVICE_S
    assert mean == pytest.approx(1 / (1 - 0.6), rel=0.06)


def test_an_answer_alone_takes_just_its_time() -> None:
    """Prompt, tokens and overhead; nothing else."""
    model = ServiceModel(100.0, 50.0, 0.3, overhead_s=0.01)
    result = simulate([WorkloadRequest(0.5, 200, 101)], SimulatedService(model), Static(1))
    assert result.quantile("ttft", 0.5) == pytest.approx(2 + 1 / 50 + 0.01)
    assert result.quantile("e2e", 0.5) == pytest.approx(2 + 101 / 50 + 0.01)
    assert result.quantile("tpot", 0.5) == pytest.approx(1 / 50)
    assert result.quantile("itl", 0.5) == pytest.approx(1 / 50)


def test_two_answers_at_once_run_at_the_declared_pace() -> None:
    """Two streams that start together take 1 + slowdown times as long."""
    model = ServiceModel(0.0, 100.0, 0.5)
    result = simulate(
        [WorkloadRequest(0, 1, 100), WorkloadRequest(0, 1, 100)], SimulatedService(model), Static(1)
    )
    assert result.quantile("e2e", 0.0) == result.quantile("e2e", 1.0) == pytest.approx(1.5)
    assert result.quantile("itl", 0.5) == pytest.approx(0.015)

"""Fair shares behind two gateways, whose replicas have queues of their own, in virtual time."""

import random
from collections import Counter, defaultdict
from statistics import quantiles

import pytest

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.replica import Gaps, Replica, ReplicaBounds
from serve_app.capacity.simulate.router import PowerOf, Router
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.fair_queue import Fairness
from serve_app.engines.base import Flow
from serve_app.settings import Settings

SLOTS, QUEUE, REPLICAS, SECONDS = 4, 8, 4, 300.0
MODEL = ServiceModel(2000.0, 25.0, 0.1)
# One answer takes 0.2 + 32 / 25 = 1.48 s alone, and 0.2 + 1.3 x 1.28 = 1.86 s beside three.
ALONE_S, SLOT_S = 0.25, 1.86
LIGHT = Flow("light")
(POOL,) = Settings.model_validate(
    {
        "topology": "gateway",
        "engine": {"slots": SLOTS},
        "queue": QUEUE,
        "api_keys": {"a": "k" * 32},
    }
).all_pools


class Floods:
    """Clients that ask again when they are answered, at one of two gateways, and LIGHT.

    `ttft_s`, `answers`: by key, of requests that came after the start.
    """

    def __init__(self, clients: dict[Flow, int], max_sent: int) -> None:
        self.ttft_s: defaultdict[str, list[float]] = defaultdict(list)
        self._events, self._rng = EventQueue(), random.Random(1)
        bounds = ReplicaBounds(SLOTS, QUEUE)
        calls = self._ended, self._refused
        self._replicas = [
            Replica(number, self._events, MODEL, bounds, *calls, Gaps(SLOTS))
            for number in range(REPLICAS)
        ]
        self._routers = [
            Router(PowerOf(8, self._rng), max_sent, -1, self._refused, self._events, Fairness())
            for _ in range(2)
        ]
        self._open: dict[SimulatedRequest, Router] = {}
        for replica in self._replicas:
            replica.serving = True
        for flow, number in clients.items():
            for _ in range(number):
                self._events.at(self._rng.uniform(0, 0.05), self._ask, flow)
        for _ in range(int(SECONDS)):  # about one a second
            self._events.at(self._rng.uniform(0, SECONDS), self._ask, LIGHT)
        self._events.run_until(SECONDS)

    @property
    def answers(self) -> Counter[str]:
        return Counter({key: len(times) for key, times in self.ttft_s.items()})

    def _ask(self, flow: Flow) -> None:
        job = SimulatedRequest(WorkloadRequest(self._events.now, 400, 32, flow=flow))
        open_ = Counter(self._open.values())  # as HAProxy counts
        router = self._open[job] = min(self._routers, key=lambda router: open_[router])
        router.send(job, self._replicas)

    def _ended(self, job: SimulatedRequest) -> None:
        flow = job.request.flow
        assert job.replica
        self._open.pop(job).freed(job, job.replica)
        if job.intended > 20:  # until then there was no queue
            self.ttft_s[flow.key].append(job.first - job.intended)
        if flow is not LIGHT:
            self._events.at(self._events.now + 0.002, self._ask, flow)

    def _refused(self, job: SimulatedRequest) -> None:
        raise AssertionError("gateways let as many wait as there are")


def test_weights_are_shares() -> None:
    """Within 5 %, after the first seconds."""
    answers = Floods({Flow("one"): 32, Flow("three", weight=3.0): 32}, POOL.sent).answers
    share = answers["one"] / (answers["one"] + answers["three"])
    assert share == pytest.approx(0.25, rel=0.05)


def test_a_light_key_does_not_wait_twice() -> None:
    """Where replicas queue many, it waits for a place behind them, and then for a slot."""
    (*_, p95) = quantiles(Floods({Flow("flood"): 64}, POOL.sent).ttft_s["light"], n=20)
    (*_, deep_p95) = quantiles(Floods({Flow("flood"): 64}, POOL.admitted).ttft_s["light"], n=20)
    assert p95 < 1.5 * ALONE_S + SLOT_S < deep_p95

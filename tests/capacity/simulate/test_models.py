"""Replicas with several models in virtual time: the service's policy, and Ollama's own."""

import random
from collections.abc import Iterator

import pytest

from serve_app.capacity.simulate.model_keepers import OllamaKeeper, ServiceKeeper
from serve_app.capacity.simulate.model_replica import (
    Choose,
    ModelRun,
    NewKeeper,
    first_to_serve,
    least_loaded,
    simulate_models,
)
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.engines.preload import preload_set
from serve_app.engines.residency import Room, Rules

LOAD_S = dict.fromkeys("abcdef", 5.0)
SPEED = ServiceModel(2000, 40, 0.1)


def rules(room: int) -> Rules:
    return Rules(Room(models=room), min_loaded_s=10, max_wait_s=20)


def service(room: int, replicas: int = 1) -> NewKeeper:
    def new(number, events, opened, counts):
        preload = preload_set(number, "abcdef", replicas, rules(room), {})
        return ServiceKeeper(events, rules(room), LOAD_S, preload, opened, counts)

    return new


def ollama(room: int) -> NewKeeper:
    def new(number, events, opened, counts):
        return OllamaKeeper(events, room, LOAD_S, tuple("abcdef"[:room]), opened, counts)

    return new


def run(
    requests: Iterator[WorkloadRequest] | list[WorkloadRequest], new: NewKeeper, **more: object
) -> ModelRun:
    settings = {"replicas": 1, "choose": least_loaded(random.Random(0)), **more}
    return simulate_models(requests, SPEED, settings["replicas"], 4, new, settings["choose"])


def ask(at_s: float, model: str, tokens: int = 40) -> WorkloadRequest:
    return WorkloadRequest(at_s, 200, tokens, model=model)


@pytest.mark.parametrize("new", [service(2), ollama(2)])
def test_calls_for_a_cold_model_share_one_load(new: NewKeeper) -> None:
    """They wait for its load, and then run together."""
    result = run([ask(21, "f"), ask(22, "f"), ask(23, "f")], new)
    assert (result.loads, result.evictions) == (1, 1)
    assert max(result.cold_waits_s) == pytest.approx(5.0, abs=0.1)


def test_ollama_lets_a_busy_model_starve_a_cold_one() -> None:
    """Requests of the loaded model overtake the cold one for as long as they overlap."""
    busy = [ask(second * 0.5, "a") for second in range(200)]
    requests = sorted([*busy, ask(10.2, "f")], key=lambda request: request.at_s)
    starved = run(requests, ollama(1))
    bounded = run(requests, service(1))
    assert max(starved.cold_waits_s) > 90
    # The bound, the answer that runs then, and the load.
    assert max(bounded.cold_waits_s) < 20 + 2 + 5 + 20


def test_the_rule_that_knows_loads_needs_few_of_them() -> None:
    """Six models with Zipf demand on three replicas with room for two, as in the measurement."""

    def demand(seed: int = 0) -> Iterator[WorkloadRequest]:
        rng, at_s = random.Random(seed), 0.0
        while at_s < 300:
            at_s += rng.expovariate(2.0)
            names = "abcdef" if at_s < 150 else "fedcba"
            (model,) = rng.choices(names, [1 / rank for rank in range(1, 7)])
            yield ask(at_s, model, 80)

    choose: Choose = first_to_serve(rules(2), 2.7)
    own = run(demand(), ollama(2), replicas=3)
    placed = run(demand(), service(2, 3), replicas=3, choose=choose)
    assert len(own.ttft_s) == len(placed.ttft_s) > 500
    assert placed.loads <= 0.2 * own.loads
    assert sorted(placed.ttft_s)[-30] <= 0.5 * sorted(own.ttft_s)[-30]

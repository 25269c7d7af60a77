"""Keys, weights and priorities in virtual time, by the service's own queue."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from serve_app.capacity.simulate.keys import parse_key_shares, sent_by
from serve_app.capacity.simulate.policies import Static
from serve_app.capacity.simulate.result import KeyResult
from serve_app.capacity.simulate.run import SimulatedRouting, SimulatedService, simulate
from serve_app.capacity.simulate.scene import service_of
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.capacity.workload.scenario import Scenario
from serve_app.capacity.workload.text import WorkloadError
from serve_app.dispatch.fair_queue import Fairness

SECOND = ServiceModel(0.0, 100.0)  # 100 tokens take one


def overload(seconds: int = 600, per_second: int = 8) -> Iterator[WorkloadRequest]:
    """Twice what four slots serve."""
    for number in range(seconds * per_second):
        yield WorkloadRequest(number / per_second, 1, 100)


def run(
    keys: str, routing: SimulatedRouting = "haproxy", **service: object
) -> dict[str, KeyResult]:
    direct = SimulatedService(SECOND, routing=routing, max_ongoing=276)
    simulated = replace(direct, **service)  # type: ignore[arg-type]
    requests = sent_by(parse_key_shares(keys), overload(), 1)
    return dict(simulate(requests, simulated, Static(1)).by_key)


@pytest.mark.parametrize("routing", ["haproxy", "gateway"])
def test_weights_are_shares(routing: SimulatedRouting) -> None:
    """1 to 3 of the tokens, in the direct topology and behind a gateway, which queues by itself."""
    bounds = {"max_ongoing": 8, "max_queued": 64} if routing == "gateway" else {}
    got = run("a b:weight=3,share=3", routing, **bounds)
    assert got["b"].service / got["a"].service == pytest.approx(3, rel=0.05)


def test_a_light_key_waits_for_no_flood() -> None:
    """At most for a slot, and none of its requests is refused."""
    got = run("light:share=0.02 flood")
    assert got["light"].refusals == 0
    assert got["light"].ttft(0.95) < 1 < got["flood"].ttft(0.5)


def test_batch_waits_for_interactive_requests() -> None:
    got = run("day:share=0.3,priority=interactive night:priority=batch")
    assert got["day"].refusals == 0
    assert got["day"].ttft(0.95) < 1 < got["night"].ttft(0.5)


def test_reserved_slots_stay_free_of_batch() -> None:
    """A request that finds one has not to wait."""
    keys = "day:share=0.02,priority=interactive night:priority=batch"
    assert run(keys)["day"].ttft(0.5) > 0.1
    reserved = run(keys, reserved_slots=1, fairness=Fairness(aging_s=100))["day"]
    assert reserved.ttft(0.5) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "text", ["", "a a", ":share=1", "a:share=0", "a:colour=1", "a:priority=urgent", "a:share=x"]
)
def test_keys_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(WorkloadError):
        parse_key_shares(text)


def test_a_service_with_keys_has_the_bounds_of_one() -> None:
    """Whether its scenario names any or not: behind a gateway its replicas queue one request."""
    engine = {"kind": "simulated", "slots": 4, "simulated": {"decode_tokens_per_s": 25}}
    scenario = Scenario(service={"topology": "gateway", "engine": engine})
    assert service_of(scenario).max_ongoing == 4 + 16
    assert service_of(scenario, has_callers=True).max_ongoing == 5

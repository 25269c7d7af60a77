"""The short way from uvicorn to the API, in a replica behind HAProxy."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray

from tests.support.fronts import behind_haproxy
from tests.support.scraping import not_exported
from tests.support.service import Simulator, start_simulator

pytestmark = behind_haproxy
CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
TIMEOUT = "x-request-timeout-seconds"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    simulator = start_simulator("--decode-tokens-per-s", "200", "--slots", "2")
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module", params=["direct", "gateway"])
def client(request: pytest.FixtureRequest, deploy, simulator: Simulator) -> Iterator[httpx.Client]:
    url = deploy(
        topology=request.param,
        models="smollm2:135m",
        engine={"kind": "attach", "url": simulator.url, "slots": 2},
    )
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def chat(
    client: httpx.Client, path: str = "/v1/chat/completions", **headers: str
) -> httpx.Response:
    return client.post(path, json=CHAT, headers=headers)


def in_ingress(client: httpx.Client, change: Any) -> None:
    """Run `change` with the replica that faces callers, in its process."""
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    is_gateway = any("#gateway#" in name for name in names)
    mark = "SERVE_REPLICA::default#" + ("gateway#" if is_gateway else "")
    (name,) = [name for name in names if name.startswith(mark)]
    actor = ray.get_actor(name, namespace="serve")
    ray.get(actor.__ray_call__.remote(change))


def break_serves_way(actor: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("this is Serve's own way")

    actor._replica_impl._wrap_request = fail


def mend_serves_way(actor: Any) -> None:
    del actor._replica_impl._wrap_request


def test_ordinary_requests_take_it_and_others_do_not(client: httpx.Client) -> None:
    """Serve's own way is broken on purpose: only what needs it fails."""
    in_ingress(client, break_serves_way)
    try:
        assert chat(client).status_code == 200
        assert client.get("/v1/models").status_code == 200
        assert chat(client, **{TIMEOUT: "20"}).status_code == 500
    finally:
        in_ingress(client, mend_serves_way)


def test_serves_timeout_still_acts(client: httpx.Client, simulator: Simulator) -> None:
    simulator.fault(kind="stall", after_tokens=0, for_s=30)
    try:
        assert chat(client, **{TIMEOUT: "0.3"}).status_code == 408
    finally:
        simulator.fault(kind="none")


def test_serve_answers_its_own_paths(client: httpx.Client) -> None:
    assert client.get("/-/routes").json() == {"/": "default"}


async def test_requests_are_in_serves_metrics(client: httpx.Client) -> None:
    """Those of replicas and those of the ingress, with the status of the answer."""
    assert chat(client).status_code == 200
    assert chat(client, path="/nothing").status_code == 404
    missing = await not_exported(
        [
            r'ray_serve_num_http_requests_total\{.*route="/".*status_code="200"',
            r'ray_serve_num_http_error_requests_total\{.*error_code="404"',
            r'ray_serve_deployment_request_counter_total\{.*route="/"',
            r'ray_serve_deployment_processing_latency_ms_bucket\{.*le="1000.0".*route="/"',
            r'ray_serve_http_request_latency_ms_count\{.*application="default".*status_code="404"',
        ]
    )
    assert missing == set()

"""Each serveConfigV2 of kuberay/ starts as it stands, but for the engine's address, and answers."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from tests.support import monitoring
from tests.support.fronts import behind_haproxy
from tests.support.manifests import Object, RayService, ray_services, rendered
from tests.support.scraping import not_exported
from tests.support.service import Simulator, start_simulator

pytestmark = behind_haproxy
SHAPES = ["base", "overlays/cpu", "overlays/scale-to-zero", "overlays/pools"]


def pools(args: Object) -> list[Object]:
    return args.get("pools") or [args]


def models(service: RayService) -> list[str]:
    return [model for pool in pools(service.args) for model in pool["models"].split(",")]


@pytest.fixture(scope="module", params=SHAPES)
def service(request: pytest.FixtureRequest) -> RayService:
    (ray_service,) = ray_services(rendered(Path(request.param)))
    return ray_service


@pytest.fixture(scope="module")
def simulator(service: RayService) -> Iterator[Simulator]:
    running = start_simulator("--models", ",".join(models(service)))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def url(port: int, service: RayService, simulator: Simulator) -> Iterator[str]:
    for pool in pools(service.args):
        pool["engine"]["url"] = simulator.url
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate(service.serve_config), _blocking=True)
    yield f"http://127.0.0.1:{port}"
    client.delete_apps([app["name"] for app in service.serve_config["applications"]])


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"host": "llm-serve-svc:8000"}  # as from inside the cluster
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        yield client


async def test_every_model_answers_a_chat(
    client: httpx.AsyncClient, service: RayService, simulator: Simulator
) -> None:
    """Asked by the Service's name; pools that are at zero wake up for it."""
    for model in models(service):
        messages = [{"role": "user", "content": "hello"}]
        body = {"model": model, "messages": messages, "max_tokens": 4}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
    assert simulator.reached["/v1/chat/completions"] == len(models(service))


one_shape = pytest.mark.parametrize("service", SHAPES[:1], indirect=True)


@one_shape
async def test_every_metric_that_we_watch_is_exported(
    client: httpx.AsyncClient, service: RayService
) -> None:
    """What alerts and dashboard name, this running service has, or another's exporter."""
    wanted = monitoring.our_metrics()
    assert wanted
    messages = [{"role": "user", "content": "tell me a long story"}]
    body = {
        "model": models(service)[0],
        "messages": messages,
        "max_tokens": 40,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for _ in range(20):  # the pieces of an answer that all came at once have no gaps
        await client.post("/v1/chat/completions", json=body)
    assert not await not_exported(rf"{name}\{{" for name in wanted)


@one_shape
async def test_haproxy_exports_where_the_monitor_looks(client: httpx.AsyncClient) -> None:
    """On a port of its own, as 9101 in a pod."""
    port = os.environ["RAY_SERVE_HAPROXY_METRICS_PORT"]
    async with httpx.AsyncClient(trust_env=False) as scraper:
        answer = await scraper.get(f"http://127.0.0.1:{port}/metrics")
    assert "haproxy_frontend_http_requests_total" in answer.text

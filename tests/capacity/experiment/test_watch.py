"""What is read from Ray's dashboard and from its nodes, over real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from serve_app.capacity.experiment.watch import Gauges, Watch, WatchError, watching

TOKEN = "secret"


class Ray:
    """A dashboard and one node, as Ray 2.60 answers."""

    def __init__(self) -> None:
        self.replicas: list[tuple[str, str]] = [("a", "RUNNING")]
        self.target = 1
        self.metrics = ""
        self.node_is_up = True
        self.url = ""

    async def applications(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        replicas = [{"replica_id": name, "state": state} for name, state in self.replicas]
        pool = {"target_num_replicas": self.target, "replicas": replicas}
        return web.json_response({"applications": {"default": {"deployments": {"pool": pool}}}})

    async def discovery(self, request: web.Request) -> web.Response:
        target = self.url.removeprefix("http://")
        return web.json_response([{"labels": {"job": "ray"}, "targets": [target]}])

    async def node(self, request: web.Request) -> web.Response:
        if not self.node_is_up:
            return web.Response(status=503)
        return web.Response(text=self.metrics)


@pytest.fixture
async def ray() -> AsyncIterator[Ray]:
    there = Ray()
    app = web.Application()
    app.router.add_get("/api/serve/applications/", there.applications)
    app.router.add_get("/api/prometheus/sd", there.discovery)
    app.router.add_get("/metrics", there.node)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield there
    await runner.cleanup()


@pytest.fixture
async def watch(ray: Ray) -> AsyncIterator[Watch]:
    async with watching(ray.url, TOKEN) as watch:
        yield watch


def line(name: str, value: float, **labels: Any) -> str:
    labels = {"application": "default", "deployment": "pool", **labels}
    inner = ",".join(f'{key}="{label}"' for key, label in labels.items())
    return f"{name}{{{inner}}} {value}\n"


def processing(replica: str, value: float, **labels: Any) -> str:
    return line("ray_serve_replica_processing_queries", value, replica=replica, **labels)


async def test_the_load_and_forecast_of_the_own_policy_are_read(ray: Ray, watch: Watch) -> None:
    """Of the watched pool; there are none where Serve's policy decides."""
    none = await watch.sample()
    ray.metrics = "".join(
        f'ray_llm_scaling_{name}{{pool="{pool}"}} {value}\n'
        for name, pool, value in (
            *(("load", "other", 9.0), ("load", "pool", 2.5)),
            ("forecast", "pool", 3.25),
        )
    )
    sample = await watch.sample()
    assert (none.work, none.forecast) == (None, None)
    assert (sample.work, sample.forecast) == (2.5, 3.25)


async def test_replicas_are_counted_by_state(ray: Ray, watch: Watch) -> None:
    """Those that are to migrate still serve; those that stop still cost."""
    states = ("RUNNING", "PENDING_MIGRATION", "STARTING", "UPDATING", "STOPPING")
    ray.replicas, ray.target = list(zip("abcde", states, strict=True)), 4
    sample = await watch.sample()
    assert (sample.target, sample.running, sample.starting, sample.draining) == (4, 2, 2, 1)
    assert sample.billed == 5


async def test_requests_are_summed_over_live_replicas(ray: Ray, watch: Watch) -> None:
    """Of this deployment alone; Ray's page may still hold those that have gone."""
    ray.replicas.append(("b", "STOPPING"))
    ray.metrics = (
        processing("a", 3.0)
        + processing("b", 2.0)
        + processing("gone", 9.0)
        + processing("a", 50.0, deployment="gateway")
        + line("ray_serve_deployment_queued_queries", 4.0, handle="h1")
        + line("ray_serve_deployment_queued_queries", 1.0, handle="h2")
        + 'ray_node_cpu_utilization{ip="127.0.0.1"} 25.0\n'
    )
    sample = await watch.sample()
    assert (sample.ongoing, sample.queued, sample.cpu_share) == (5.0, 5.0, 0.25)


async def test_engine_starts_count_replicas_and_restarts(ray: Ray, watch: Watch) -> None:
    """Also of those that have gone since; one that has not served yet has not started."""
    ray.replicas = [("a", "RUNNING"), ("b", "STARTING")]
    assert (await watch.sample()).engine_starts == 1
    ray.replicas = [("b", "RUNNING")]
    ray.metrics = line("ray_llm_engine_restarts", 2.0, replica="b")
    assert (await watch.sample()).engine_starts == 4


async def test_a_node_that_is_silent_leaves_its_last_word(ray: Ray, watch: Watch) -> None:
    """As does a gauge that Ray drops from its page because nobody has set it lately."""
    ray.metrics = processing("a", 3.0)
    await watch.sample()
    ray.metrics = ""
    assert (await watch.sample()).ongoing == 3.0
    ray.node_is_up = False
    assert (await watch.sample()).ongoing == 3.0


async def test_an_unknown_deployment_is_told_from_those_that_there_are(ray: Ray) -> None:
    """By application and name."""
    async with watching(ray.url, TOKEN, deployment="large") as watch:
        with pytest.raises(WatchError, match="default/pool"):
            await watch.sample()


async def test_a_dashboard_without_its_token_says_what_is_missing(ray: Ray) -> None:
    """By the name of Ray's own variable."""
    async with watching(ray.url) as watch:
        with pytest.raises(WatchError, match="RAY_AUTH_TOKEN"):
            await watch.sample()


async def test_a_dashboard_that_is_not_there_is_an_error_of_ours() -> None:
    """With its address."""
    async with watching("http://127.0.0.1:9") as watch:
        with pytest.raises(WatchError, match=r"127\.0\.0\.1:9"):
            await watch.sample()


def test_labels_may_hold_quotes_and_braces() -> None:
    """Prometheus' text format escapes the former only."""
    gauges = Gauges()
    gauges.take('ray_serve_deployment_queued_queries{route="/{x}\\"y",handle="h"} 1e1\n# x\n')
    assert list(gauges["ray_serve_deployment_queued_queries"]) == [
        ({"route": '/{x}\\"y', "handle": "h"}, 10.0)
    ]

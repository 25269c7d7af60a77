"""The live fleet of a running service, in either topology."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time
from typing import Any

import httpx
import pytest
import ray

from serve_app.ray_serve import private
from tests.serve.conftest import Deploy
from tests.support.fronts import behind_haproxy
from tests.support.monitoring import OF_SCALING
from tests.support.processes import command, descendants
from tests.support.scraping import not_exported

pytestmark = behind_haproxy
CHAT = {"model": "smollm2:135m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
SLOW = {"cold_start_s": 2, "decode_tokens_per_s": 20}
ENGINE = {
    "kind": "simulated",
    "slots": 2,
    "simulated": {"cold_start_s": 2, "decode_tokens_per_s": 50},
}


@pytest.fixture(scope="module", params=["direct", "gateway"])
def topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(topology: str, deploy: Deploy) -> str:
    scaling = {
        "policy": "shadow",
        "min_replicas": 1,
        "max_replicas": 4,
        "upscale_delay_s": 0.5,
        "metrics_interval_s": 0.5,
    }
    scaling |= {"look_back_period_s": 1, "downscale_delay_s": 600}
    # A deployment of another name begins with the minimum of replicas.
    pool = {"name": topology + "-pool", "engine": ENGINE, "autoscaling": scaling}
    return deploy(topology=topology, pools=[pool])


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        yield client


async def until(client: httpx.AsyncClient, holds: Callable[[Any], bool]) -> Any:
    """Poll as a viewer does until the document is as expected; return it."""
    async with asyncio.timeout(60):
        while True:
            document = (await client.get("/admin/fleet")).json()
            if not document["collecting"] and holds(document):
                return document
            await asyncio.sleep(0.2)


def replicas(document: Any) -> list[Any]:
    return document["pools"][0]["replicas"]


def is_engine(pid: int) -> bool:
    """Whether it is the simulator itself, and not its supervisor."""
    return command(pid).split()[1:3] == ["-m", "serve_app.simulator"]


def collectors() -> list[Any]:
    """The handles of the collectors that run, at most one."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [a["name"] for a in named if a["name"].startswith("fleet-collector:default")]
    return [ray.get_actor(name, namespace=private.SERVE_NAMESPACE) for name in names]


@asynccontextmanager
async def loaded(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Ask for more than one replica takes."""
    body = {**CHAT, "max_tokens": 1000, "stream": True}
    asking = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(8)]
    try:
        yield
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def states(document: Any) -> list[str]:
    return [replica["state"] for replica in replicas(document)]


async def test_a_request_is_seen(client: httpx.AsyncClient, topology: str) -> None:
    """Counted once, at the replica that answered it, with its tokens."""
    before = await until(client, lambda d: states(d) == ["ready"])
    assert (before["service"]["topology"], before["now"]["slots"]) == (topology, 2)
    assert len(before["gateways"]) == (topology == "gateway")
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    after = await until(client, lambda d: sum(d["series"]["outcomes"]["ok"]) > 0)
    assert sum(after["series"]["outcomes"]["ok"]) == 1
    assert replicas(after)[0]["tokens_per_s"] > 0
    assert replicas(after)[0]["engine"]["kind"] == "simulated"
    assert [model["name"] for model in replicas(after)[0]["loaded"]] == [CHAT["model"]]
    assert after["models"][0]["loaded_in"] == [replicas(after)[0]["id"]]


@pytest.mark.skipif(
    "SERVE_APP_TEST_VIEWERS" not in os.environ,
    reason="their load depends on the machine's: SERVE_APP_TEST_VIEWERS=1",
)
async def test_fifty_viewers_are_no_load(client: httpx.AsyncClient) -> None:
    """They leave the target at the minimum, and nobody is refused."""
    await until(client, lambda d: states(d) == ["ready"])

    async def view(number: int) -> set[int]:
        """Poll once a second, beginning at another moment than the others."""
        await asyncio.sleep(number / 50)
        statuses = set()
        for _ in range(4):
            statuses.add((await client.get("/admin/fleet")).status_code)
            await asyncio.sleep(1)
        return statuses

    assert await asyncio.gather(*map(view, range(50))) == [{200}] * 50
    document = await until(client, lambda d: True)
    assert document["pools"][0]["scaling"]["target"] == 1
    assert states(document) == ["ready"]


async def test_a_killed_engine_is_away_and_comes_back(client: httpx.AsyncClient) -> None:
    """With the seconds since it was lost."""
    await until(client, lambda d: states(d) == ["ready"])
    (pid,) = [pid for pid in descendants(os.getpid()) if is_engine(pid)]
    os.kill(pid, signal.SIGKILL)
    away = await until(client, lambda d: states(d) == ["engine away"])
    assert away["at"] - replicas(away)[0]["since"] < 5
    back = await until(client, lambda d: states(d) == ["ready"])
    assert replicas(back)[0]["engine"]["restarts"] == 1


async def test_replicas_that_start_are_seen(client: httpx.AsyncClient) -> None:
    """Load above the target makes more, with an estimate of when they are ready."""
    await until(client, lambda d: states(d) == ["ready"])
    async with loaded(client):
        loading = await until(client, lambda d: "engine loading" in states(d))
    (pool,) = loading["pools"]
    assert len(pool["replicas"]) > 1
    assert pool["start_s"] > 0
    starting = [r for r in pool["replicas"] if r["state"] == "engine loading"]
    assert starting[0]["ready_in_s"] is not None


async def test_the_shadow_explains_itself(client: httpx.AsyncClient, topology: str) -> None:
    """From Serve's controller: a record in the document, and the metrics of the dashboard."""
    names = OF_SCALING - {"ray_llm_scaling_changes_total"}  # which needs a change
    document = await until(client, lambda d: d["pools"][0]["scaling"]["explanation"])
    explanation = document["pools"][0]["scaling"]["explanation"]
    assert explanation["policy"] == "shadow"
    assert "start-up" in explanation["sentence"]
    assert not await not_exported(rf'{name}\{{.*pool="{topology}-pool"' for name in names)


async def test_only_several_ingress_replicas_have_a_collector(
    client: httpx.AsyncClient, topology: str
) -> None:
    """Killed, it is started anew by the next viewer; the only gateway needs none."""
    async with loaded(client):
        await until(client, lambda d: states(d)[:2] == ["ready", "ready"])
    if topology == "gateway":
        assert not collectors()
        return
    await until(client, lambda d: bool(collectors()))
    (killed,) = collectors()
    await asyncio.to_thread(ray.kill, killed)
    await until(client, lambda d: collectors() not in ([], [killed]))
    at = time()
    await until(client, lambda d: d["at"] > at)

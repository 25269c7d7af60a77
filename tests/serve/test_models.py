"""More models than room, in a pool of two replicas behind the gateway."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.serve.test_gateway import simulators
from tests.support import monitoring
from tests.support.fronts import behind_haproxy
from tests.support.scraping import not_exported

pytestmark = behind_haproxy
MODELS = "ma,mb,mc,md"


@pytest.fixture(scope="module")
def url(deploy) -> str:
    simulated = {"load_s": 0.1, "decode_tokens_per_s": 100}
    engine = {"kind": "simulated", "max_loaded_models": 2, "simulated": simulated}
    return deploy(
        models=MODELS,
        topology="gateway",
        routing="affinity",
        engine=engine,
        autoscaling={"min_replicas": 2, "max_replicas": 2},
    )


async def loaded(client: httpx.AsyncClient) -> list[set[str]]:
    """The names of the models that each engine has loaded."""
    listings = [(await client.get(f"{url}/api/ps")).json() for url in simulators(MODELS)]
    return [{model["name"].partition(":")[0] for model in list_["models"]} for list_ in listings]


async def stats(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [(await client.get(f"{url}/_sim/stats")).json() for url in simulators(MODELS)]


async def ask(client: httpx.AsyncClient, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": model}], "max_tokens": 3}
    return (await client.post("/v1/chat/completions", json=body)).status_code


async def loads_of_a_round(client: httpx.AsyncClient) -> int:
    """Ask every model once, at the same time; return how many loads that took."""
    before = sum(stat["loads"] for stat in await stats(client))
    answers = await asyncio.gather(*(ask(client, model) for model in MODELS.split(",")))
    assert answers == [200] * 4
    return sum(stat["loads"] for stat in await stats(client)) - before


async def test_replicas_load_different_models_and_get_the_requests_for_them(url: str) -> None:
    """Four models have a place in two replicas with room for two: none is swapped for long."""
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        first, second = await loaded(client)
        assert len(first) == len(second) == 2
        assert first | second == set(MODELS.split(","))
        async with asyncio.timeout(30):
            while await loads_of_a_round(client):
                pass  # Serve itself may send a first call elsewhere than it was told
        assert [await loads_of_a_round(client) for _ in range(3)] == [0, 0, 0]
        assert [stat["evictions"] for stat in await stats(client)] == [0, 0]


async def test_what_the_dashboard_shows_of_models_is_exported(url: str) -> None:
    """After somebody else has unloaded a model: its replica loads it again."""
    async with httpx.AsyncClient(trust_env=False) as client:
        engine = simulators(MODELS)[0]
        (model, *_) = (await client.get(f"{engine}/api/ps")).json()["models"]
        await client.post(f"{engine}/api/generate", json={"model": model["name"], "keep_alive": 0})
    wanted = monitoring.OF_MODELS - {"ray_llm_model_wait_seconds_bucket"}  # no request waits
    assert not await not_exported(rf"{name}\{{" for name in wanted)

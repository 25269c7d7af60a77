"""Two replicas and a real Redis: a key that floods one of them is behind in the other."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.access import service_exchange
from tests.support.redis_server import needed, redis_server
from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually

pytestmark = needed
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


async def ask(service: Service, name: str) -> int:
    body: dict[str, Any] = {"model": "smollm2:135m", "max_tokens": 20, "user": name}
    answer = await service.post(
        CHAT,
        json={**body, "messages": [{"role": "user", "content": "tell me more"}]},
        headers={"authorization": f"Bearer sk-{name}"},
    )
    return answer.status_code


def order(simulator: Simulator) -> list[str]:
    """The callers whose requests have reached the engine, the first one first."""
    history = simulator.stats()["history"]
    return [json.loads(entry["body"])["user"] for entry in history if entry["path"] == CHAT]


@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_key_that_floods_one_replica_is_behind_in_another(
    simulator: Simulator,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_shared: bool,
) -> None:
    """Both of bob's requests go before ada's, which came between them; without a store not."""
    monkeypatch.setattr(service_exchange, "EVERY_S", 0.02)
    file = tmp_path / "keys"
    file.write_text("\n".join(f"{name}: sk-{name}" for name in ("ada", "bob", "first", "last")))
    store = {"limits": {"store": "redis", "redis_url": redis_url}} if is_shared else {}
    settings = {"api_keys_file": file, "slots": 1, **store}
    async with serving(simulator, **settings) as one, serving(simulator, **settings) as two:
        assert [await ask(one, name) for name in ("ada", "ada", "ada", "last")] == [200] * 4
        queue = two.admission.line._queue
        if is_shared:  # what came first is told first
            await eventually(lambda: queue.known_keys == 2)
        simulator.reset()
        simulator.fault(kind="silent", for_s=60)
        first = asyncio.create_task(ask(two, "first"))
        await eventually(lambda: order(simulator) == ["first"])
        waiting = []
        for number, name in enumerate(("bob", "ada", "bob"), start=1):
            waiting.append(asyncio.create_task(ask(two, name)))
            await eventually(lambda length=number: len(queue) == length)
        first.cancel()
        assert await asyncio.gather(*waiting) == [200] * 3
    behind = ["bob", "bob", "ada"] if is_shared else ["bob", "ada", "bob"]
    assert order(simulator) == ["first", *behind]

"""Keys and their file in a running service, in either topology."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.serve.conftest import Deploy
from tests.support.fronts import behind_haproxy
from tests.support.redis_server import needed, redis_server
from tests.support.scraping import not_exported
from tests.support.waiting import eventually

pytestmark = behind_haproxy
CHAT = {"model": "smollm2:135m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("topology", ["direct", "gateway"])
async def test_keys_hold_in_a_running_service(
    deploy: Deploy, tmp_path: Path, topology: str
) -> None:
    """A revoked key is refused, a broken file changes nothing, the metrics count and tell."""
    file = tmp_path / "keys"
    file.write_text("alice: {key: sk-a}\nbob: {key: sk-b, models: another}\n")
    url = deploy(
        topology=topology,
        engine={"kind": "simulated"},
        api_keys_file=str(file),
    )

    def ask(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(
            f"{url}/v1/chat/completions", json=CHAT, headers=headers, timeout=30, trust_env=False
        ).status_code

    assert (ask("sk-a"), ask("sk-b"), ask("sk-c")) == (200, 404, 401)
    file.write_text("bob: {key: sk-b}\n")
    await eventually(lambda: ask("sk-a") == 401)
    await eventually(lambda: ask("sk-b") == 200)
    file.write_text("bob: {key: sk-b, wieght: 1}\n")
    assert not await not_exported(
        [r"ray_llm_unauthorized_total.* [1-9]", r"ray_llm_keys_file_valid.* 0\.0"]
    )
    assert ask("sk-b") == 200


LIMITED = """\
ada: {key: sk-ada, group: team}
eve: {key: sk-eve, group: team, requests_per_minute: 1}
root: {key: sk-root, admin: true}
groups:
  team: {requests_per_minute: 10}
"""


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@needed
@pytest.mark.parametrize("topology", ["direct", "gateway"])
async def test_limits_hold_over_all_replicas(
    deploy: Deploy, tmp_path: Path, redis_url: str, topology: str
) -> None:
    """Counted in one Redis; metrics and usage agree with what the callers got; queues exchange."""
    file = tmp_path / "keys"
    file.write_text(LIMITED)
    two = {"min_replicas": 2, "max_replicas": 2}
    url = deploy(
        topology=topology,
        engine={"kind": "simulated"},
        autoscaling=two,
        gateway=two,
        api_keys_file=str(file),
        limits={"store": "redis", "redis_url": f"{redis_url}?db={1 + (topology == 'gateway')}"},
    )

    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:

        async def ask(name: str) -> httpx.Response:
            headers = {"authorization": f"Bearer sk-{name}"}
            return await client.post("/v1/chat/completions", json=CHAT, headers=headers)

        answers = [await ask("ada") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"10"}
        statuses = [(await ask("eve")).status_code for _ in range(3)]
        assert statuses == [200, 429, 429]
        usage = answers[0].json()["usage"]

    def used(name: str) -> dict[str, int]:
        headers = {"authorization": "Bearer sk-root"}
        page = httpx.get(f"{url}/admin/usage", headers=headers, trust_env=False).json()
        return next((record for record in page["data"] if record["key"] == name), {})

    with Redis.from_url(redis_url, db=1 + (topology == "gateway")) as redis:
        queues = "served:" + ("pool" if topology == "gateway" else "")
        await eventually(lambda: "ada" in str(redis.xrange(queues)))

    # Each replica writes its sums within half a second.
    await eventually(lambda: used("ada").get("requests") == 4)
    assert used("ada")["prompt_tokens"] == 4 * usage["prompt_tokens"]
    assert used("ada")["generated_tokens"] == 4 * usage["completion_tokens"]
    await eventually(lambda: used("eve").get("requests") == 1)
    assert not await not_exported(
        [
            r'ray_llm_key_tokens_total\{.*key="ada".*kind="prompt"',
            r'ray_llm_over_limit_total\{.*key="eve".*refused="true"',
            r"ray_llm_queue_seconds_bucket\{.*standard",
            r'ray_llm_key_queue_seconds_total\{.*key="ada".*priority="standard"',
            r'ray_llm_key_queue_requests_total\{.*key="ada".*priority="standard"',
        ]
    )

"""Keys and their file in a running service, in either topology."""

from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import Deploy
from tests.support.scraping import not_exported
from tests.support.waiting import eventually

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

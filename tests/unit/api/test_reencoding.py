"""What reaches the engine is our own encoding of what we checked."""

from typing import Any

import orjson
import pytest

from tests.support.service import Service, Simulator, serving

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"smollm2:135m","MODEL":"nope","messages":[]}',
        b'{"model":"smollm2:135m","model":"nope"}',
        b'{"model":"smollm2:135m","Model":"nope"}',
    ],
)
async def test_the_last_spelling_of_a_key_counts_for_us_too(
    service: Service, simulator: Simulator, body: bytes
) -> None:
    """As Go reads it: whoever spells the model twice gets the check of the last one."""
    answer = await service.post("/api/chat", content=body)
    assert answer.status_code == 404
    assert simulator.reached == {}


async def test_keys_reach_the_engine_in_one_spelling(
    service: Service, simulator: Simulator
) -> None:
    """Known keys are folded, unknown ones dropped, the model gets its canonical name."""
    body = {"MODEL": "LIBRARY/SmolLM2:135M", "Messages": MESSAGES, "STREAM": False, "odd": 1}
    answer = await service.post("/api/chat", json=body)
    assert answer.status_code == 200
    assert simulator.last_body == {
        "model": "smollm2:135m",
        "messages": MESSAGES,
        "stream": False,
        "options": {"num_predict": 4096},
    }
    assert answer.json()["model"] == "smollm2:135m"


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, 4096),
        ({"max_tokens": 8}, 8),
        ({"max_tokens": 8, "max_completion_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 8}, 3),
        ({"max_completion_tokens": 5}, 5),
        ({"max_tokens": 0}, 4096),
        ({"max_tokens": -5}, 4096),
        ({"max_tokens": 10**9}, 4096),
        ({"MAX_TOKENS": 10**9, "n_predict": -1}, 4096),
        ({"max_tokens": None}, 4096),
    ],
)
async def test_every_chat_is_bounded(
    service: Service, simulator: Simulator, fields: dict[str, Any], limit: int
) -> None:
    """The smallest of what is asked and ours reaches the engine, as `max_tokens`."""
    body = {"model": "smollm2:135m", "messages": MESSAGES, "stream": True, **fields}
    async with service.stream("POST", "/v1/chat/completions", json=body):
        pass  # a hang-up: what is asked of the engine counts here
    sent = simulator.last_body
    assert sent["max_tokens"] == limit
    assert "max_completion_tokens" not in sent
    assert "n_predict" not in sent


@pytest.mark.parametrize(
    ("path", "body", "keys"),
    [
        ("/v1/completions", {"prompt": "a", "max_tokens": 99}, ("max_tokens",)),
        ("/v1/responses", {"input": "a", "max_output_tokens": 99}, ("max_output_tokens",)),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 99}, ("max_tokens",)),
        ("/api/chat", {"messages": MESSAGES}, ("options", "num_predict")),
        (
            "/api/generate",
            {"prompt": "a", "options": {"num_predict": -1}},
            ("options", "num_predict"),
        ),
    ],
)
async def test_every_dialect_is_bounded(
    simulator: Simulator, path: str, body: dict[str, Any], keys: tuple[str, ...]
) -> None:
    """The bound of the settings holds whatever the dialect calls it."""
    async with serving(simulator, max_tokens=7) as service:
        await service.post(path, json={"model": "smollm2:135m", "stream": False, **body})
    value: Any = simulator.last_body
    for key in keys:
        value = value[key]
    assert value == 7


RELOADING = {"num_ctx": 99, "num_thread": 1, "num_batch": 1, "num_gpu": 0, "main_gpu": 0}


async def test_options_that_reload_the_model_are_taken_out(
    service: Service, simulator: Simulator
) -> None:
    """One caller must not stall the others."""
    options = {**RELOADING, "use_mmap": False, "NUM_CTX": 7, "seed": 1, "num_predict": 1}
    body = {"model": "smollm2:135m", "messages": MESSAGES, "keep_alive": 5, "shift": False}
    await service.post("/api/chat", json={**body, "stream": False, "options": options})
    sent = simulator.last_body
    assert sent["options"] == {"seed": 1, "num_predict": 1}
    assert {"keep_alive", "shift"}.isdisjoint(sent)


async def test_options_that_reload_pass_when_allowed(simulator: Simulator) -> None:
    """A setting lets them through, for a service of one user."""
    async with serving(simulator, allow_model_options=True) as service:
        body = {"model": "smollm2:135m", "messages": MESSAGES, "keep_alive": "5m"}
        options = {"num_ctx": 99, "num_predict": 1}
        await service.post("/api/chat", json={**body, "stream": False, "options": options})
    sent = simulator.last_body
    assert (sent["options"], sent["keep_alive"]) == (options, "5m")


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", "0m0s"])
@pytest.mark.parametrize(
    ("path", "body", "keys"),
    [
        ("/api/chat", {"messages": []}, ["model", "created_at", "message", "done", "done_reason"]),
        ("/api/generate", {}, ["model", "created_at", "response", "done", "done_reason"]),
    ],
)
async def test_unload_is_answered_without_unloading(
    service: Service,
    simulator: Simulator,
    path: str,
    body: dict[str, Any],
    keys: list[str],
    keep_alive: Any,
) -> None:
    """Nobody may take the model away from the others; the answer is Ollama's all the same."""
    answer = await service.post(
        path, json={"model": "smollm2:135m", "keep_alive": keep_alive, **body}
    )
    assert list(answer.json()) == keys
    assert answer.json()["done_reason"] == "unload"
    assert simulator.reached == {}


async def test_an_empty_prompt_loads(service: Service) -> None:
    """Without a prompt the answer is one JSON object that says `load`, never a stream."""
    answer = await service.post("/api/generate", json={"model": "smollm2:135m"})
    assert orjson.loads(answer.content)["done_reason"] == "load"


async def test_headers_of_the_client_stay_with_us(service: Service, simulator: Simulator) -> None:
    """Only headers that mean something to the engine go on; Host is its own, Origin is dropped."""
    headers = {
        "authorization": "Bearer secret",
        "origin": "http://localhost:3000",
        "cookie": "a=b",
        "anthropic-version": "2023-06-01",
    }
    body = {"model": "smollm2:135m", "messages": MESSAGES, "max_tokens": 1}
    await service.post("/v1/messages", json=body, headers=headers)
    last = simulator.last_headers
    assert last["host"] == simulator.url.removeprefix("http://")
    assert last["anthropic-version"] == "2023-06-01"
    assert {"authorization", "origin", "cookie"}.isdisjoint(last)


@pytest.mark.parametrize("stop", ["", [""], ["", "x"]])
async def test_empty_stop_sequences_are_dropped(
    service: Service, simulator: Simulator, stop: Any
) -> None:
    """They would stop every answer before it begins."""
    body = {"model": "smollm2:135m", "messages": MESSAGES, "max_tokens": 1, "stop": stop}
    await service.post("/v1/chat/completions", json=body)
    assert "" not in simulator.last_body.get("stop", [])


async def test_a_path_cannot_forge_log_lines(service: Service) -> None:
    """What a caller writes into a path stays on its own line, and colours nothing."""
    await service.get("/v1/models/x%0aINFO%20forged%1b%5b31m")
    assert service.noted.last.fields()["path"] == r"/v1/models/x\nINFO forged\x1b[31m"

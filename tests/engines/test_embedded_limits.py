"""Prompts and inputs longer than the embedded engine's context: one rule in every dialect."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve_app.engine_settings import EngineSettings
from serve_app.engines.llamacpp.gguf.card import find_smollm2
from serve_app.errors import SettingsError
from serve_app.settings import Settings
from tests.support.service import Service, started

MODEL, CONTEXT = "smollm2:135m", 256
FOX = "The quick brown fox jumps over the lazy dog. "
LONG, LONGER = FOX * 35, FOX * 2500  # 350 tokens, and more bytes than any 256 tokens have
RULES = {"role": "system", "content": "Answer in one word."}
ROLES = ("user", "assistant")
HISTORY = [{"role": ROLES[i % 2], "content": FOX * (4, 2)[i % 2]} for i in range(19)]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@asynccontextmanager
async def embedded(**engine: Any) -> AsyncIterator[Service]:
    pytest.importorskip("xllamacpp")
    try:
        find_smollm2()
    except SettingsError as exc:
        pytest.skip(str(exc))
    chosen = EngineSettings(kind="llamacpp", slots=2, context_length=CONTEXT, **engine)
    async with started(Settings(engine=chosen)) as service:
        service.timeout = 60
        yield service


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    """With default settings but for a small context."""
    async with embedded() as running:
        yield running


@pytest.fixture(scope="module")
async def strict() -> AsyncIterator[Service]:
    """One that refuses."""
    async with embedded(long_prompts="refuse") as running:
        yield running


async def post(service: Service, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = await service.post(path, json={"model": MODEL, **body})
    return answer.status_code, answer.json()


TOO_LONG = [
    ("/v1/chat/completions", {"messages": [user(LONG)]}),
    ("/v1/chat/completions", {"messages": [RULES, *HISTORY]}),
    ("/v1/chat/completions", {"messages": [user([{"type": "text", "text": LONG}])]}),
    ("/v1/chat/completions", {"messages": [user(LONGER)]}),
    ("/v1/completions", {"prompt": LONG}),
    ("/v1/completions", {"prompt": LONGER}),
]


@pytest.mark.parametrize(("path", "body"), TOO_LONG)
async def test_openai_prompts_are_shortened(
    service: Service, path: str, body: dict[str, Any]
) -> None:
    """As under Ollama's own routes: an answer with status 200, to a prompt that fits."""
    status, answer = await post(service, path, {**body, "max_tokens": 2})
    assert status == 200
    assert CONTEXT / 3 < answer["usage"]["prompt_tokens"] < CONTEXT


async def test_openai_and_ollama_shorten_alike(service: Service) -> None:
    """The same conversation comes to the same number of tokens in both dialects."""
    messages = [RULES, *HISTORY]
    _, openai = await post(service, "/v1/chat/completions", {"messages": messages, "max_tokens": 2})
    native = {"messages": messages, "stream": False, "options": {"num_predict": 2}}
    _, ollama = await post(service, "/api/chat", native)
    assert openai["usage"]["prompt_tokens"] == ollama["prompt_eval_count"]


async def test_a_shortened_prompt_streams_as_well(service: Service) -> None:
    """The same text as whole, up to its end marker."""
    body = {"messages": [user(LONG)], "max_tokens": 4, "temperature": 0}
    _, whole = await post(service, "/v1/chat/completions", body)
    answer = await service.post(
        "/v1/chat/completions", json={"model": MODEL, **body, "stream": True}
    )
    *events, done = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert (text, done) == (whole["choices"][0]["message"]["content"], "[DONE]")


@pytest.mark.parametrize(("path", "body"), TOO_LONG)
async def test_openai_refusals_have_a_code_and_both_numbers(
    strict: Service, path: str, body: dict[str, Any]
) -> None:
    """Agents shorten their history by them."""
    status, answer = await post(strict, path, {**body, "max_tokens": 2})
    error = answer["error"]
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert error["type"] == "invalid_request_error"
    assert f"maximum context length is {CONTEXT} tokens" in error["message"]
    assert int(error["message"].partition(" tokens. Please")[0].split()[-1]) > CONTEXT


@pytest.mark.parametrize("rules", [RULES | {"content": LONG}, RULES | {"content": LONGER}])
async def test_what_must_stay_may_be_too_long(service: Service, rules: dict[str, Any]) -> None:
    """The system's message is never cut: both numbers, though prompts are shortened."""
    body = {"messages": [rules, user("Hi")], "max_tokens": 2}
    status, answer = await post(service, "/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [user(LONG)]}),
        ("/api/chat", {"messages": [user(LONG)], "truncate": True}),
        ("/api/generate", {"prompt": LONG}),
        ("/api/generate", {"prompt": LONG, "raw": True}),
    ],
)
async def test_native_refusals_are_ollamas(
    strict: Service, path: str, body: dict[str, Any]
) -> None:
    """The operator's wish and the caller's `truncate: false` are answered alike."""
    status, answer = await post(strict, path, {**body, "stream": False})
    error = json.loads(answer["error"])["error"]
    assert (status, error["type"]) == (400, "exceed_context_size_error")
    assert error["n_prompt_tokens"] > error["n_ctx"] == CONTEXT


@pytest.mark.parametrize("text", [LONG, LONGER])
async def test_messages_and_responses_are_refused_in_their_own_words(
    strict: Service, text: str
) -> None:
    """Anthropic has a sentence with both numbers, OpenAI's Responses a code."""
    body = {"messages": [user(text)], "max_tokens": 2}
    status, answer = await post(strict, "/v1/messages", body)
    sentence = rf"prompt is too long: (at least )?\d+ tokens > {CONTEXT} maximum"
    assert status == 400
    assert re.fullmatch(sentence, answer["error"]["message"])
    status, answer = await post(strict, "/v1/responses", {"input": text, "max_output_tokens": 16})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_embedding_routes_have_one_limit(service: Service) -> None:
    """The context that is listed: longer inputs are cut to it, but for the oldest route's."""
    (listed,) = (await service.get("/api/ps")).json()["models"]
    assert listed["context_length"] == CONTEXT
    _, native = await post(service, "/api/embed", {"input": LONG})
    _, openai = await post(service, "/v1/embeddings", {"input": LONG})
    assert native["prompt_eval_count"] == openai["usage"]["prompt_tokens"] == CONTEXT
    assert native["embeddings"][0] == pytest.approx(openai["data"][0]["embedding"], abs=1e-5)
    status, oldest = await post(service, "/api/embeddings", {"prompt": LONG})
    assert (status, oldest["error"]) == (400, "the input length exceeds the context length")


@pytest.mark.parametrize("given", [LONG, LONGER, ["a", LONG]])
async def test_embedding_inputs_are_refused_with_both_numbers(strict: Service, given: Any) -> None:
    """Under OpenAI with its code, under Ollama in its own words."""
    status, answer = await post(strict, "/v1/embeddings", {"input": given})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    status, answer = await post(strict, "/api/embed", {"input": given})
    assert (status, answer["error"]) == (400, "the input length exceeds the context length")


async def test_dimensions_and_formats_are_obeyed(service: Service) -> None:
    """As `/api/embed` does; `encoding_format: null` is none."""
    _, native = await post(service, "/api/embed", {"input": "hello", "dimensions": 8})
    body = {"input": "hello", "dimensions": 8, "encoding_format": None}
    _, openai = await post(service, "/v1/embeddings", body)
    (entry,) = openai["data"]
    assert entry["embedding"] == pytest.approx(native["embeddings"][0], abs=1e-6)
    assert len(entry["embedding"]) == 8


BASES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [user("Hi")], "max_tokens": 1}),
    ("/v1/completions", {"prompt": "Hi", "max_tokens": 1}),
    ("/v1/embeddings", {"input": "Hi"}),
    ("/v1/messages", {"messages": [user("Hi")], "max_tokens": 1}),
]
FIELDS = (
    "messages prompt input system temperature top_p top_k seed stop stop_sequences tools "
    "frequency_penalty encoding_format dimensions stream_options response_format logprobs suffix "
    "tool_choice reasoning_effort"
)


@pytest.mark.parametrize(("path", "base"), BASES)
async def test_no_library_speaks_to_callers(
    service: Service, path: str, base: dict[str, Any]
) -> None:
    """Whatever type a field has, the words are ours or Ollama's."""
    for field in FIELDS.split():
        for value in ([], [5], {"a": 1}, "x", True, [{"role": "user", "content": [{"text": 5}]}]):
            status, answer = await post(service, path, {**base, field: value})
            assert status in (200, 400), (field, value, answer)
            assert "json.exception" not in json.dumps(answer), (field, value, answer)

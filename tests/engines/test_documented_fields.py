"""Every documented field of every route, on the embedded engine: it works, is refused by name, or
stands on the list of fields without effect."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import anthropic.types
import ollama
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params

from serve_app.api import anthropic as messages_api
from serve_app.api import ollama as native_api
from serve_app.api import openai as openai_api
from serve_app.api.fields import IGNORED
from serve_app.engine_settings import EngineSettings
from serve_app.engines.llamacpp.gguf.card import find_smollm2
from serve_app.errors import SettingsError
from serve_app.settings import Settings
from tests.support.service import Service, started

MODEL = "smollm2:135m"
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"]}
NAMED = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
KEYS = {
    endpoint.path: endpoint.keys
    for endpoint in (*openai_api.ENDPOINTS, *messages_api.ENDPOINTS, *native_api.ENDPOINTS)
}

BASE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 6, "temperature": 0, "seed": 7},
    "/v1/completions": {"prompt": "The sky is", "max_tokens": 6, "temperature": 0, "seed": 7},
    "/v1/embeddings": {"input": "hello"},
    "/api/chat": {
        "messages": HELLO,
        "stream": False,
        "options": {"num_predict": 6, "temperature": 0, "seed": 7},
    },
    "/api/generate": {
        "prompt": "The sky is",
        "stream": False,
        "options": {"num_predict": 6, "temperature": 0, "seed": 7},
    },
    "/api/embed": {"input": "hello"},
    "/api/embeddings": {"prompt": "hello"},
    "/api/show": {},
}


class Works(NamedTuple):
    """A value, what goes with it, and how the answer shows that it was obeyed."""

    value: Any
    shows: Callable[[str], bool] = lambda answer: True
    beside: Mapping[str, Any] = MappingProxyType({})


class Refused(NamedTuple):
    """Values that are refused, and what the refusal says."""

    values: list[Any]
    words: str = ""


def says(text: str) -> Callable[[str], bool]:
    return lambda answer: text in answer


def lacks(text: str) -> Callable[[str], bool]:
    return lambda answer: text not in answer


def is_json(answer: str) -> bool:
    """Whether the text of a whole answer is of SCHEMA."""
    body = json.loads(answer)
    text = body.get("response") or body.get("message", {}).get("content")
    return bool(json.loads(text or body["choices"][0]["message"]["content"]) == {"a": 7})


NO_TOOLS = Refused([[TOOL]], "registry.ollama.ai/library/smollm2:135m does not support tools")
NO_INSERT = Refused(["end"], "registry.ollama.ai/library/smollm2:135m does not support insert")
NO_THOUGHTS = f'"{MODEL}" does not support thinking'
# 28 is the comma, the second token of "Hello, …"; 2 ends an answer.
WITHOUT_COMMA = {"28": -100}
SAMPLING = {
    "temperature": Works(0.1),
    "top_p": Works(0.5),
    "seed": Works(3),
    "frequency_penalty": Works(0.5),
    "presence_penalty": Works(0.5),
    "max_tokens": Works(2, says('"completion_tokens":2')),
}
CHOICE = Refused(["required", {"type": "function", "function": {"name": "f"}}], "tool_choice")
ONE_ANSWER = Refused([2, 0, True, "1"], "must be 1")

WORKING: dict[str, dict[str, Works]] = {
    "/v1/chat/completions": {
        **SAMPLING,
        "model": Works("library/smollm2:135m", says(MODEL)),
        "messages": Works(HELLO),
        "prompt_cache_key": Works("talk"),
        "stream": Works(True, says("data: [DONE]")),
        "stream_options": Works({"include_usage": True}, says('"usage"'), {"stream": True}),
        "stop": Works([","], lacks(',"}')),
        "max_completion_tokens": Works(2, says('"completion_tokens":2')),
        "logit_bias": Works(WITHOUT_COMMA, lacks("Hello,")),
        "logprobs": Works(True, says('"logprob"')),
        "top_logprobs": Works(2, says('"top_logprobs"'), {"logprobs": True}),
        "response_format": Works(NAMED, is_json, {"max_tokens": 60}),
        "reasoning_effort": Works("none"),
        "tool_choice": Works("none"),
        "parallel_tool_calls": Works(True),
        "n": Works(1),
        "modalities": Works(["text"]),
        "function_call": Works("none"),
        "functions": Works([]),
    },
    "/v1/completions": {
        **SAMPLING,
        "model": Works(MODEL),
        "prompt": Works(["The sea is"]),
        "stream": Works(True, says("data: [DONE]")),
        "stream_options": Works({"include_usage": True}, says('"usage"'), {"stream": True}),
        "stop": Works(" of", lacks(" of")),
        "logit_bias": Works({"253": -100}, lacks(" a canvas")),
        "logprobs": Works(2, says('"logprob"')),
        "n": Works(1),
        "best_of": Works(1),
        "echo": Works(False),
        "suffix": Works(""),
    },
    "/v1/embeddings": {
        "model": Works(MODEL),
        "input": Works(["a", "b"], says('"index":1')),
        "encoding_format": Works("float"),
        "dimensions": Works(None),
    },
    "/api/chat": {
        "model": Works(MODEL),
        "messages": Works(HELLO),
        "stream": Works(True, says('"done":true')),
        "format": Works(SCHEMA, is_json, {"options": {"num_predict": 60, "temperature": 0}}),
        "options": Works({"num_predict": 2}, says('"eval_count":2')),
        "think": Works(False),
        "logprobs": Works(True, says('"logprob"')),
        "top_logprobs": Works(2, says('"top_logprobs"'), {"logprobs": True}),
        "truncate": Works(True),
        "tools": Works([]),
    },
    "/api/generate": {
        "model": Works(MODEL),
        "prompt": Works("The sea is"),
        "stream": Works(True, says('"done":true')),
        "format": Works(SCHEMA, is_json, {"options": {"num_predict": 60, "temperature": 0}}),
        "options": Works({"num_predict": 2}, says('"eval_count":2')),
        "think": Works(False),
        "logprobs": Works(True, says('"logprob"')),
        "top_logprobs": Works(2, says('"top_logprobs"'), {"logprobs": True}),
        "truncate": Works(True),
        "system": Works("Speak of cats."),
        "context": Works([1, 2, 3]),
        "raw": Works(True, lacks('"context"')),
        "suffix": Works(""),
        "template": Works(""),
        "images": Works([]),
    },
    "/api/embed": {
        "model": Works(MODEL),
        "input": Works(["a", "b"]),
        "truncate": Works(True),
        "options": Works({}),
        "dimensions": Works(64, lambda answer: len(json.loads(answer)["embeddings"][0]) == 64),
    },
    "/api/embeddings": {"model": Works(MODEL), "prompt": Works("a"), "options": Works({})},
    "/api/show": {
        "model": Works(MODEL),
        "name": Works(MODEL),
        "verbose": Works(True, says("tokenizer.ggml.tokens")),
    },
}

REFUSED: dict[str, dict[str, Refused]] = {
    "/v1/chat/completions": {
        "tools": NO_TOOLS,
        "tool_choice": CHOICE,
        "n": ONE_ANSWER,
        "functions": Refused([[{"name": "f"}]], "functions"),
        "function_call": Refused([{"name": "f"}], "function_call"),
        "modalities": Refused([["text", "audio"]], "modalities"),
        "audio": Refused([{"voice": "alloy", "format": "wav"}], "audio"),
        "web_search_options": Refused([{}], "web_search_options"),
        "moderation": Refused([{"model": "m"}], "moderation"),
        "reasoning_effort": Refused(["high", "ultra"], NO_THOUGHTS),
        "reasoning": Refused([{"effort": "high"}], NO_THOUGHTS),
        "response_format": Refused(
            ["json", {}, {"type": "xml"}, {"type": "json_schema"}, {"json_schema": SCHEMA}],
            "response_format",
        ),
        "stop": Refused([5, [5]], "stop"),
        "logit_bias": Refused([5, {"x": 1}, {"1": "x"}, {"1": 1000}], "logit_bias"),
        "logprobs": Refused([1, "yes"], "logprobs"),
        "stream_options": Refused([5], "stream_options"),
        "parallel_tool_calls": Refused(["x"], "parallel_tool_calls"),
        "temperature": Refused(["hot"], "temperature"),
        "seed": Refused(["x"], "seed"),
    },
    "/v1/completions": {
        "suffix": NO_INSERT,
        "n": ONE_ANSWER,
        "best_of": ONE_ANSWER,
        "echo": Refused([True], "echo"),
        "logprobs": Refused([True], "logprobs"),
        "stop": Refused([5, [5]], "stop"),
        "logit_bias": Refused([{"1": "x"}], "logit_bias"),
        "prompt": Refused([["a", "b"], [1]], "prompt"),
    },
    "/api/chat": {"tools": NO_TOOLS, "think": Refused([True, "high"], NO_THOUGHTS)},
    "/api/generate": {
        "suffix": NO_INSERT,
        "think": Refused([True], NO_THOUGHTS),
        "template": Refused(["{{ .Prompt }}"], "template"),
        "images": Refused([["aGk="]], "does not support multimodal"),
    },
}


def names(params: Any) -> set[str]:
    """The fields of one of the SDK's TypedDicts."""
    return set(params.__required_keys__ | params.__optional_keys__)


DOCUMENTED = {
    "/v1/chat/completions": names(chat_params.CompletionCreateParamsStreaming),
    "/v1/completions": names(completion_create_params.CompletionCreateParamsStreaming),
    "/v1/embeddings": names(embedding_create_params.EmbeddingCreateParams),
    "/v1/responses": names(response_create_params.ResponseCreateParamsStreaming),
    "/v1/messages": names(anthropic.types.message_create_params.MessageCreateParamsStreaming),
    "/api/chat": set(ollama._types.ChatRequest.model_fields),
    "/api/generate": set(ollama._types.GenerateRequest.model_fields),
    "/api/embed": set(ollama._types.EmbedRequest.model_fields),
    "/api/embeddings": set(ollama._types.EmbeddingsRequest.model_fields),
    "/api/show": set(ollama._types.ShowRequest.model_fields),
}
ROUTES = list(BASE)


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    """The whole service before the embedded engine with SmolLM2."""
    pytest.importorskip("xllamacpp")
    try:
        find_smollm2()
    except SettingsError as exc:
        pytest.skip(str(exc))
    engine = EngineSettings(kind="llamacpp", slots=2, context_length=512)
    async with started(Settings(models=(MODEL,), engine=engine)) as running:
        yield running


async def ask(service: Service, path: str, **fields: Any) -> tuple[int, str]:
    answer = await service.post(path, json={"model": MODEL, **BASE[path], **fields})
    return answer.status_code, answer.text


def text_of(body: str) -> Any:
    """What was answered, without ids, times and durations."""
    value = json.loads(body)
    return [value.get(key) for key in ("choices", "message", "response", "data", "embeddings")]


@pytest.mark.parametrize("path", DOCUMENTED)
def test_every_documented_field_is_passed_on_or_listed(path: str) -> None:
    """A field that is documented reaches the engine, or stands on the list with its reason."""
    assert DOCUMENTED[path] - KEYS[path] <= IGNORED[path].keys()


@pytest.mark.parametrize("path", ROUTES)
def test_every_field_has_one_meaning_here(path: str) -> None:
    """A field that is documented or passed on works, is refused, or is on the list."""
    tried = WORKING.get(path, {}).keys() | REFUSED.get(path, {}).keys()
    known = DOCUMENTED[path] | KEYS[path]
    beyond = {"top_k", "min_p", "repeat_penalty", "repeat_last_n"}  # llama.cpp's and Ollama's
    assert known - tried - beyond == IGNORED[path].keys()


@pytest.mark.parametrize(
    ("path", "field"), [(path, field) for path, table in WORKING.items() for field in table]
)
async def test_it_works(service: Service, path: str, field: str) -> None:
    """A field that is listed as working is taken, and the answer shows it."""
    works = WORKING[path][field]
    status, body = await ask(service, path, **{**works.beside, field: works.value})
    assert status == 200, body
    assert works.shows(body), body


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (path, field, value)
        for path, table in REFUSED.items()
        for field, refused in table.items()
        for value in refused.values
    ],
)
async def test_it_is_refused_by_name(service: Service, path: str, field: str, value: Any) -> None:
    """What the engine can't do gives a 400 that says so."""
    status, body = await ask(service, path, **{field: value})
    assert status == 400, body
    error = json.loads(body)["error"]
    assert REFUSED[path][field].words in (error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("path", ROUTES)
async def test_listed_fields_change_nothing(service: Service, path: str) -> None:
    """The answer is the same with all fields of the list as without them."""
    listed = dict.fromkeys(IGNORED[path], "5")
    plain, same = await ask(service, path), await ask(service, path, **listed)
    assert (plain[0], same[0]) == (200, 200), same
    assert text_of(plain[1]) == text_of(same[1])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/api/chat"])
async def test_null_is_as_if_left_out(service: Service, path: str) -> None:
    """Clients send null for what their caller did not set."""
    nulls = dict.fromkeys(DOCUMENTED[path] - BASE[path].keys() - {"model"}, None)
    plain, same = await ask(service, path), await ask(service, path, **nulls)
    assert (plain[0], same[0]) == (200, 200), same

"""Answers of the embedded engine to requests with a JSON schema, judged by a validator."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from serve_app.engine_settings import EngineSettings
from serve_app.engines.llamacpp.gguf.card import find_smollm2
from serve_app.errors import SettingsError
from serve_app.settings import Settings
from tests.support.service import Service, started

MODEL = "smollm2:135m"
# Any token may come, so that only the grammar keeps to the schema.
WILD = {"temperature": 2.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
TOKENS = 200


def both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"allOf": [one, other]}


def wanted(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


# llama.cpp ignores something in each of them.
SCHEMAS = {
    "digits": {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
    "not anchored": {"type": "string", "pattern": r"^[a-c]{3}$|^\d{2}$"},
    "lengths beside a pattern": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
    "any but one": {"type": "string", "pattern": "^[^x]{3}$"},
    "all of": both(
        wanted(a={"type": "integer", "maximum": 9}), wanted(a={"minimum": 5}, b={"type": "null"})
    ),
    "required only": {"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}],
        "items": {"enum": [1, 2]},
        "minItems": 3,
    },
    "type beside enum": {"type": "string", "enum": ["a", 1, None]},
    "alternatives beside properties": {
        **wanted(a={"enum": [1]}),
        "anyOf": [wanted(b={"enum": [2]}), wanted(c={"enum": [3]})],
    },
    "beside a reference": {
        "$ref": "#/$defs/N",
        "maximum": 9,
        "$defs": {"N": {"type": "integer", "minimum": 7}},
    },
    "fractions as bounds": {"type": "integer", "exclusiveMinimum": 3, "maximum": 5.5},
    "one of": {
        "oneOf": [wanted(k={"const": "a"}), wanted(k={"const": "b"}, x={"type": "boolean"})]
    },
    "format": {"type": "string", "format": "ipv4", "pattern": r"^10\.\d\.\d\.\d$"},
}


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


async def openai_answer(service: Service, schema: dict[str, Any], seed: int) -> Any:
    named = {"name": "x", "strict": True, "schema": schema}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Answer with JSON."}],
        "response_format": {"type": "json_schema", "json_schema": named},
        "max_tokens": TOKENS,
        "seed": seed,
        **WILD,
    }
    answer = (await service.post("/v1/chat/completions", json=body)).json()
    return answer["choices"][0]["message"]["content"]


async def raw_answer(service: Service, schema: dict[str, Any], seed: int) -> Any:
    """By another way in llama.cpp, which makes another kind of grammar."""
    options = {**WILD, "seed": seed, "num_predict": TOKENS}
    body = {"model": MODEL, "prompt": "JSON: ", "raw": True, "format": schema, "stream": False}
    answer = (await service.post("/api/generate", json={**body, "options": options})).json()
    return answer["response"]


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("ask", [openai_answer, raw_answer])
async def test_the_schema_is_obeyed(service: Service, ask: Any, name: str) -> None:
    """Every finished answer is valid, however improbable its tokens."""
    valid = Draft202012Validator(SCHEMAS[name])
    for seed in range(2):
        text = await ask(service, SCHEMAS[name], seed)
        try:
            value = json.loads(text)
        except json.JSONDecodeError as exc:  # cut by the bound of tokens, in white space
            assert exc.pos >= len(text.rstrip()), text  # noqa: PT017
        else:
            assert valid.is_valid(value), text


ROUTES = {
    "/v1/chat/completions": lambda schema: {
        "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    },
    "/api/chat": lambda schema: {"messages": [{"role": "user", "content": "x"}], "format": schema},
    "/api/generate": lambda schema: {"prompt": "x", "format": schema},
}


@pytest.mark.parametrize("path", ROUTES)
async def test_what_cannot_be_obeyed_is_refused_everywhere(service: Service, path: str) -> None:
    """A lookahead in a property's pattern is named, in the caller's dialect."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=b)b$"}}}
    answer = await service.post(path, json={"model": MODEL, **ROUTES[path](schema)})
    assert answer.status_code == 400
    assert "pattern at #/properties/a is not supported: it has a lookahead" in answer.text

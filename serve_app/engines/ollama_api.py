"""Lists, loads, unloads and describes the models of a running Ollama."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from time import monotonic

import httpx

from serve_app.engines.base import ModelCard
from serve_app.engines.ollama_answers import (
    Json,
    field,
    json_object,
    json_value,
    listing,
    unlike_ollama,
)
from serve_app.errors import EngineError, EngineLost, EngineStartError
from serve_app.model_names import full_name, short_name

POLL_S = 0.05
UNLOAD_TIMEOUT_S = 30.0

_NEVER = "1970-01-01T00:00:00Z"


async def missing(http: httpx.AsyncClient, names: Iterable[str]) -> list[str]:
    """Return the `names` that Ollama does not list. Raises EngineError, httpx.HTTPError."""
    listed = await listing(http, "/api/tags")
    return [name for name in names if full_name(name) not in listed]


async def load_model(http: httpx.AsyncClient, name: str) -> None:
    """Load `name` without expiry and let it give one token or embedding.

    Raises EngineStartError with Ollama's own words, EngineError, httpx.HTTPError.
    """
    shown = await _ask(http, "/api/show", {"model": name})
    body: Json = {"model": name, "keep_alive": -1}
    if "completion" in field(shown, "capabilities", ["completion"]):
        body |= {"prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
        await _ask(http, "/api/generate", body, proof="done")
    else:
        await _ask(http, "/api/embed", body | {"input": "Hi"}, proof="embeddings")


async def _ask(http: httpx.AsyncClient, path: str, body: Json, proof: str = "") -> Json:
    """Return the answer, which must have the field `proof`.

    Raises EngineError with Ollama's own words.
    """
    answer = await http.post(path, json=body, timeout=None)
    value = json_value(answer.content)
    if answer.status_code != 200 and isinstance(value, dict) and "error" in value:
        raise EngineStartError(f"{body['model']} can't be loaded: {value['error']}")
    if proof and not json_object(answer).get(proof):
        raise unlike_ollama(answer)
    return json_object(answer)


async def unload(http: httpx.AsyncClient, name: str) -> None:
    """Unload `name`; return when Ollama no longer lists it as loaded.

    Ollama answers at once, and unloads when no request uses the model. Raises EngineError when that
    takes longer than UNLOAD_TIMEOUT_S, httpx.HTTPError.
    """
    await _ask(http, "/api/generate", {"model": name, "keep_alive": 0})
    until = monotonic() + UNLOAD_TIMEOUT_S
    while full_name(name) in await listing(http, "/api/ps"):
        if monotonic() > until:
            raise EngineError(f"{name} is still loaded {UNLOAD_TIMEOUT_S:g} s after its unload")
        await asyncio.sleep(POLL_S)


async def loaded(http: httpx.AsyncClient) -> dict[str, int]:
    """Return the bytes of each loaded model. Raises EngineError, httpx.HTTPError."""
    models = await listing(http, "/api/ps")
    return {short_name(entry["name"]): field(entry, "size", 0) for entry in models.values()}


async def check_loaded(http: httpx.AsyncClient, names: Iterable[str]) -> None:
    """Raise EngineLost when none of `names` is loaded, as after a restart of Ollama.

    A single model may be absent, because Ollama swaps models where memory is short.
    """
    listed = await listing(http, "/api/ps")
    if not {full_name(name) for name in names} & listed.keys():
        raise EngineLost("the engine's models are no longer loaded")


async def cards(http: httpx.AsyncClient, names: Iterable[str]) -> tuple[ModelCard, ...]:
    """Return the card of every model. Raises EngineLost for a model that was deleted meanwhile."""
    listed, running = await listing(http, "/api/tags"), await listing(http, "/api/ps")
    if gone := [name for name in names if full_name(name) not in listed]:
        raise EngineLost(f"the engine no longer lists {', '.join(gone)}")
    return tuple(
        _card(name, listed[full_name(name)], running.get(full_name(name), {})) for name in names
    )


def _card(name: str, listed: Json, running: Json) -> ModelCard:
    details: Json = field(listed, "details", {})
    return ModelCard(
        name=name,
        size=field(listed, "size", 0),
        loaded=bool(running),
        size_loaded=field(running, "size", 0),
        size_vram=field(running, "size_vram", 0),
        digest=field(listed, "digest", ""),
        modified_at=_time(listed),
        format=field(details, "format", ""),
        family=field(details, "family", ""),
        parameter_size=field(details, "parameter_size", ""),
        quantization_level=field(details, "quantization_level", ""),
        context_length=field(details, "context_length", 0),
        embedding_length=field(details, "embedding_length", 0),
        loaded_context_length=field(running, "context_length", 0),
        capabilities=tuple(map(str, field(listed, "capabilities", ["completion"]))),
    )


def _time(listed: Json) -> str:
    """Return the time of a model's last change in ISO 8601, which listings parse."""
    text = field(listed, "modified_at", "")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return text

"""Models of a running Ollama (or of what speaks like one): there, pulled, loaded, described.

What it answers is not taken on trust: another service may listen there, or a login page before it.
"""

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Any, TypeVar

import httpx
import orjson

from serve_app.engines.base import ModelCard
from serve_app.engines.lifecycle import EngineInfo, StartTimer
from serve_app.errors import EngineError, EngineLost, EngineStartError, SettingsError
from serve_app.model_names import full_name, short_name

logger = logging.getLogger("ray.serve")

POLL_S = 0.05
WAITING_EVERY_S = 10.0
PROGRESS_EVERY_S = 2.0

Json = dict[str, Any]
_T = TypeVar("_T")

_NEVER = "1970-01-01T00:00:00Z"

# What a server that is about to come may do to a request.
_NOT_YET = (httpx.NetworkError, httpx.ProtocolError, httpx.ProxyError, httpx.TimeoutException)


async def until_up(http: httpx.AsyncClient, path: str) -> None:
    """Return when GET `path` answers 200; say every 10 s why it has not yet.

    Raises EngineError for an answer that no waiting changes: a redirection, a refusal.
    """
    began = said = monotonic()
    while problem := await _not_up(http, path):
        if monotonic() - said > WAITING_EVERY_S:
            said = monotonic()
            logger.info("waiting for %s since %.0f s: %s", http.base_url, said - began, problem)
        await asyncio.sleep(POLL_S)


async def _not_up(http: httpx.AsyncClient, path: str) -> str:
    """Return why GET `path` does not answer 200 yet, or ""."""
    try:
        answer = await http.get(path)
    except _NOT_YET as exc:
        return str(exc) or type(exc).__name__
    if answer.status_code >= 500:
        return f"status {answer.status_code}"
    if answer.status_code != 200:
        raise _unlike_ollama(answer)
    return ""


async def prepare(
    http: httpx.AsyncClient, timer: StartTimer, names: Iterable[str], pull: bool, wait: bool
) -> EngineInfo:
    """Up, every model there, every model loaded and proven with one token.

    Models that are missing are pulled (`pull`), awaited (`wait`: somebody else pulls them), or
    refused: SettingsError.
    """
    names = tuple(map(short_name, names))
    with timer.phase("up"):
        await until_up(http, "/api/version")
    with timer.phase("pull"):
        await _have(http, names, pull, wait)
    with timer.phase("load"):
        for name in names:
            await _load(http, name)
    version = _field(_object(await http.get("/api/version")), "version", "")
    return EngineInfo(version, await cards(http, names))


def _object(answer: httpx.Response) -> Json:
    """Return the JSON object in `answer`. Raises EngineError, which shows what came instead."""
    value = _json(answer.content)
    if answer.status_code != 200 or not isinstance(value, dict):
        raise _unlike_ollama(answer)
    return value


def _json(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _unlike_ollama(answer: httpx.Response) -> EngineError:
    request, kind = answer.request, answer.headers.get("content-type", "without a type")
    return EngineError(
        f"{request.method} {request.url} answered status {answer.status_code}, {kind}, "
        f"{answer.content[:80]!r}: this is not what an Ollama says there"
    )


async def _models(http: httpx.AsyncClient, path: str) -> dict[str, Json]:
    """Return a listing's entries by full name. Raises EngineError when it is no listing."""
    answer = await http.get(path)
    listing = _object(answer)
    entries = listing.get("models") or []  # Go may write null for an empty list
    known = "models" in listing and isinstance(entries, list)
    if not known or not all(map(_is_named, entries)):
        raise _unlike_ollama(answer)
    return {full_name(model["name"]): model for model in entries}


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


async def missing(http: httpx.AsyncClient, names: Iterable[str]) -> list[str]:
    """Those of `names` that Ollama does not list. Raises EngineError, httpx.HTTPError."""
    have = await _models(http, "/api/tags")
    return [name for name in names if full_name(name) not in have]


async def _have(http: httpx.AsyncClient, names: tuple[str, ...], pull: bool, wait: bool) -> None:
    said = 0.0
    while absent := await missing(http, names):
        if pull:
            for name in absent:
                await _pull(http, name)
            if absent := await missing(http, absent):
                raise EngineStartError(f"it pulled {', '.join(absent)} and does not list it")
            return
        if not wait:
            raise SettingsError(f"models: {', '.join(absent)} not there, and engine.pull is off")
        if monotonic() - said > WAITING_EVERY_S:
            said = monotonic()
            logger.info("waiting for models: %s", ", ".join(absent))
        await asyncio.sleep(POLL_S)


async def _pull(http: httpx.AsyncClient, name: str) -> None:
    """Raises EngineStartError unless the last line of the progress says "success"."""
    progress, line, step = _Progress(name), "", None
    async with http.stream("POST", "/api/pull", json={"model": name}, timeout=None) as response:
        async for line in response.aiter_lines():
            step = _json(line)
            if not isinstance(step, dict) or "error" in step:
                break
            progress.step(step)
    if not isinstance(step, dict) or step.get("status") != "success":
        problem = step.get("error") if isinstance(step, dict) else None
        said = problem or f"status {response.status_code}, {line[:200]!r} at the end"
        raise EngineStartError(f"{name} can't be pulled: {said}")
    logger.info("pulled %s", name)


class _Progress:
    """Says how a pull gets on: the layer, its bytes, their rate."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = self._said = monotonic()

    def step(self, step: Json) -> None:
        now = monotonic()
        done, total = _field(step, "completed", 0), _field(step, "total", 0)
        if now - self._said < PROGRESS_EVERY_S or not total:
            return
        self._said = now
        logger.info(
            "pulling %s: %.0f of %.0f MB (%.0f %%), %.0f s",
            *(self._name, done / 1e6, total / 1e6, 100 * done / total, now - self._began),
        )


async def _load(http: httpx.AsyncClient, name: str) -> None:
    """Load `name` for good and make it work once: one token, or one embedding."""
    described = await _ask(http, "/api/show", {"model": name})
    body: Json = {"model": name, "keep_alive": -1}
    if "completion" in _field(described, "capabilities", ["completion"]):
        body |= {"prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
        await _ask(http, "/api/generate", body, proof="done")
    else:
        await _ask(http, "/api/embed", body | {"input": "Hi"}, proof="embeddings")


async def _ask(http: httpx.AsyncClient, path: str, body: Json, proof: str = "") -> Json:
    """Return the answer, with something under `proof`. Raises EngineError in Ollama's own words."""
    answer = await http.post(path, json=body, timeout=None)
    value = _json(answer.content)
    if answer.status_code != 200 and isinstance(value, dict) and "error" in value:
        raise EngineStartError(f"{body['model']} can't be loaded: {value['error']}")
    if proof and not _object(answer).get(proof):
        raise _unlike_ollama(answer)
    return _object(answer)


async def check_loaded(http: httpx.AsyncClient, names: Iterable[str]) -> None:
    """Raise EngineLost when none of `names` is loaded: it was restarted, or has dropped them.

    Not when one is missing: where memory holds fewer models, Ollama swaps them on its own.
    """
    loaded = await _models(http, "/api/ps")
    if not {full_name(name) for name in names} & loaded.keys():
        raise EngineLost("its models are not loaded any more")


async def cards(http: httpx.AsyncClient, names: Iterable[str]) -> tuple[ModelCard, ...]:
    """Raises EngineLost when one of `names` is not listed: it was deleted since it was loaded."""
    listed, running = await _models(http, "/api/tags"), await _models(http, "/api/ps")
    if gone := [name for name in names if full_name(name) not in listed]:
        raise EngineLost(f"it does not list {', '.join(gone)} any more")
    return tuple(
        _card(name, listed[full_name(name)], running.get(full_name(name), {})) for name in names
    )


def _card(name: str, listed: Json, running: Json) -> ModelCard:
    details: Json = _field(listed, "details", {})
    return ModelCard(
        name=name,
        size=_field(listed, "size", 0),
        loaded=bool(running),
        size_loaded=_field(running, "size", 0),
        size_vram=_field(running, "size_vram", 0),
        digest=_field(listed, "digest", ""),
        modified_at=_time(listed),
        format=_field(details, "format", ""),
        family=_field(details, "family", ""),
        parameter_size=_field(details, "parameter_size", ""),
        quantization_level=_field(details, "quantization_level", ""),
        context_length=_field(details, "context_length", 0),
        embedding_length=_field(details, "embedding_length", 0),
        loaded_context_length=_field(running, "context_length", 0),
        capabilities=tuple(map(str, _field(listed, "capabilities", ["completion"]))),
    )


def _field(source: Json, key: str, default: _T) -> _T:
    """Return `source[key]`, or `default` where nothing of its type is there."""
    value = source.get(key)
    return value if isinstance(value, type(default)) else default


def _time(listed: Json) -> str:
    """Return the time of a model's last change, in a form that listings can calculate with."""
    text = _field(listed, "modified_at", "")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return text

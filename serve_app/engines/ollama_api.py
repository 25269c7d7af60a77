"""Lists, pulls, loads and describes the models of a running Ollama.

No answer is trusted, because another service or a login page may listen at the address.
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
from serve_app.engines.preload import Preload
from serve_app.errors import EngineError, EngineLost, EngineStartError, SettingsError
from serve_app.model_names import full_name, short_name

logger = logging.getLogger("ray.serve")

POLL_S = 0.05
WAITING_EVERY_S = 10.0
PROGRESS_EVERY_S = 2.0
UNLOAD_TIMEOUT_S = 30.0

Json = dict[str, Any]
_T = TypeVar("_T")

_NEVER = "1970-01-01T00:00:00Z"

# Errors of requests to a server that is still starting.
_NOT_YET = (httpx.NetworkError, httpx.ProtocolError, httpx.ProxyError, httpx.TimeoutException)


async def until_up(http: httpx.AsyncClient, path: str) -> None:
    """Return when GET `path` answers 200; log every 10 s why it does not.

    Raises EngineError for an answer that waiting can't change: a redirection, a refusal.
    """
    began = logged = monotonic()
    while problem := await _not_up(http, path):
        if monotonic() - logged > WAITING_EVERY_S:
            logged = monotonic()
            logger.info("waiting for %s since %.0f s: %s", http.base_url, logged - began, problem)
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
    http: httpx.AsyncClient,
    timer: StartTimer,
    names: Iterable[str],
    pull: bool,
    wait: bool,
    preload: Preload | None = None,
) -> EngineInfo:
    """Return when Ollama is up with all models, and those to preload have given one token.

    Missing models are pulled with `pull` and awaited with `wait`, where something else pulls them.
    Raises SettingsError for missing models otherwise.
    """
    names = tuple(map(short_name, names))
    with timer.phase("up"):
        await until_up(http, "/api/version")
    with timer.phase("pull"):
        await _until_listed(http, names, pull, wait)
    with timer.phase("load"):
        await _preload(http, names, preload or Preload())
    version = _field(_object(await http.get("/api/version")), "version", "")
    return EngineInfo(version, await cards(http, names))


async def _preload(http: httpx.AsyncClient, names: tuple[str, ...], preload: Preload) -> None:
    """Load what is to be loaded first, once nothing else takes its room."""
    if preload.names is None:
        for name in names:
            await load(http, name)
        return
    wanted = [name for name in preload.names if name in names]
    for name in await loaded(http):
        if name not in wanted:
            await unload(http, name)
    for name in wanted:
        if preload.max_bytes and not await _fits(http, name, preload.max_bytes):
            continue
        began = monotonic()
        await load(http, name)
        preload.seconds[name] = monotonic() - began


async def _fits(http: httpx.AsyncClient, name: str, max_bytes: int) -> bool:
    """Return whether a model fits beside the loaded ones, judged by its file."""
    sizes = await loaded(http)
    file_size = _field((await _models(http, "/api/tags"))[full_name(name)], "size", 0)
    return name in sizes or not sizes or sum(sizes.values()) + file_size <= max_bytes


def _object(answer: httpx.Response) -> Json:
    """Return the JSON object in `answer`. Raises EngineError, which shows another answer."""
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
        f"{answer.content[:80]!r}: this is no answer of an Ollama"
    )


async def _models(http: httpx.AsyncClient, path: str) -> dict[str, Json]:
    """Return a listing's entries by full name. Raises EngineError when it is no listing."""
    answer = await http.get(path)
    listing = _object(answer)
    entries = listing.get("models") or []  # Go may write null for an empty list
    is_listing = "models" in listing and isinstance(entries, list)
    if not is_listing or not all(map(_is_named, entries)):
        raise _unlike_ollama(answer)
    return {full_name(model["name"]): model for model in entries}


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


async def missing(http: httpx.AsyncClient, names: Iterable[str]) -> list[str]:
    """Return the `names` that Ollama does not list. Raises EngineError, httpx.HTTPError."""
    listed = await _models(http, "/api/tags")
    return [name for name in names if full_name(name) not in listed]


async def _until_listed(
    http: httpx.AsyncClient, names: tuple[str, ...], pull: bool, wait: bool
) -> None:
    logged = 0.0
    while absent := await missing(http, names):
        if pull:
            for name in absent:
                await _pull(http, name)
            if absent := await missing(http, absent):
                raise EngineStartError(f"it pulled {', '.join(absent)}, but does not list it")
            return
        if not wait:
            raise SettingsError(
                f"models: {', '.join(absent)} missing: pull them, or set engine.pull to true"
            )
        if monotonic() - logged > WAITING_EVERY_S:
            logged = monotonic()
            logger.info("waiting for models: %s", ", ".join(absent))
        await asyncio.sleep(POLL_S)


async def _pull(http: httpx.AsyncClient, name: str) -> None:
    """Pull a model. Raises EngineStartError unless the last line reports success."""
    progress, line, step = _Progress(name), "", None
    async with http.stream("POST", "/api/pull", json={"model": name}, timeout=None) as response:
        async for line in response.aiter_lines():
            step = _json(line)
            if not isinstance(step, dict) or "error" in step:
                break
            progress.step(step)
    if not isinstance(step, dict) or step.get("status") != "success":
        problem = step.get("error") if isinstance(step, dict) else None
        cause = problem or f"status {response.status_code}, {line[:200]!r} at the end"
        raise EngineStartError(f"{name} can't be pulled: {cause}")
    logger.info("pulled %s", name)


class _Progress:
    """Logs the progress of a pull: bytes, share and seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = self._logged = monotonic()

    def step(self, step: Json) -> None:
        now = monotonic()
        done, total = _field(step, "completed", 0), _field(step, "total", 0)
        if now - self._logged < PROGRESS_EVERY_S or not total:
            return
        self._logged = now
        logger.info(
            "pulling %s: %.0f of %.0f MB (%.0f %%), %.0f s",
            *(self._name, done / 1e6, total / 1e6, 100 * done / total, now - self._began),
        )


async def load(http: httpx.AsyncClient, name: str) -> None:
    """Load `name` without expiry and let it give one token or embedding.

    Raises EngineStartError with Ollama's own words, EngineError, httpx.HTTPError.
    """
    shown = await _ask(http, "/api/show", {"model": name})
    body: Json = {"model": name, "keep_alive": -1}
    if "completion" in _field(shown, "capabilities", ["completion"]):
        body |= {"prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
        await _ask(http, "/api/generate", body, proof="done")
    else:
        await _ask(http, "/api/embed", body | {"input": "Hi"}, proof="embeddings")


async def _ask(http: httpx.AsyncClient, path: str, body: Json, proof: str = "") -> Json:
    """Return the answer, which must have `proof`. Raises EngineError with Ollama's own words."""
    answer = await http.post(path, json=body, timeout=None)
    value = _json(answer.content)
    if answer.status_code != 200 and isinstance(value, dict) and "error" in value:
        raise EngineStartError(f"{body['model']} can't be loaded: {value['error']}")
    if proof and not _object(answer).get(proof):
        raise _unlike_ollama(answer)
    return _object(answer)


async def unload(http: httpx.AsyncClient, name: str) -> None:
    """Return when Ollama does not list `name` as loaded any more.

    Ollama answers at once, and unloads when nobody uses the model. Raises EngineError when that
    takes longer than UNLOAD_TIMEOUT_S, httpx.HTTPError.
    """
    await _ask(http, "/api/generate", {"model": name, "keep_alive": 0})
    until = monotonic() + UNLOAD_TIMEOUT_S
    while full_name(name) in await _models(http, "/api/ps"):
        if monotonic() > until:
            raise EngineError(f"{name} is still loaded {UNLOAD_TIMEOUT_S:g} s after its unload")
        await asyncio.sleep(POLL_S)


async def loaded(http: httpx.AsyncClient) -> dict[str, int]:
    """Return the bytes of each loaded model. Raises EngineError, httpx.HTTPError."""
    models = await _models(http, "/api/ps")
    return {short_name(entry["name"]): _field(entry, "size", 0) for entry in models.values()}


async def check_loaded(http: httpx.AsyncClient, names: Iterable[str]) -> None:
    """Raise EngineLost when none of `names` is loaded, as after a restart of Ollama.

    A single model may be absent, because Ollama swaps models where memory is short.
    """
    listed = await _models(http, "/api/ps")
    if not {full_name(name) for name in names} & listed.keys():
        raise EngineLost("its models are no longer loaded")


async def cards(http: httpx.AsyncClient, names: Iterable[str]) -> tuple[ModelCard, ...]:
    """Return the card of every model. Raises EngineLost for a model that was deleted meanwhile."""
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
    """Return `source[key]`, or `default` where the value has another type."""
    value = source.get(key)
    return value if isinstance(value, type(default)) else default


def _time(listed: Json) -> str:
    """Return the time of a model's last change in ISO 8601, which listings parse."""
    text = _field(listed, "modified_at", "")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return text

"""Prepares a running Ollama: waits until it is up, pulls its models and loads them."""

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic

import httpx

from serve_app.engines.driver import EngineInfo, StartTimer
from serve_app.engines.ollama_answers import (
    Json,
    field,
    json_object,
    json_value,
    listing,
    unlike_ollama,
)
from serve_app.engines.ollama_api import POLL_S, cards, load_model, loaded, missing, unload
from serve_app.engines.preload import Preload
from serve_app.errors import EngineStartError, SettingsError
from serve_app.model_names import full_name, short_name

logger = logging.getLogger("ray.serve")

WAITING_EVERY_S = 10.0
PROGRESS_EVERY_S = 2.0

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
            logger.info("waiting for %s for %.0f s: %s", http.base_url, logged - began, problem)
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
        raise unlike_ollama(answer)
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
    version = field(json_object(await http.get("/api/version")), "version", "")
    return EngineInfo(version, await cards(http, names))


async def _preload(http: httpx.AsyncClient, names: tuple[str, ...], preload: Preload) -> None:
    """Load the models of the preload set, after other models are unloaded."""
    if preload.names is None:
        for name in names:
            await load_model(http, name)
        return
    present = [name for name in preload.names if name in names]
    for name in await loaded(http):
        if name not in present:
            await unload(http, name)
    for name in present:
        if preload.max_bytes and not await _fits(http, name, preload.max_bytes):
            continue
        began = monotonic()
        await load_model(http, name)
        preload.seconds[name] = monotonic() - began


async def _fits(http: httpx.AsyncClient, name: str, max_bytes: int) -> bool:
    """Return whether a model fits beside the loaded ones, judged by its file."""
    sizes = await loaded(http)
    file_size = field((await listing(http, "/api/tags"))[full_name(name)], "size", 0)
    return name in sizes or not sizes or sum(sizes.values()) + file_size <= max_bytes


async def _until_listed(
    http: httpx.AsyncClient, names: tuple[str, ...], pull: bool, wait: bool
) -> None:
    logged = 0.0
    while absent := await missing(http, names):
        if pull:
            for name in absent:
                await _pull(http, name)
            if absent := await missing(http, absent):
                raise EngineStartError(
                    f"the engine has pulled {', '.join(absent)}, but does not list it"
                )
            return
        if not wait:
            raise SettingsError(
                f"models: {', '.join(absent)} are missing: pull them, or set engine.pull to true"
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
            step = json_value(line)
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
        done, total = field(step, "completed", 0), field(step, "total", 0)
        if now - self._logged < PROGRESS_EVERY_S or not total:
            return
        self._logged = now
        logger.info(
            "pulling %s: %.0f of %.0f MB (%.0f %%), %.0f s",
            *(self._name, done / 1e6, total / 1e6, 100 * done / total, now - self._began),
        )

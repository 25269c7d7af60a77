"""Models of a running Ollama (or of what speaks like one): there, pulled, loaded, described."""

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic
from typing import Any

import httpx
import orjson

from serve_app.engines.base import ModelCard
from serve_app.engines.lifecycle import Facts, Phases
from serve_app.errors import EngineLost, EngineStartError, SettingsError
from serve_app.names import full_name, short_name

logger = logging.getLogger("ray.serve")

POLL_S = 0.05
WAITING_EVERY_S = 10.0
PROGRESS_EVERY_S = 2.0


async def until_up(http: httpx.AsyncClient, path: str) -> None:
    """Return when GET `path` answers 200. Says every 10 s that it is still waiting."""
    began = said = monotonic()
    while True:
        try:
            if (await http.get(path)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if monotonic() - said > WAITING_EVERY_S:
            said = monotonic()
            logger.info("waiting for %s since %.0f s", http.base_url, said - began)
        await asyncio.sleep(POLL_S)


async def prepare(
    http: httpx.AsyncClient, phases: Phases, names: Iterable[str], pull: bool, wait: bool
) -> Facts:
    """Up, every model there, every model loaded and proven with one token.

    Models that are missing are pulled (`pull`), awaited (`wait`: somebody else pulls them), or
    refused: SettingsError.
    """
    names = tuple(map(short_name, names))
    with phases.phase("up"):
        await until_up(http, "/api/version")
    with phases.phase("pull"):
        await _have(http, names, pull, wait)
    with phases.phase("load"):
        for name in names:
            await _load(http, name)
    version = (await http.get("/api/version")).json()["version"]
    return Facts(version, await cards(http, names))


async def missing(http: httpx.AsyncClient, names: Iterable[str]) -> list[str]:
    """Those of `names` that Ollama does not list."""
    listed = (await http.get("/api/tags")).raise_for_status().json()["models"]
    have = {full_name(model["name"]) for model in listed}
    return [name for name in names if full_name(name) not in have]


async def _have(http: httpx.AsyncClient, names: tuple[str, ...], pull: bool, wait: bool) -> None:
    said = 0.0
    while absent := await missing(http, names):
        if pull:
            for name in absent:
                await _pull(http, name)
        elif not wait:
            raise SettingsError(f"models: {', '.join(absent)} not there, and engine.pull is off")
        elif monotonic() - said > WAITING_EVERY_S:
            said = monotonic()
            logger.info("waiting for models: %s", ", ".join(absent))
        await asyncio.sleep(POLL_S)


async def _pull(http: httpx.AsyncClient, name: str) -> None:
    progress = _Progress(name)
    async with http.stream("POST", "/api/pull", json={"model": name}, timeout=None) as response:
        async for line in response.aiter_lines():
            step = orjson.loads(line)
            if "error" in step:
                raise EngineStartError(f"{name} can't be pulled: {step['error']}")
            progress.step(step)
    logger.info("pulled %s", name)


class _Progress:
    """Says how a pull gets on: the layer, its bytes, their rate."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = self._said = monotonic()

    def step(self, step: dict[str, Any]) -> None:
        now = monotonic()
        done, total = step.get("completed", 0), step.get("total", 0)
        if now - self._said < PROGRESS_EVERY_S or not total:
            return
        self._said = now
        logger.info(
            "pulling %s: %.0f of %.0f MB (%.0f %%), %.0f s",
            *(self._name, done / 1e6, total / 1e6, 100 * done / total, now - self._began),
        )


async def _load(http: httpx.AsyncClient, name: str) -> None:
    """Load `name` for good and make it work once: one token, or one embedding."""
    described = await http.post("/api/show", json={"model": name})
    generates = "completion" in described.json().get("capabilities", ["completion"])
    body = {"model": name, "keep_alive": -1}
    if generates:
        body |= {"prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
    else:
        body |= {"input": "Hi"}
    path = "/api/generate" if generates else "/api/embed"
    answer = await http.post(path, json=body, timeout=None)
    if answer.status_code != 200:
        raise EngineStartError(f"{name} can't be loaded: {_error(answer)}")


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"


async def loaded(http: httpx.AsyncClient) -> dict[str, Any]:
    """What `/api/ps` lists, by full name."""
    running = (await http.get("/api/ps")).raise_for_status().json()["models"]
    return {full_name(model["name"]): model for model in running}


async def check_loaded(http: httpx.AsyncClient, names: Iterable[str]) -> None:
    """Raise EngineLost when none of `names` is loaded: it was restarted, or has dropped them.

    Not when one is missing: where memory holds fewer models, Ollama swaps them on its own.
    """
    if not {full_name(name) for name in names} & (await loaded(http)).keys():
        raise EngineLost("its models are not loaded any more")


async def cards(http: httpx.AsyncClient, names: Iterable[str]) -> tuple[ModelCard, ...]:
    listed = (await http.get("/api/tags")).raise_for_status().json()["models"]
    by_name = {full_name(model["name"]): model for model in listed}
    running = await loaded(http)
    return tuple(
        _card(name, by_name[full_name(name)], running.get(full_name(name), {})) for name in names
    )


def _card(name: str, listed: dict[str, Any], running: dict[str, Any]) -> ModelCard:
    details = listed.get("details", {})
    return ModelCard(
        name=name,
        size=listed.get("size", 0),
        loaded=bool(running),
        size_loaded=running.get("size", 0),
        size_vram=running.get("size_vram", 0),
        digest=listed.get("digest", ""),
        modified_at=listed.get("modified_at", ""),
        format=details.get("format", ""),
        family=details.get("family", ""),
        parameter_size=details.get("parameter_size", ""),
        quantization_level=details.get("quantization_level", ""),
        context_length=details.get("context_length", 0),
        embedding_length=details.get("embedding_length", 0),
        loaded_context_length=running.get("context_length", 0),
        capabilities=tuple(listed.get("capabilities", ("completion",))),
    )

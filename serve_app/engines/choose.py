"""Chooses the engine that `auto` stands for, without pulling or loading a model."""

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from serve_app.addresses import ollama_url
from serve_app.engine_settings import EngineKind
from serve_app.engines import ollama_api, ollama_start
from serve_app.engines.driver import EngineDriver
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Lifecycle, new_http
from serve_app.engines.llamacpp.engine import LlamaCpp
from serve_app.engines.ollama import Attach, Ollama, environment
from serve_app.engines.preload import Preload
from serve_app.engines.process import Process, free_port
from serve_app.engines.simulated import Simulated
from serve_app.errors import EngineError
from serve_app.model_names import short_name
from serve_app.pool_settings import Pool

_KINDS: dict[str, Callable[[Pool, HttpClient, float, Preload], EngineDriver]] = {
    "attach": Attach,
    "ollama": Ollama,
    "llamacpp": lambda pool, http, timeout_s, _: LlamaCpp(pool, http, timeout_s),
    "simulated": Simulated,
}


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The chosen engine: `pool` with its kind and, if known, its address filled in."""

    pool: Pool
    reason: str

    def __str__(self) -> str:
        return f"chosen: engine {self.pool.engine.kind}: {self.reason}"


async def choose_engine(pool: Pool) -> EngineChoice:
    """Return the configured engine of `pool`, or the choice of `auto`.

    `auto` takes, in this order: a configured URL, a running Ollama, an `ollama` on PATH, the
    embedded engine.
    """
    engine = pool.engine
    if engine.kind != "auto":
        return EngineChoice(pool, "it is configured")
    if engine.url:
        return _choice(pool, "attach", f"engine.url is {engine.url}", engine.url)
    url = ollama_url(os.environ.get("OLLAMA_HOST", ""))
    if not (problem := await _problem(url, pool)):
        return _choice(pool, "attach", f"the Ollama at {url} has every model", url)
    reasons = [f"the Ollama at {url} {problem}"]
    if binary := shutil.which(engine.binary):
        if not (problem := await _problem_of_binary(binary, pool)):
            return _choice(pool, "ollama", f"{reasons[0]}; {binary} has every model")
        reasons.append(f"{binary} {problem}")
    else:
        reasons.append(f"no {engine.binary} on PATH")
    return _choice(pool, "llamacpp", "; ".join(reasons))


def _choice(pool: Pool, kind: EngineKind, reason: str, url: str | None = None) -> EngineChoice:
    # Validated anew, because some rules hold for the chosen kind only.
    engine = pool.engine.model_copy(update={"kind": kind, "url": url})
    return EngineChoice(Pool.model_validate({**dict(pool), "engine": engine}), reason)


async def _problem(url: str, pool: Pool) -> str:
    """Return why the Ollama at `url` can't be taken, or ""."""
    try:
        async with new_http(url) as http, asyncio.timeout(2):
            absent = await ollama_api.missing(http, map(short_name, pool.models))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
        return "does not answer"
    except EngineError as exc:
        return f"does not answer as an Ollama does: {exc}"
    return f"lacks {', '.join(absent)}" if absent else ""


async def _problem_of_binary(binary: str, pool: Pool) -> str:
    """Return why `binary` can't be taken, or ""; start a server of it to find out."""
    port = free_port()
    env = environment(pool, port)
    process = await Process.start("ollama", (binary, "serve"), env, pool.engine.stop_grace_s)
    try:
        url = f"http://127.0.0.1:{port}"
        async with new_http(url) as http, asyncio.timeout(10):
            await ollama_start.until_up(http, "/api/version")
        return await _problem(url, pool)
    except (TimeoutError, EngineError):
        return "does not start"
    finally:
        await process.stop()


def new_engine(
    choice: EngineChoice,
    http: HttpClient,
    first_token_timeout_s: float,
    preload: Preload | None = None,
) -> Lifecycle:
    """Return the engine of `choice`, not started yet. `preload`: by default all models."""
    engine = choice.pool.engine
    kind = _KINDS[engine.kind](choice.pool, http, first_token_timeout_s, preload or Preload())
    return Lifecycle(kind, engine.start_timeout_s, engine.stop_grace_s)

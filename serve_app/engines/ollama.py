"""An Ollama: one that something else runs, or a child process of the replica."""

import shutil

import httpx

from serve_app.engines import ollama_api, ollama_start
from serve_app.engines.driver import Client, EngineInfo, LaunchSpec, StartTimer
from serve_app.engines.http1 import HttpClient
from serve_app.engines.preload import Preload
from serve_app.engines.process import free_port
from serve_app.engines.upstream import Upstream
from serve_app.errors import SettingsError
from serve_app.pool_settings import Pool


class Attach:
    """Waits for an Ollama and its models; loads them again after its restart."""

    name = "attached Ollama"
    patience_s = 0.0  # its owner restarts it, and it may be back at once

    def __init__(
        self, pool: Pool, http: HttpClient, first_token_timeout_s: float, preload: Preload
    ) -> None:
        self._pool = pool
        self._preload = preload
        self._http = http
        self._first_token_timeout_s = first_token_timeout_s

    def launch_spec(self) -> LaunchSpec:
        return LaunchSpec(self._pool.engine.url or "")

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        return await ollama_start.prepare(
            *(http, timer, self._pool.models), pull=False, wait=True, preload=self._preload
        )

    async def probe(self, http: httpx.AsyncClient) -> None:
        await check(http, self._pool, self._preload)

    def client(self, url: str, info: EngineInfo) -> Client:
        return Upstream(self._http, url, self._first_token_timeout_s)


class Ollama:
    """Runs `ollama serve` on a free port of loopback; pulls missing models if it may."""

    name = "ollama"
    patience_s = 60.0

    def __init__(
        self, pool: Pool, http: HttpClient, first_token_timeout_s: float, preload: Preload
    ) -> None:
        self._pool = pool
        self._preload = preload
        self._http = http
        self._first_token_timeout_s = first_token_timeout_s

    def launch_spec(self) -> LaunchSpec:
        engine = self._pool.engine
        binary = shutil.which(engine.binary)
        if binary is None:
            raise SettingsError(
                f"engine.binary: there is no executable {engine.binary}: install it or set its path"
            )
        port = free_port()
        return LaunchSpec(
            f"http://127.0.0.1:{port}", (binary, "serve"), environment(self._pool, port)
        )

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        pool = self._pool
        return await ollama_start.prepare(
            *(http, timer, pool.models, pool.engine.pull), wait=False, preload=self._preload
        )

    async def probe(self, http: httpx.AsyncClient) -> None:
        await check(http, self._pool, self._preload)

    def client(self, url: str, info: EngineInfo) -> Client:
        return Upstream(self._http, url, self._first_token_timeout_s)


async def check(http: httpx.AsyncClient, pool: Pool, preload: Preload) -> None:
    """Raise EngineLost when no model is loaded where all must be. Raises EngineError too."""
    if preload.names is None:
        await ollama_api.check_loaded(http, pool.models)
    else:
        await ollama_api.loaded(http)


def environment(pool: Pool, port: int) -> dict[str, str]:
    """Return the environment of `ollama serve`; Ray has set CUDA_VISIBLE_DEVICES."""
    engine = pool.engine
    environment = {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NUM_PARALLEL": str(engine.slots),
        "OLLAMA_CONTEXT_LENGTH": str(engine.context_length),
        "OLLAMA_KEEP_ALIVE": "-1",
        # By itself Ollama loads three for each GPU.
        "OLLAMA_MAX_LOADED_MODELS": str(engine.max_loaded_models or len(pool.models)),
        "LLAMA_ARG_CACHE_RAM": str(engine.cache_ram_mib),
    }
    if engine.models_dir:
        environment["OLLAMA_MODELS"] = str(engine.models_dir)
    return environment | engine.env

"""An Ollama that something else runs, such as the sidecar container beside a Ray worker."""

import httpx

from serve_app.engines import ollama_api as ollama_models
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Client, EngineInfo, LaunchSpec, StartTimer
from serve_app.engines.upstream import Upstream
from serve_app.settings import Pool


class Attach:
    """Waits until it is up and the models are there; loads them again when it was restarted."""

    name = "attached Ollama"
    patience_s = 0.0  # its owner restarts it: look at once whether it is back

    def __init__(self, pool: Pool, http: HttpClient, first_token_timeout_s: float) -> None:
        self._pool = pool
        self._http = http
        self._first_token_timeout_s = first_token_timeout_s

    def launch_spec(self) -> LaunchSpec:
        return LaunchSpec(self._pool.engine.url or "")

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        return await ollama_models.prepare(http, timer, self._pool.models, pull=False, wait=True)

    async def probe(self, http: httpx.AsyncClient) -> None:
        await ollama_models.check_loaded(http, self._pool.models)

    def client(self, url: str, info: EngineInfo) -> Client:
        return Upstream(self._http, url, self._first_token_timeout_s)

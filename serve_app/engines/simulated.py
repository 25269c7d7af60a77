"""The simulated engine, a child process with a declared speed in place of a model."""

import sys

import httpx

from serve_app.engines import ollama_start
from serve_app.engines.driver import Client, EngineInfo, LaunchSpec, StartTimer
from serve_app.engines.http1 import HttpClient
from serve_app.engines.preload import Preload
from serve_app.engines.process import free_port
from serve_app.engines.upstream import Upstream
from serve_app.pool_settings import Pool


class Simulated:
    """Simulates a GPU for work on autoscaling, routing and capacity, and for tests."""

    name = "simulated engine"
    patience_s = 60.0

    def __init__(
        self, pool: Pool, http: HttpClient, first_token_timeout_s: float, preload: Preload
    ) -> None:
        self._pool = pool
        self._preload = preload
        self._http = http
        self._first_token_timeout_s = first_token_timeout_s

    def launch_spec(self) -> LaunchSpec:
        port = free_port()
        return LaunchSpec(f"http://127.0.0.1:{port}", self._command(port), self._pool.engine.env)

    def _command(self, port: int) -> tuple[str, ...]:
        engine, speed = self._pool.engine, self._pool.engine.simulated
        options = {
            "--port": port,
            "--models": ",".join(self._pool.models),
            "--slots": engine.slots,
            "--context-length": engine.context_length,
            "--cold-start-s": speed.cold_start_s,
            "--load-s": speed.load_s,
            "--load-mib-per-s": speed.load_mib_per_s,
            "--unload-s": speed.unload_s,
            "--max-loaded-models": speed.max_loaded_models or engine.max_loaded_models,
            "--memory-mib": speed.memory_mib or round(engine.model_memory_gib * 1024),
            "--model-mib": ",".join(f"{name}={mib}" for name, mib in speed.model_mib.items()),
            "--prefill-tokens-per-s": speed.prefill_tokens_per_s,
            "--decode-tokens-per-s": speed.decode_tokens_per_s,
            "--decode-slowdown": speed.decode_slowdown,
            "--answer-tokens": speed.answer_tokens,
        }
        words = (str(word) for option in options.items() for word in option)
        return (sys.executable, "-m", "serve_app.simulator", *words)

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        return await ollama_start.prepare(
            *(http, timer, self._pool.models), pull=False, wait=False, preload=self._preload
        )

    async def probe(self, http: httpx.AsyncClient) -> None:
        (await http.get("/api/version")).raise_for_status()

    def client(self, url: str, info: EngineInfo) -> Client:
        return Upstream(self._http, url, self._first_token_timeout_s)

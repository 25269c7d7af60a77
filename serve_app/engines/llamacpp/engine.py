"""The driver of the embedded engine: llama.cpp's own server in a child process."""

import asyncio
import secrets
import sys
from importlib.metadata import version
from pathlib import Path

import httpx

from serve_app.engines.base import Answer, Call
from serve_app.engines.driver import Client, EngineInfo, LaunchSpec, StartTimer
from serve_app.engines.http1 import HttpClient
from serve_app.engines.llamacpp.client import LlamaServer, Refusal
from serve_app.engines.llamacpp.embeddings import PATH as EMBEDDINGS
from serve_app.engines.llamacpp.embeddings import Embedder
from serve_app.engines.llamacpp.gguf.card import find_smollm2, model_card
from serve_app.engines.llamacpp.gguf.header import longest_token, read_header
from serve_app.engines.llamacpp.native.routes import PATHS, NativeRoutes
from serve_app.engines.llamacpp.openai import embeddings as openai_embeddings
from serve_app.engines.llamacpp.openai.completions import CompletionRoutes
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.llamacpp.refusals import meaning
from serve_app.engines.llamacpp.server import KEY_VARIABLE, batch_size, slot_tokens
from serve_app.engines.llamacpp.translated import PATHS as TRANSLATED
from serve_app.engines.llamacpp.translated import TranslatedRoutes
from serve_app.engines.ollama_start import until_up
from serve_app.engines.process import free_port
from serve_app.engines.upstream import Upstream, first_token
from serve_app.errors import EngineStartError, SettingsError
from serve_app.model_names import full_name, short_name
from serve_app.ollama_version import OLLAMA_VERSION
from serve_app.pool_settings import Pool

SMOLLM2 = "smollm2:135m"


class LlamaCpp:
    """Runs llama.cpp's server with SmolLM2 or the GGUF file in engine.model_path."""

    name = "llama.cpp"
    patience_s = 60.0

    def __init__(self, pool: Pool, http: HttpClient, first_token_timeout_s: float) -> None:
        self._key = secrets.token_urlsafe(24)
        self._model = short_name(pool.models[0])
        self._engine = pool.engine
        self._http = http
        self._first_token_timeout_s = first_token_timeout_s

    def launch_spec(self) -> LaunchSpec:
        port = free_port()
        options = {
            "--model": self._path(),
            "--alias": self._model,
            "--port": port,
            "--slots": self._engine.slots,
            "--context-length": self._engine.context_length,
            "--threads": self._engine.threads,
            "--cache-ram-mib": self._engine.cache_ram_mib,
        }
        words = (str(word) for option in options.items() for word in option)
        command = (sys.executable, "-m", "serve_app.engines.llamacpp.server", *words)
        return LaunchSpec(
            f"http://127.0.0.1:{port}", command, {KEY_VARIABLE: self._key, **self._engine.env}
        )

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _path(self) -> Path:
        """Return the model's file. Raises SettingsError for a model that is not there."""
        if self._engine.model_path:
            return self._engine.model_path
        if full_name(self._model) != full_name(SMOLLM2):
            raise SettingsError(
                f"models: the embedded engine has {SMOLLM2}, not {self._model}: "
                "start an Ollama that has it, or set engine.model_path to a GGUF file"
            )
        return find_smollm2()

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        with timer.phase("up"):
            await until_up(http, "/health")
        with timer.phase("load"):
            body = {"prompt": "Hi", "n_predict": 1, "cache_prompt": False}
            answer = await http.post("/completion", json=body, headers=self._headers)
            if answer.status_code != 200:
                raise EngineStartError(
                    f"the engine can't generate: status {answer.status_code}, "
                    f"{answer.content[:80]!r}"
                )
        context = slot_tokens(read_header(self._path()), self._engine.context_length)
        card = await asyncio.to_thread(model_card, self._path(), self._model, context)
        return EngineInfo(f"{OLLAMA_VERSION}-llamacpp-{version('xllamacpp')}", (card,))

    async def probe(self, http: httpx.AsyncClient) -> None:
        (await http.get("/health")).raise_for_status()

    def client(self, url: str, info: EngineInfo) -> Client:
        header, key, within_s = read_header(self._path()), self._key, self._first_token_timeout_s
        llama = LlamaServer(self._http, url, key)
        shortens = self._engine.long_prompts == "shorten"
        window = ContextWindow(
            info.models[0].loaded_context_length, longest_token(header), shortens
        )
        batch = batch_size(header, window.context)
        native = NativeRoutes(llama, info.models[0], header, window, batch)
        upstream = Upstream(self._http, url, within_s, keep_alive=False, key=key)
        translated = TranslatedRoutes(llama, info.models[0], window)
        completions = CompletionRoutes(llama, upstream, window, info.models[0])
        return _ByRoute(native, translated, completions, Embedder(llama, window, batch), within_s)


class _ByRoute:
    """Sends a call to the routes of its path.

    Native, Responses and Messages routes are translated, embeddings sent in parts, other routes
    passed on as bytes.
    """

    def __init__(
        self,
        native: NativeRoutes,
        translated: TranslatedRoutes,
        completions: CompletionRoutes,
        embedder: Embedder,
        first_token_timeout_s: float,
    ) -> None:
        self._native = native
        self._translated = translated
        self._completions = completions
        self._embedder = embedder
        self._first_token_timeout_s = first_token_timeout_s

    async def send(self, call: Call) -> Answer:
        return await first_token(call, self._send(call), self._first_token_timeout_s)

    async def _send(self, call: Call) -> Answer:
        if call.path in PATHS:
            return await self._native.send(call)
        try:
            if call.path == EMBEDDINGS:
                return await openai_embeddings.answer(call, self._embedder)
            if call.path in TRANSLATED:
                return await self._translated.send(call)
            return await self._completions.send(call)
        except Refusal as exc:
            raise meaning(exc) from exc

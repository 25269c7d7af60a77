"""The embedded default: llama.cpp's own server as a child process, with SmolLM2 or any GGUF."""

import asyncio
import secrets
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import orjson

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Client, Facts, Phases, Plan
from serve_app.engines.llamacpp import embeddings, openai
from serve_app.engines.llamacpp.answers import json_answer
from serve_app.engines.llamacpp.client import LlamaServer, Refusal
from serve_app.engines.llamacpp.gguf import find_smollm2, longest_token, model_card, read_header
from serve_app.engines.llamacpp.native import PATHS, NativeRoutes
from serve_app.engines.llamacpp.server import KEY_VARIABLE
from serve_app.engines.llamacpp.window import Window
from serve_app.engines.ollama_models import until_up
from serve_app.engines.process import free_port
from serve_app.engines.upstream import Upstream, first_token
from serve_app.errors import BadRequest, EngineDown, EngineLost, EngineStartError, SettingsError
from serve_app.names import full_name, short_name
from serve_app.settings import Pool

SMOLLM2 = "smollm2:135m"


class LlamaCpp:
    """Speaks OpenAI and Anthropic by itself; Ollama's native routes are translated."""

    name = "llama.cpp"
    patience_s = 60.0

    def __init__(self, pool: Pool, http: HttpClient, first_token_timeout_s: float) -> None:
        self._key = secrets.token_urlsafe(24)
        self._model = short_name(pool.models[0])
        self._engine = pool.engine
        self._http = http
        self._first_token_timeout_s = first_token_timeout_s

    def plan(self) -> Plan:
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
        return Plan(
            f"http://127.0.0.1:{port}", command, {KEY_VARIABLE: self._key, **self._engine.env}
        )

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _path(self) -> Path:
        """Raises SettingsError rather than serve one model under another's name."""
        if self._engine.model_path:
            return self._engine.model_path
        if full_name(self._model) != full_name(SMOLLM2):
            raise SettingsError(
                f"models: the embedded engine has {SMOLLM2}, not {self._model}: "
                "start an Ollama that has it, or set engine.model_path to a GGUF file"
            )
        return find_smollm2()

    async def prepare(self, http: httpx.AsyncClient, phases: Phases) -> Facts:
        with phases.phase("up"):
            await until_up(http, "/health")
        with phases.phase("load"):
            body = {"prompt": "Hi", "n_predict": 1, "cache_prompt": False}
            answer = await http.post("/completion", json=body, headers=self._headers)
            if answer.status_code != 200:
                raise EngineStartError(f"it can't generate: status {answer.status_code}")
        context = self._engine.context_length
        card = await asyncio.to_thread(model_card, self._path(), self._model, context)
        return Facts(f"0.33.0-llamacpp-{version('xllamacpp')}", (card,))

    async def probe(self, http: httpx.AsyncClient) -> None:
        (await http.get("/health")).raise_for_status()

    def client(self, url: str, facts: Facts) -> Client:
        header, key, within_s = read_header(self._path()), self._key, self._first_token_timeout_s
        llama = LlamaServer(self._http, url, key)
        window = Window(self._engine.context_length, longest_token(header))
        native = NativeRoutes(llama, facts.models[0], header, window)
        upstream = Upstream(self._http, url, within_s, keep_alive=False, key=key)
        return _ByDialect(native, upstream, llama, window, within_s, facts.models[0])


class _ByDialect:
    """Native routes to the translation, embeddings in parts, everything else as it is."""

    def __init__(
        self,
        native: NativeRoutes,
        upstream: Upstream,
        llama: LlamaServer,
        window: Window,
        first_token_timeout_s: float,
        card: ModelCard,
    ) -> None:
        self._card = card
        self._native = native
        self._upstream = upstream
        self._llama = llama
        self._window = window
        self._first_token_timeout_s = first_token_timeout_s

    async def send(self, call: Call) -> Answer:
        if call.path == embeddings.PATH:
            return await self._embed(call)
        if call.path not in PATHS:
            await self._window.check_body(call.body)
            # Megabytes of JSON and large schemas, which others must not wait for.
            checked = await asyncio.to_thread(openai.checked, call, self._card)
            answer = await self._upstream.send(checked)
            return answer if answer.status == 200 else await _refused(answer)
        return await first_token(call, self._native.send(call), self._first_token_timeout_s)

    async def _embed(self, call: Call) -> Answer:
        await embeddings.check(call.body, self._window)
        try:
            return json_answer(await embeddings.embed(self._llama, orjson.loads(call.body)))
        except Refusal as exc:
            raise _meaning(str(exc).encode()) from exc


async def _refused(answer: Answer) -> Answer:
    """Raises what llama.cpp's refusal means, for the caller's own dialect to say.

    Its own words are OpenAI's in every dialect, and it says 500 of mistakes in a request.
    """
    try:
        body = b"".join([piece async for piece in answer.body])
    finally:
        answer.close()
    if answer.status == 503:
        raise EngineDown("the engine is loading")
    raise _meaning(body)


def _meaning(refusal: bytes) -> Exception:
    try:
        message = str(orjson.loads(refusal)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = refusal.decode(errors="replace")
    return (EngineLost if "compute error" in message.lower() else BadRequest)(message)

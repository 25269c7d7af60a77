"""Serves Ollama's native routes with llama.cpp's server.

Ollama 0.30 and later are built the same way, as a front before a llama-server child. Answers here
have the same shape, byte for byte, as those of that front.
"""

import asyncio

import orjson

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.llamacpp.answers import RequestTimer, json_answer, refusal_answer
from serve_app.engines.llamacpp.client import Json, LlamaServer, Refusal
from serve_app.engines.llamacpp.embeddings import Embedder
from serve_app.engines.llamacpp.events import Piece
from serve_app.engines.llamacpp.gguf.header import GgufHeader, read_header
from serve_app.engines.llamacpp.native import requests
from serve_app.engines.llamacpp.native.lines import ChatVoice, GenerateVoice, LineWriter, Voice
from serve_app.engines.llamacpp.native.show import show
from serve_app.engines.llamacpp.options import unloads
from serve_app.engines.llamacpp.prompts.fitting import ends
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.llamacpp.refusals import meaning
from serve_app.engines.llamacpp.server import BATCH_SIZE
from serve_app.engines.llamacpp.turn import CHAT, TEXT, Turn

PATHS = frozenset({"/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"})

_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


class NativeRoutes:
    """Serves `PATHS` for the model of `card` and `header` with `llama`.

    `window`: the capacity of a slot. `batch_size`: the server's, in tokens.
    """

    def __init__(
        self,
        llama: LlamaServer,
        card: ModelCard,
        header: GgufHeader,
        window: ContextWindow,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._llama = llama
        self._card = card
        self._header = header
        self._window = window
        self._embedder = Embedder(llama, window, batch_size)
        self._routes = {
            "/api/chat": self._chat,
            "/api/generate": self._generate,
            "/api/embed": self._embed,
            "/api/embeddings": self._embeddings,
            "/api/show": self._show,
        }

    async def send(self, call: Call) -> Answer:
        """Return the answer to `call`, whose path is one of `PATHS`, with its first chunk.

        A request that Ollama would refuse gets an Answer with Ollama's 4xx. Raises BadRequest for a
        mistake that only llama.cpp finds, EngineDown and EngineLost, see base.Engine.
        """
        try:
            return await self._routes[call.path](call, RequestTimer())
        except Refusal as refusal:
            if refusal.by_engine and refusal.status >= 500:  # some are mistakes of a caller
                raise meaning(refusal) from refusal
            return refusal_answer(refusal, call.stream)

    async def _chat(self, call: Call, clock: RequestTimer) -> Answer:
        body = requests.read_chat(call, self._card)
        if not body.get("messages"):
            return await self._load(body, ChatVoice(call.model))
        request = requests.chat_request(body, requests.chat_messages(body), self._card)
        turn = Turn(self._llama, self._window, LineWriter(ChatVoice(call.model)), clock)
        return await turn.answer(call, body, CHAT, request)

    async def _generate(self, call: Call, clock: RequestTimer) -> Answer:
        body = requests.read_generate(call, self._card)
        if not body.get("prompt"):
            return await self._load(body, GenerateVoice(call.model))
        request = requests.chat_request(body, requests.prompt_messages(body), self._card)
        writer = LineWriter(GenerateVoice(call.model))
        turn = Turn(self._llama, self._window, writer, clock)
        if body.get("raw"):
            if "response_format" in request:  # because /completion ignores a bad schema
                await self._llama.apply_template(request)
            request = requests.text_request(body, body["prompt"], self._card)
            return await turn.answer(call, body, TEXT, request)
        turn.tokens = self._tokens
        if not body.get("context"):
            return await turn.answer(call, body, CHAT, request)
        prompt = await self._before(body["context"]) + await self._llama.apply_template(request)
        request = requests.text_request(body, prompt, self._card)
        return await turn.answer(call, body, TEXT, request)

    async def _before(self, context: list[int]) -> str:
        """Return the text of earlier turns. Raises Refusal 400 for tokens unknown to the model."""
        try:
            return await self._llama.detokenize(ends(context, self._window.context))
        except Refusal as exc:
            raise Refusal(
                400, "invalid context: it has tokens that the model does not have"
            ) from exc

    async def _load(self, body: Json, voice: Voice) -> Answer:
        """Answer a request without text; the model is loaded and stays for other callers."""
        await self._llama.tokenize("")  # raises while the engine is down
        reason = "unload" if unloads(body.get("keep_alive")) else "load"
        return json_answer(voice.last(Piece(), reason, {}, ()))

    async def _tokens(self, request: Json, text: str) -> list[int]:
        """Return the tokens of the conversation, for the `context` of the next request."""
        prompt = request.get("prompt")
        if prompt is None:
            prompt = await self._llama.apply_template(request)
        elif isinstance(prompt, list):
            prompt = await self._llama.detokenize(prompt)
        return await self._llama.tokenize(prompt + text)

    async def _embed(self, call: Call, clock: RequestTimer) -> Answer:
        body = requests.read_embed(call)
        texts = _texts(body.get("input"))
        self._check_embeds()
        if not texts:
            return json_answer({"model": call.model, "embeddings": []})
        clock.loaded()
        truncate = body.get("truncate") is not False
        done = await self._embedder.embed(texts, truncate, body.get("dimensions") or 0)
        answer = {"model": call.model, "embeddings": done.vectors, **clock.durations()}
        return json_answer({**answer, "prompt_eval_count": done.tokens})

    async def _embeddings(self, call: Call, clock: RequestTimer) -> Answer:
        body = requests.read_embed(call)
        self._check_embeds()
        if not body.get("prompt"):
            return json_answer({"embedding": []})
        done = await self._embedder.embed([body["prompt"]], truncate=False)
        return json_answer({"embedding": done.vectors[0]})

    def _check_embeds(self) -> None:
        if "embedding" not in self._card.capabilities:
            raise Refusal(501, _NO_EMBEDDINGS)

    async def _show(self, call: Call, clock: RequestTimer) -> Answer:
        header = self._header
        if orjson.loads(call.body).get("verbose"):
            header = await asyncio.to_thread(read_header, header.path, arrays=True)
        return json_answer(show(call.model, self._card, header))


def _texts(value: object) -> list[str]:
    """Return the texts to embed. Raises Refusal 400."""
    if value is None or value == "":
        return []
    texts = value if isinstance(value, list) else [value]
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) < len(texts):
        raise Refusal(400, "invalid input type")
    return strings

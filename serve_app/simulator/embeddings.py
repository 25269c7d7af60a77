"""Embeddings in all dialects: deterministic unit vectors of a text."""

import base64
import math
import random
import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from serve_app.go_json import encode
from serve_app.simulator.bodies import Body
from serve_app.simulator.catalogue import Catalogue, Model, parse_keep_alive
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.generation import SimulatedEngine
from serve_app.simulator.model_output import ModelOutput
from serve_app.simulator.settings import SimulatorSettings
from serve_app.simulator.tasks import GenerationStats, GenerationTask
from serve_app.simulator.wire import HttpResponse

_TOO_LONG = "input exceeds maximum context length and cannot be truncated further"
_FORMATS = ("", "float", "base64")


class EmbeddingRoutes:
    """Answers the routes of embeddings."""

    def __init__(
        self, settings: SimulatorSettings, catalogue: Catalogue, engine: SimulatedEngine
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._engine = engine

    async def embed(self, body: Body, response: HttpResponse) -> None:
        """POST /api/embed"""
        vectors, stats = await self._embed(body, body.get("input"))
        answer: Body = {"model": body.get("model"), "embeddings": vectors}
        response.whole(encode({**answer, **stats.counts()} if stats.prompt_count else answer))

    async def embeddings(self, body: Body, response: HttpResponse) -> None:
        """POST /api/embeddings, the older one"""
        vectors, _ = await self._embed(body, body.get("prompt"))
        response.whole(encode({"embedding": vectors[0] if vectors else []}))

    async def v1_embeddings(self, body: Body, response: HttpResponse) -> None:
        """POST /v1/embeddings"""
        style = body.get("encoding_format") or ""
        if style not in _FORMATS:
            message = f"Invalid value for 'encoding_format' = {style}."
            raise ErrorAnswer(400, f"{message} Supported values: ['float', 'base64'].", early=True)
        if body.get("input") in (None, [], ""):
            raise ErrorAnswer(400, _TOO_LONG if body.get("input") == "" else "invalid input")
        vectors, stats = await self._embed(body, body["input"])
        shown = [_base64(vector) for vector in vectors] if style == "base64" else vectors
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "embedding": vector, "index": index}
                for index, vector in enumerate(shown)
            ],
            "model": body.get("model"),
            "usage": {"prompt_tokens": stats.prompt_count, "total_tokens": stats.prompt_count},
        }
        response.whole(encode(answer) + b"\n", "application/json")

    async def _embed(self, body: Body, value: Any) -> tuple[list[list[float]], GenerationStats]:
        model = self._model(body.get("model") or "")
        texts = self._texts(value, truncate=body.get("truncate") is not False)
        words = [word for text in texts for word in text]
        keep_alive_s = parse_keep_alive(body.get("keep_alive"))
        task = GenerationTask(model, words, ModelOutput((), "stop"), False, keep_alive_s)
        if not words:
            return [], GenerationStats()
        stats = await self._engine.prefill_only(task)
        stats.prompt_ns = 0  # Ollama does not send it
        dimensions = body.get("dimensions") or self._settings.embedding_dim
        return [self._vector(text, dimensions) for text in texts], stats

    def _model(self, name: str) -> Model:
        model = self._catalogue.find(name)
        if model is None:
            text = f'model "{name}" not found, try pulling it first'
            raise ErrorAnswer(404, text if name else "model '' not found")
        if not self._catalogue.embeds(model):
            text = "This server does not support embeddings. Start it with `--embeddings`"
            raise ErrorAnswer(501, text)
        return model

    def _texts(self, text: Any, *, truncate: bool) -> list[list[str]]:
        """Split texts into tokens within the context; a single empty text counts as none."""
        texts = [text] if isinstance(text, str) and text else text or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ErrorAnswer(400, "invalid input type", early=True)
        if not all(texts):
            raise ErrorAnswer(400, _TOO_LONG)
        context = self._settings.context_length
        tokens = [text.split() or [""] for text in texts]
        if not truncate and any(len(text) > context for text in tokens):
            raise ErrorAnswer(400, "the input length exceeds the context length")
        return [text[:context] for text in tokens]

    def _vector(self, words: Sequence[str], dimensions: int) -> list[float]:
        source = random.Random(crc32(" ".join(words).encode(), self._settings.seed))
        numbers = [source.gauss(0, 1) for _ in range(self._settings.embedding_dim)][:dimensions]
        length = math.hypot(*numbers)
        return [round(number / length, 8) for number in numbers]


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

"""Serves OpenAI's embeddings, checked and written as Ollama does."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

import orjson

from serve_app.engines.base import Answer, Call
from serve_app.engines.llamacpp.answers import json_answer
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.embeddings import EMPTY, Embedded, Embedder
from serve_app.engines.llamacpp.native.requests import check_types

_FIELDS = {"encoding_format": ("string", "string"), "dimensions": ("number", "int")}
_FORMATS = ("", "float", "base64")
_EXPECTED = "expected a text or a list of texts"
_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


async def answer(call: Call, embedder: Embedder) -> Answer:
    """Answer a call of /v1/embeddings. Raises Refusal and the errors of LlamaServer.ask."""
    body: Json = orjson.loads(call.body)
    check_types(body, "EmbedRequest", _FIELDS)
    style = _format(body.get("encoding_format") or "")
    texts = _texts(body.get("input"))
    done = await embedder.embed(texts, dimensions=body.get("dimensions") or 0)
    return json_answer(_written(call.model, done, style))


def _format(value: str) -> str:
    if value.lower() not in _FORMATS:
        known = "Supported values: ['float', 'base64']."
        raise Refusal(400, f"Invalid value for 'encoding_format' = {value[:80]}. {known}")
    return value.lower()


def _texts(value: Any) -> list[str]:
    """Return the texts. Raises Refusal 400, also for tokens, which are those of another model."""
    if value is None or value == []:
        raise Refusal(400, f"invalid input: {_EXPECTED}, found none")
    if value == "":
        raise Refusal(400, EMPTY)
    texts = value if isinstance(value, list) else [value]
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            name = f"input[{place}]" if texts is value else "input"
            kind = _KINDS.get(type(text), "null")
            raise Refusal(400, f"invalid input type: {name} is {kind}; {_EXPECTED}")
    return texts


def _written(model: str, done: Embedded, style: str) -> Json:
    data = [
        {"object": "embedding", "embedding": _vector(vector, style), "index": index}
        for index, vector in enumerate(done.vectors)
    ]
    usage = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _vector(vector: Sequence[float], style: str) -> Any:
    """Return the vector as a list, or as base64 of little-endian 32-bit floats."""
    if style != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

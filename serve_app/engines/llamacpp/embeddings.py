"""Embeddings of any number of inputs, asked of llama.cpp in parts.

It looks for a caller who has left only when no input was finished for a second: a thousand short
ones it embeds to the end, and whoever asks for something else waits.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson

from serve_app.engines.llamacpp.client import Json, LlamaServer
from serve_app.engines.llamacpp.window import Window, text_bytes
from serve_app.errors import BadRequest

PATH = "/v1/embeddings"
_MOST_INPUTS = 16
_MOST_BYTES = 2048  # of text: some 512 tokens, a batch


async def embed(llama: LlamaServer, request: Json) -> Json:
    """llama.cpp's answer to `request`, OpenAI's, as if it had been asked once.

    Raises what LlamaServer.ask raises.
    """
    if "input" not in request:
        return await llama.ask(PATH, request)
    whole: Json = {}
    for part in parts(request["input"]):
        answer = await llama.ask(PATH, {**request, "input": part})
        whole = _joined(whole, answer) if whole else answer
    return whole


def _joined(whole: Json, more: Json) -> Json:
    before = len(whole["data"])
    whole["data"] += [{**each, "index": before + each["index"]} for each in more["data"]]
    for name, tokens in more["usage"].items():
        whole["usage"][name] += tokens
    return whole


async def check(body: bytes, window: Window) -> None:
    """Raises BadRequest for an input that can't fit; `body` is OpenAI's request."""
    if len(body) <= window.most_bytes:
        return
    inputs = _inputs(orjson.loads(body).get("input"))
    # Perhaps a million, for which others shall not wait.
    longest = await asyncio.to_thread(max, map(text_bytes, inputs), default=0)
    if longest > window.most_bytes:
        raise BadRequest("the input length exceeds the context length")


def parts(given: Any) -> Iterator[Any]:
    """What to ask, in turn, for OpenAI's `input`: lists of a few, or what is one input itself."""
    inputs = _inputs(given)
    if inputs is not given:
        yield given
        return
    part: list[Any] = []
    size = 0
    for each in inputs:
        size += _size(each)
        if part and (len(part) == _MOST_INPUTS or size > _MOST_BYTES):
            yield part
            part, size = [], _size(each)
        part.append(each)
    yield part


def _inputs(given: Any) -> list[Any]:
    """A list with a number in it is the tokens of one input."""
    if isinstance(given, list) and not any(isinstance(each, int) for each in given):
        return given
    return [given]


def _size(given: Any) -> int:
    return 4 * len(given) if isinstance(given, list) else text_bytes(given)

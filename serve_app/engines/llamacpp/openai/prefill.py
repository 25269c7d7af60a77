"""Removes the beginning that a caller wrote for the assistant from llama.cpp's chat answers.

A model continues a conversation that ends with the assistant's message. A stream has the
continuation only, as in Ollama, but a complete answer of llama.cpp repeats the message.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from serve_app.engines.base import Answer, Call
from serve_app.engines.llamacpp.client import Json

_PATH = "/v1/chat/completions"


def only_new(call: Call, answer: Answer) -> Answer:
    """Return `answer` to `call` without the beginning that the call contains."""
    if call.path != _PATH or call.stream or b'"assistant"' not in call.body:
        return answer
    if begun := _begun(orjson.loads(call.body)):
        answer.body = _shortened(answer.body, begun)
    return answer


def _begun(request: Json) -> str:
    """Return the text of the last message if it is the assistant's, with its parts joined."""
    messages = request.get("messages")
    last: Any = messages[-1] if isinstance(messages, list) and messages else {}
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return ""
    content = last.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


async def _shortened(body: AsyncIterator[bytes], begun: str) -> AsyncIterator[bytes]:
    data = b"".join([piece async for piece in body])
    try:
        yield orjson.dumps(_continued(orjson.loads(data), begun))
    except orjson.JSONDecodeError:
        yield data  # the relay reports the error in it


def _continued(value: Json, begun: str) -> Json:
    for choice in value.get("choices") or ():
        message = choice.get("message") or {}
        if isinstance(message.get("content"), str):
            message["content"] = message["content"].removeprefix(begun)
    return value

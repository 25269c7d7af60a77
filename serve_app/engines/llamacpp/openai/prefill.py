"""What the caller has begun for the assistant, taken out of llama.cpp's whole chat answers.

Where a conversation ends with the assistant's message, it is continued. A stream brings the
continuation only, as every dialect of Ollama does; a whole answer of llama.cpp repeats the message.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from serve_app.engines.base import Answer, Call
from serve_app.engines.llamacpp.client import Json

_PATH = "/v1/chat/completions"


def only_new(call: Call, answer: Answer) -> Answer:
    """`answer` to `call`, without what the call itself began."""
    if call.path != _PATH or call.stream or b'"assistant"' not in call.body:
        return answer
    if begun := _begun(orjson.loads(call.body)):
        answer.body = _shortened(answer.body, begun)
    return answer


def _begun(request: Json) -> str:
    """The text of the last message, if it is the assistant's; parts as llama.cpp joins them."""
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
        yield data  # whoever reads it says what is wrong with it


def _continued(value: Json, begun: str) -> Json:
    for choice in value.get("choices") or ():
        message = choice.get("message") or {}
        if isinstance(message.get("content"), str):
            message["content"] = message["content"].removeprefix(begun)
    return value

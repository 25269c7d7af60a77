"""Bounds the text of a prompt by its bytes, before any token is counted.

llama.cpp counts all tokens of a prompt, at about 2 MB/s, before it refuses too many, even after the
caller has disconnected. A prompt whose bytes can't fit is therefore never sent to it.
"""

import asyncio
import sys
from typing import Any, NamedTuple

import orjson

from serve_app.engines.llamacpp.client import Json, PromptTooLong

_NO_TEXT = {"image_url", "source", "images", "encrypted_content", "signature"}


class ContextWindow(NamedTuple):
    """The capacity of a slot: `context` tokens of at most `token_bytes` bytes each.

    `token_bytes` 0: the bytes of a token have no bound, and any text may fit.
    `shortens`: whether a prompt that does not fit is shortened or refused.
    """

    context: int
    token_bytes: int
    shortens: bool = True

    @property
    def max_bytes(self) -> int:
        """Bytes above which a text has more tokens than the context."""
        return (self.context + 1) * self.token_bytes or sys.maxsize

    def bytes_of(self, messages: list[Any]) -> int:
        """Return the bytes of a conversation's text; a message counts as one token at least."""
        return sum(max(text_bytes(message), self.token_bytes) for message in messages)

    def check(self, size: int) -> None:
        """Raise PromptTooLong in llama.cpp's words for `size` bytes that can't fit."""
        if size <= self.max_bytes:
            return
        error = {"code": 400, "message": self._sentence(size), "type": "exceed_context_size_error"}
        tokens = size // self.token_bytes
        counts = {"n_prompt_tokens": tokens, "n_ctx": self.context}
        sentence = orjson.dumps({"error": error | counts}).decode()
        raise PromptTooLong(sentence, tokens, self.context, at_least=True)

    async def check_body(self, body: bytes) -> None:
        """Raise PromptTooLong for a request in OpenAI's or Anthropic's dialect that can't fit."""
        if len(body) <= self.max_bytes:
            return
        # In a thread, because megabytes of JSON would block other requests.
        self.check(await asyncio.to_thread(self._size_of, orjson.loads(body)))

    def _size_of(self, request: Json) -> int:
        texts = [request.get(name) for name in ("prompt", "instructions", "system", "tools")]
        messages = request.get("messages") or request.get("input")
        listed = messages if isinstance(messages, list) else [messages]
        return text_bytes(texts) + self.bytes_of(listed)

    def _sentence(self, size: int) -> str:
        return (
            f"request (at least {size // self.token_bytes} tokens) exceeds the available context "
            f"size ({self.context} tokens), try increasing it"
        )


def text_bytes(value: Any) -> int:
    """Return the bytes of all texts in `value`, a message or a part of one."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return sum(text_bytes(inner) for key, inner in value.items() if key not in _NO_TEXT)
    return sum(map(text_bytes, value)) if isinstance(value, list) else 0

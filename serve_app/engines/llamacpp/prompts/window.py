"""How much text a slot can hold at all, told by its bytes.

llama.cpp counts a prompt's tokens to their end, some 2 MB/s, before it knows that they are too
many, and goes on when the caller has left. What can't fit anyhow is therefore never sent to it.
"""

import asyncio
import sys
from typing import Any, NamedTuple

import orjson

from serve_app.engines.llamacpp.client import Json, PromptTooLong

_NO_TEXT = {"image_url", "source", "images", "encrypted_content", "signature"}


class Window(NamedTuple):
    """A slot of `context` tokens, of which none stands for more than `token_bytes` bytes of text.

    `token_bytes` 0: there is no such bound, and any text may fit. `shortens`: whether a prompt
    that does not fit is shortened; it is refused otherwise.
    """

    context: int
    token_bytes: int
    shortens: bool = True

    @property
    def max_bytes(self) -> int:
        """Text with more bytes has more tokens than the context."""
        return (self.context + 1) * self.token_bytes or sys.maxsize

    def bytes_of(self, messages: list[Any]) -> int:
        """What a conversation's text comes to; a message is one token at least."""
        return sum(max(text_bytes(message), self.token_bytes) for message in messages)

    def check(self, size: int) -> None:
        """Raises PromptTooLong, as llama.cpp words it, for `size` bytes that can't fit."""
        if size <= self.max_bytes:
            return
        error = {"code": 400, "message": self._sentence(size), "type": "exceed_context_size_error"}
        tokens = size // self.token_bytes
        counts = {"n_prompt_tokens": tokens, "n_ctx": self.context}
        sentence = orjson.dumps({"error": error | counts}).decode()
        raise PromptTooLong(sentence, tokens, self.context, at_least=True)

    async def check_body(self, body: bytes) -> None:
        """Raises PromptTooLong for a request in OpenAI's or Anthropic's words that can't fit."""
        if len(body) <= self.max_bytes:
            return
        # Megabytes of JSON, which others shall not wait for.
        self.check(await asyncio.to_thread(self._size_of, orjson.loads(body)))

    def _size_of(self, request: Json) -> int:
        texts = [request.get(name) for name in ("prompt", "instructions", "system", "tools")]
        talk = request.get("messages") or request.get("input")
        return text_bytes(texts) + self.bytes_of(talk if isinstance(talk, list) else [talk])

    def _sentence(self, size: int) -> str:
        return (
            f"request (at least {size // self.token_bytes} tokens) exceeds the available context "
            f"size ({self.context} tokens), try increasing it"
        )


def text_bytes(value: Any) -> int:
    """Bytes of all texts in `value`, a message or a part of one, that may come into a prompt."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return sum(text_bytes(inner) for key, inner in value.items() if key not in _NO_TEXT)
    return sum(map(text_bytes, value)) if isinstance(value, list) else 0

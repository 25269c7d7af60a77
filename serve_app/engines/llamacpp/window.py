"""How much text a slot can hold at all, told by its bytes.

llama.cpp reads a prompt to its end, some 2 MB/s, before it knows that it is too long, and goes on
when the caller has left. What can't fit, whatever its tokens are, is therefore never sent to it.
"""

import sys
from typing import Any, NamedTuple

import orjson

from serve_app.engines.llamacpp.client import Json, PromptTooLong
from serve_app.errors import BadRequest

_MOST_INPUTS = 4 * 2**20  # bytes of all inputs of one OpenAI embeddings request
_IMAGES = {"image_url", "source"}  # llama.cpp has a better sentence for these


class Window(NamedTuple):
    """A slot of `context` tokens, of which none stands for more than `token_bytes` bytes of text.

    `token_bytes` 0: there is no such bound, and any text may fit.
    """

    context: int
    token_bytes: int

    @property
    def most_bytes(self) -> int:
        """Text with more bytes has more tokens than the context."""
        return (self.context + 1) * self.token_bytes or sys.maxsize

    def size(self, messages: list[Any]) -> int:
        """Bytes of a conversation; a message is one token at least."""
        return sum(max(_size(message), self.token_bytes) for message in messages)

    def check(self, size: int) -> None:
        """Raises PromptTooLong, in llama.cpp's words, for `size` bytes that can't fit."""
        if size <= self.most_bytes:
            return
        error = {"code": 400, "message": self._sentence(size), "type": "exceed_context_size_error"}
        counts = {"n_prompt_tokens": size // self.token_bytes, "n_ctx": self.context}
        raise PromptTooLong(400, orjson.dumps({"error": error | counts}).decode(), self.context)

    def check_body(self, path: str, body: bytes) -> None:
        """Raises BadRequest for a request in OpenAI's or Anthropic's words that can't fit."""
        if len(body) <= min(self.most_bytes, _MOST_INPUTS):
            return
        request: Json = orjson.loads(body)
        if path == "/v1/embeddings":
            if _size(request["input"]) > _MOST_INPUTS:
                raise BadRequest(f"more than {_MOST_INPUTS} bytes of inputs; send them in parts")
        elif (size := self._asked(request)) > self.most_bytes:
            raise BadRequest(self._sentence(size))

    def _asked(self, request: Json) -> int:
        texts = [request.get(name) for name in ("prompt", "instructions", "system", "tools")]
        talk = request.get("messages") or request.get("input")
        return sum(map(_size, texts)) + self.size(talk if isinstance(talk, list) else [talk])

    def _sentence(self, size: int) -> str:
        return (
            f"request (at least {size // self.token_bytes} tokens) exceeds the available context "
            f"size ({self.context} tokens), try increasing it"
        )


def _size(value: Any) -> int:
    """Bytes of a text, or of the JSON that templates write for the rest."""
    if isinstance(value, str):
        return len(value.encode())
    inner = value.get("content") if isinstance(value, dict) else value
    if isinstance(inner, list):
        return sum(_size_of_block(block) for block in inner)
    return len(orjson.dumps(value)) if value else 0


def _size_of_block(block: Any) -> int:
    if isinstance(block, dict) and block.keys() & _IMAGES:
        return 0
    return len(orjson.dumps(block))

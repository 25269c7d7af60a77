"""Anthropic's dialect: /v1/messages."""

import secrets
from collections.abc import Sequence
from typing import Any

from serve_app.go_json import encode
from serve_app.simulator.bodies import Body
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.model_output import ModelOutput, Token, TokenKind, Tool
from serve_app.simulator.ollama import split_words
from serve_app.simulator.tasks import GenerationRequest, GenerationStats, PromptMessage
from serve_app.simulator.wire import EVENT_HEADERS

_REASONS = {"stop": "end_turn", "length": "max_tokens"}
# The start of a block, and the type and field of its deltas.
_STARTS = {
    TokenKind.TEXT: b'{"type":"text","text":""}',
    TokenKind.THINKING: b'{"type":"thinking","thinking":""}',
}
_DELTAS = {
    TokenKind.TEXT: (b"text_delta", b"text"),
    TokenKind.THINKING: (b"thinking_delta", b"thinking"),
    TokenKind.CALL: (b"input_json_delta", b"partial_json"),
}


def parse_message(body: Body) -> GenerationRequest:
    """Parse the body of /v1/messages. Raises ErrorAnswer 400."""
    if not body.get("model"):
        raise ErrorAnswer(400, "model is required", early=True)
    if (body.get("max_tokens") or 0) <= 0:
        raise ErrorAnswer(400, "max_tokens is required and must be positive", early=True)
    if not body.get("messages"):
        raise ErrorAnswer(400, "messages is required", early=True)
    return _request(body, body["messages"])


def _request(body: Body, turns: list[Body]) -> GenerationRequest:
    messages = [PromptMessage(turn.get("role", ""), split_words(turn)) for turn in turns]
    if body.get("system"):
        messages.insert(0, PromptMessage("system", split_words({"content": body["system"]})))
    thinking = (body.get("thinking") or {}).get("type")
    return GenerationRequest(
        model=body["model"],
        messages=messages,
        stream=bool(body.get("stream")),
        limit=body["max_tokens"],
        stops=body.get("stop_sequences") or (),
        tools=_tools(body),
        tool_result=_has_tool_result(turns[-1].get("content")),
        think=thinking != "disabled" if thinking else None,
        think_or_drop=True,
    )


def _tools(body: Body) -> list[Tool]:
    tools = body.get("tools") or ()
    return [Tool(tool.get("name", ""), tool.get("input_schema") or {}) for tool in tools]


def _has_tool_result(content: Any) -> bool:
    parts = content if isinstance(content, list) else ()
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)


class AnthropicMessageWriter:
    """Writes an answer of /v1/messages."""

    stream_type = "text/event-stream"
    stream_headers = EVENT_HEADERS
    whole_type = "application/json"

    def __init__(self, request: GenerationRequest, body: Body, output: ModelOutput) -> None:
        self._request = request
        self._output = output
        self._id = f"msg_{secrets.token_hex(12)}"
        self._kind: TokenKind | None = None
        self._index = -1

    def first_chunks(self) -> list[bytes]:
        message = {**self._message(), "content": [], "usage": _usage(self._guess(), 0)}
        return [_event("message_start", message=message)]

    def chunks(self, tokens: Sequence[Token]) -> list[bytes]:
        chunks: list[bytes] = []
        for token in tokens:
            if token.kind is not self._kind:
                chunks += [*self._stop_block(), self._start_block(token.kind)]
            chunks.append(self._delta(token))
        return chunks

    def last_chunks(self, stats: GenerationStats) -> list[bytes]:
        delta = {"stop_reason": self._reason(stats)}
        usage = _usage(stats.prompt_count, stats.eval_count)
        end = [_event("message_delta", delta=delta, usage=usage), _event("message_stop")]
        return [*self._stop_block(), *end]

    def whole(self, stats: GenerationStats) -> bytes:
        message = {**self._message(), "content": self._content()}
        if reason := self._reason(stats):
            message["stop_reason"] = reason
        return encode({**message, "usage": _usage(stats.prompt_count, stats.eval_count)}) + b"\n"

    def _message(self) -> Body:
        about = {"id": self._id, "type": "message", "role": "assistant"}
        return {**about, "model": self._request.model}

    def _guess(self) -> int:
        """Guess the tokens of the prompt by a quarter of the characters, as Ollama does."""
        texts = (f"{message.role}{' '.join(message.words)}" for message in self._request.messages)
        return sum(map(len, texts)) // 4

    def _reason(self, stats: GenerationStats) -> str | None:
        if stats.reason and self._output.call:
            return "tool_use"
        return _REASONS.get(stats.reason or "")

    def _start_block(self, kind: TokenKind) -> bytes:
        self._kind = kind
        self._index += 1
        block = _STARTS.get(kind) or encode({**self._tool_use(), "input": {}})
        return (
            b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,'
            b'"content_block":%b}\n\n' % (self._index, block)
        )

    def _stop_block(self) -> list[bytes]:
        return [_event("content_block_stop", index=self._index)] if self._kind else []

    def _delta(self, token: Token) -> bytes:
        kind, name = _DELTAS[token.kind]
        text = self._arguments() if token.kind is TokenKind.CALL else token.text
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
            b'{"type":"%b","%b":%b}}\n\n' % (self._index, kind, name, encode(text))
        )

    def _content(self) -> list[Body]:
        blocks: list[Body] = []
        if thinking := self._output.text(TokenKind.THINKING):
            blocks.append({"type": "thinking", "thinking": thinking})
        if text := self._output.text(TokenKind.TEXT):
            blocks.append({"type": "text", "text": text})
        if call := self._output.call:
            blocks.append({**self._tool_use(), "input": call.arguments})
        return blocks

    def _tool_use(self) -> Body:
        call = self._output.call
        return {"type": "tool_use", "id": call.id, "name": call.name} if call else {}

    def _arguments(self) -> str:
        return encode(self._output.call.arguments).decode() if self._output.call else ""


def _event(kind: str, **facts: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **facts}))


def _usage(prompt: int, answer: int) -> dict[str, int]:
    return {"input_tokens": prompt, "output_tokens": answer}

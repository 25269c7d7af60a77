"""Ollama's own dialect: /api/chat and /api/generate."""

from collections.abc import Iterable, Sequence
from typing import Any

from serve_app.go_json import encode, now
from serve_app.simulator.bodies import Body
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.logprobs import logprobs
from serve_app.simulator.model_output import ModelOutput, Token, TokenKind, Tool
from serve_app.simulator.tasks import GenerationRequest, GenerationStats, PromptMessage
from serve_app.simulator.wire import JSON, Headers

_NOTHING = ModelOutput((), "")
_LEVELS = ("high", "medium", "low", "max")


def parse_chat(body: Body) -> GenerationRequest:
    """Parse the body of /api/chat."""
    messages = body.get("messages") or []
    request = _request(
        body, [PromptMessage(turn.get("role", ""), split_words(turn)) for turn in messages]
    )
    request.tools = function_tools(body.get("tools") or ())
    request.tool_result = bool(messages) and messages[-1].get("role") == "tool"
    return request


def parse_generate(body: Body) -> GenerationRequest:
    """Parse the body of /api/generate. Raises ErrorAnswer 400."""
    if body.get("raw") and any(body.get(key) for key in ("template", "system", "context")):
        raise ErrorAnswer(400, "raw mode does not support template, system, or context")
    prompt = body.get("prompt") or ""
    turns = (("system", body.get("system") or ""), ("user", prompt))
    messages = [PromptMessage(role, text.split() or [""]) for role, text in turns if text]
    request = _request(body, messages if prompt else [])
    request.chat = False
    request.insert = bool(body.get("suffix"))
    return request


def _request(body: Body, messages: list[PromptMessage]) -> GenerationRequest:
    options = body.get("options") or {}
    stops = options.get("stop") or ()
    return GenerationRequest(
        model=body.get("model") or "",
        messages=messages,
        # Loads and unloads are not streamed.
        stream=body.get("stream") is not False and bool(messages),
        limit=max(0, options.get("num_predict") or 0),
        stops=[stops] if isinstance(stops, str) else stops,
        format=body.get("format"),
        think=_think(body.get("think")),
        truncate=body.get("truncate") is not False,
        keep_alive=body.get("keep_alive"),
        top_logprobs=top_logprobs(body),
    )


def split_words(message: Body) -> list[str]:
    """Split a message, a text or a list of parts, into tokens, at least one."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join([part.get("text") or "" for part in content if isinstance(part, dict)])
    return str(content).split() or [""]


def function_tools(tools: Iterable[Body]) -> list[Tool]:
    functions = [tool.get("function") or {} for tool in tools]
    return [Tool(f.get("name", ""), f.get("parameters") or {}) for f in functions]


def top_logprobs(body: Body) -> int | None:
    top = body.get("top_logprobs") or 0
    if not 0 <= top <= 20:
        raise ErrorAnswer(400, "top_logprobs must be between 0 and 20", early=True)
    return top if body.get("logprobs") else None


def _think(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in _LEVELS:
        return True
    levels = ", ".join(f'"{level}"' for level in _LEVELS)
    raise ErrorAnswer(400, f'invalid think value: "{value}" (must be {levels}, true, or false)')


class _OllamaWriter:
    """The common part of chat and generate: lines, with the counts in the last one."""

    stream_type = "application/x-ndjson"
    stream_headers: Headers = ()
    whole_type = JSON

    def __init__(self, request: GenerationRequest, body: Body, output: ModelOutput) -> None:
        self._request = request
        self._output = output
        self._raw = bool(body.get("raw"))
        self._model = encode(request.model)

    def first_chunks(self) -> list[bytes]:
        return []

    def chunks(self, tokens: Sequence[Token]) -> list[bytes]:
        head = self._head()
        return [self._line(head, token) for token in tokens]

    def last_chunks(self, stats: GenerationStats) -> list[bytes]:
        return [self._head() + self._content(_NOTHING) + self._end(stats) + b"}\n"]

    def whole(self, stats: GenerationStats) -> bytes:
        probabilities = b""
        if stats.reason and self._request.top_logprobs is not None:
            probabilities = b',"logprobs":' + logprobs(
                self._output.tokens, self._request.top_logprobs
            )
        return b"".join(
            (self._head(), self._content(self._output), self._end(stats), probabilities, b"}")
        )

    def _head(self) -> bytes:
        return b'{"model":%b,"created_at":"%b",' % (self._model, now().encode())

    def _line(self, head: bytes, token: Token) -> bytes:
        content = self._token(token)
        if self._request.top_logprobs is None:
            return b'%b%b,"done":false}\n' % (head, content)
        probabilities = logprobs([token], self._request.top_logprobs)
        return b'%b%b,"done":false,"logprobs":%b}\n' % (head, content, probabilities)

    def _end(self, stats: GenerationStats) -> bytes:
        if stats.reason is None:
            return b',"done":false'
        counts = encode({**self._context(stats), **stats.counts()})[1:-1]
        comma = b"," if counts else b""
        return b',"done":true,"done_reason":"%b"%b%b' % (stats.reason.encode(), comma, counts)

    def _context(self, stats: GenerationStats) -> dict[str, list[int]]:
        return {}

    def _token(self, token: Token) -> bytes:
        raise NotImplementedError

    def _content(self, output: ModelOutput) -> bytes:
        raise NotImplementedError


class OllamaChatWriter(_OllamaWriter):
    """Writes an answer of /api/chat."""

    def _token(self, token: Token) -> bytes:
        if token.kind is TokenKind.TEXT:
            return b'"message":{"role":"assistant","content":%b}' % encode(token.text)
        if token.kind is TokenKind.THINKING:
            thinking = encode(token.text)
            return b'"message":{"role":"assistant","content":"","thinking":%b}' % thinking
        return self._content(self._output)

    def _content(self, output: ModelOutput) -> bytes:
        message: Body = {"role": "assistant", "content": output.text(TokenKind.TEXT)}
        if thinking := output.text(TokenKind.THINKING):
            message["thinking"] = thinking
        if call := output.call:
            function = {"index": 0, "name": call.name, "arguments": call.arguments}
            message["tool_calls"] = [{"id": call.id, "function": function}]
        return b'"message":' + encode(message)


class GenerateWriter(_OllamaWriter):
    """Writes an answer of /api/generate."""

    def _token(self, token: Token) -> bytes:
        if token.kind is TokenKind.TEXT:
            return b'"response":' + encode(token.text)
        return b'"response":"","thinking":' + encode(token.text)

    def _content(self, output: ModelOutput) -> bytes:
        response = b'"response":' + encode(output.text(TokenKind.TEXT))
        thinking = output.text(TokenKind.THINKING)
        return response + b',"thinking":' + encode(thinking) if thinking else response

    def _context(self, stats: GenerationStats) -> dict[str, list[int]]:
        tokens = stats.prompt_count + stats.eval_count
        return {"context": list(range(1, tokens + 1))} if tokens and not self._raw else {}

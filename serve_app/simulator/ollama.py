"""Ollama's own dialect: /api/chat and /api/generate."""

from collections.abc import Iterable, Sequence
from typing import Any

from serve_app.go_json import encode, now
from serve_app.simulator.answer import Answer, Kind, Piece, Tool
from serve_app.simulator.bodies import Body, expect
from serve_app.simulator.failures import UNEXPECTED_EOF, ApiError, native
from serve_app.simulator.jobs import Ask, Message, Run
from serve_app.simulator.logprobs import logprobs
from serve_app.simulator.wire import JSON, Headers

_NOTHING = Answer((), "")
_LEVELS = ("high", "medium", "low", "max")


def ask_chat(body: Body) -> Ask:
    expect(body, "api.ChatRequest", "messages", list, "[]api.Message")
    messages = body.get("messages") or []
    ask = _ask(body, [Message(each.get("role", ""), words(each)) for each in messages])
    ask.tools = function_tools(body.get("tools") or ())
    ask.tool_result = bool(messages) and messages[-1].get("role") == "tool"
    return ask


def ask_generate(body: Body) -> Ask:
    if body.get("raw") and any(body.get(key) for key in ("template", "system", "context")):
        raise ApiError(400, "raw mode does not support template, system, or context")
    prompt = body.get("prompt") or ""
    turns = (("system", body.get("system") or ""), ("user", prompt))
    messages = [Message(role, text.split() or [""]) for role, text in turns if text]
    ask = _ask(body, messages if prompt else [])
    ask.chat = False
    ask.insert = bool(body.get("suffix"))
    return ask


def _ask(body: Body, messages: list[Message]) -> Ask:
    options = body.get("options") or {}
    stops = options.get("stop") or ()
    return Ask(
        model=body.get("model") or "",
        messages=messages,
        # A load or unload is never streamed.
        stream=body.get("stream") is not False and bool(messages),
        limit=max(0, options.get("num_predict") or 0),
        stops=[stops] if isinstance(stops, str) else stops,
        format=body.get("format"),
        think=_think(body.get("think")),
        truncate=body.get("truncate") is not False,
        keep_alive=body.get("keep_alive"),
        top_logprobs=top_logprobs(body),
    )


def words(message: Body) -> list[str]:
    """A message's tokens, from text or from a list of parts; at least one."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join([part.get("text") or "" for part in content if isinstance(part, dict)])
    return str(content).split() or [""]


def function_tools(tools: Iterable[Body]) -> list[Tool]:
    functions = [tool.get("function") or {} for tool in tools]
    return [Tool(each.get("name", ""), each.get("parameters") or {}) for each in functions]


def top_logprobs(body: Body) -> int | None:
    top = body.get("top_logprobs") or 0
    if not 0 <= top <= 20:
        raise ApiError(400, "top_logprobs must be between 0 and 20", early=True)
    return top if body.get("logprobs") else None


def _think(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in _LEVELS:
        return True
    levels = ", ".join(f'"{level}"' for level in _LEVELS)
    raise ApiError(400, f'invalid think value: "{value}" (must be {levels}, true, or false)')


class _Voice:
    """What chat and generate have in common: lines, with the counts in the last one."""

    stream_type = "application/x-ndjson"
    stream_headers: Headers = ()
    whole_type = JSON

    def __init__(self, ask: Ask, body: Body, answer: Answer) -> None:
        self._ask = ask
        self._answer = answer
        self._raw = bool(body.get("raw"))
        self._model = encode(ask.model)

    def opening(self) -> list[bytes]:
        return []

    def say(self, pieces: Sequence[Piece]) -> list[bytes]:
        head = self._head()
        return [self._line(head, piece) for piece in pieces]

    def closing(self, run: Run) -> list[bytes]:
        return [self._head() + self._content(_NOTHING) + self._end(run) + b"}\n"]

    def broken(self) -> list[bytes]:
        return [native(UNEXPECTED_EOF) + b"\n"]

    def whole(self, run: Run) -> bytes:
        probabilities = b""
        if run.reason and self._ask.top_logprobs is not None:
            probabilities = b',"logprobs":' + logprobs(self._answer.pieces, self._ask.top_logprobs)
        return b"".join(
            (self._head(), self._content(self._answer), self._end(run), probabilities, b"}")
        )

    def _head(self) -> bytes:
        return b'{"model":%b,"created_at":"%b",' % (self._model, now().encode())

    def _line(self, head: bytes, piece: Piece) -> bytes:
        said = self._piece(piece)
        if self._ask.top_logprobs is None:
            return b'%b%b,"done":false}\n' % (head, said)
        probabilities = logprobs([piece], self._ask.top_logprobs)
        return b'%b%b,"done":false,"logprobs":%b}\n' % (head, said, probabilities)

    def _end(self, run: Run) -> bytes:
        if run.reason is None:
            return b',"done":false'
        counts = encode({**self._context(run), **run.counts()})[1:-1]
        comma = b"," if counts else b""
        return b',"done":true,"done_reason":"%b"%b%b' % (run.reason.encode(), comma, counts)

    def _context(self, run: Run) -> dict[str, list[int]]:
        return {}

    def _piece(self, piece: Piece) -> bytes:
        raise NotImplementedError

    def _content(self, answer: Answer) -> bytes:
        raise NotImplementedError


class ChatVoice(_Voice):
    def _piece(self, piece: Piece) -> bytes:
        if piece.kind is Kind.TEXT:
            return b'"message":{"role":"assistant","content":%b}' % encode(piece.text)
        if piece.kind is Kind.THINKING:
            thinking = encode(piece.text)
            return b'"message":{"role":"assistant","content":"","thinking":%b}' % thinking
        return self._content(self._answer)

    def _content(self, answer: Answer) -> bytes:
        message: Body = {"role": "assistant", "content": answer.text(Kind.TEXT)}
        if thinking := answer.text(Kind.THINKING):
            message["thinking"] = thinking
        if call := answer.call:
            function = {"index": 0, "name": call.name, "arguments": call.arguments}
            message["tool_calls"] = [{"id": call.id, "function": function}]
        return b'"message":' + encode(message)


class GenerateVoice(_Voice):
    def _piece(self, piece: Piece) -> bytes:
        if piece.kind is Kind.TEXT:
            return b'"response":' + encode(piece.text)
        return b'"response":"","thinking":' + encode(piece.text)

    def _content(self, answer: Answer) -> bytes:
        said = b'"response":' + encode(answer.text(Kind.TEXT))
        thinking = answer.text(Kind.THINKING)
        return said + b',"thinking":' + encode(thinking) if thinking else said

    def _context(self, run: Run) -> dict[str, list[int]]:
        tokens = run.prompt_count + run.eval_count
        return {"context": list(range(1, tokens + 1))} if tokens and not self._raw else {}

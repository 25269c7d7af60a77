"""One chat request in each dialect: encode the request, parse the lines of the answer.

Pure functions, shared by all Python load generators so that they agree on a token with content, a
complete answer and a count of tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serve_app.errors import ServiceError

Messages = Sequence[Mapping[str, str]]


class UnknownDialect(ServiceError):
    """A dialect that the API does not speak."""


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The address, model and dialect of requests.

    `timeout_s` bounds one request from its sending to its last byte.
    """

    base_url: str = "http://127.0.0.1:8000"
    model: str = "smollm2:135m"
    dialect: str = "openai"
    stream: bool = True
    api_key: str = ""
    timeout_s: float = 120.0

    @property
    def path(self) -> str:
        return dialect(self.dialect).path

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/") + self.path

    def headers(self, session: str = "") -> dict[str, str]:
        """Build the headers of one request; `session` names its conversation."""
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if session:
            headers["x-session-id"] = session
        return headers

    def body(self, messages: Messages, tokens: int) -> bytes:
        """Encode a request for an answer of at most `tokens` tokens."""
        return orjson.dumps(
            {
                "model": self.model,
                "messages": list(messages),
                "stream": self.stream,
                **dialect(self.dialect).limits(tokens, self.stream),
            }
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """One parsed line of a stream, or one parsed body.

    `content`: it carries a token of text, thinking or a tool call. `whole`: it is the final
    marker, or a finished answer. Counts of tokens are None where the server does not send them.
    """

    content: bool = False
    text: str = ""
    whole: bool = False
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """A dialect: `event` parses the JSON of a streamed line, `body` that of a whole answer."""

    path: str
    limits: Callable[[int, bool], dict[str, Any]]
    event: Callable[[Any], Chunk]
    body: Callable[[Any], Chunk]

    def parse_line(self, line: bytes) -> Chunk:
        """Parse one line of SSE or NDJSON. A line that can't be parsed is an empty Chunk."""
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return Chunk(whole=True)
        return _read(data, self.event) if data.startswith(b"{") else Chunk()

    def parse_body(self, body: bytes) -> Chunk:
        return _read(body, self.body)


def dialect(name: str) -> ChatDialect:
    """Return the dialect of a name. Raises UnknownDialect."""
    if name not in DIALECTS:
        raise UnknownDialect(f"unknown dialect {name!r}; use one of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def _read(data: bytes, reader: Callable[[Any], Chunk]) -> Chunk:
    try:
        value = orjson.loads(data)
        error = value.get("error")
        return Chunk(error=_message(error)) if error else reader(value)
    except (orjson.JSONDecodeError, AttributeError, IndexError, KeyError, TypeError):
        return Chunk()


def _message(error: Any) -> str:
    return str(error.get("message") or error if isinstance(error, dict) else error)


def _has_any(message: Mapping[str, Any], *fields: str) -> bool:
    return any(message.get(name) for name in fields)


# OpenAI: /v1/chat/completions


def _openai_limits(tokens: int, stream: bool) -> dict[str, Any]:
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    return {"max_tokens": tokens, **usage}


def _openai_event(event: Any) -> Chunk:
    return _openai(event, "delta", whole=False)


def _openai_body(body: Any) -> Chunk:
    return _openai(body, "message", whole=bool(body["choices"][0].get("finish_reason")))


def _openai(value: Any, place: str, whole: bool) -> Chunk:
    usage = value.get("usage") or {}
    message = value["choices"][0][place] if value["choices"] else {}
    return Chunk(
        content=_has_any(message, "content", "reasoning", "reasoning_content", "tool_calls"),
        text=message.get("content") or "",
        whole=whole,
        prompt_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
    )


# Ollama: /api/chat. A body that is not streamed has the form of one event.


def _ollama_limits(tokens: int, stream: bool) -> dict[str, Any]:
    return {"options": {"num_predict": tokens}}


def _ollama(event: Any) -> Chunk:
    message = event.get("message") or {}
    return Chunk(
        content=_has_any(message, "content", "thinking", "tool_calls"),
        text=message.get("content") or "",
        whole=event.get("done") is True,
        prompt_tokens=event.get("prompt_eval_count"),
        output_tokens=event.get("eval_count"),
    )


# Anthropic: /v1/messages


def _anthropic_limits(tokens: int, stream: bool) -> dict[str, Any]:
    return {"max_tokens": tokens}


def _anthropic_event(event: Any) -> Chunk:
    match event.get("type"):
        case "content_block_delta":
            delta = event["delta"]
            text = delta.get("text") or ""
            content = _has_any(delta, "text", "thinking", "partial_json")
            return Chunk(content=content, text=text)
        case "message_delta":
            return _anthropic_usage(event.get("usage") or {})
        case "message_stop":
            return Chunk(whole=True)
    return Chunk()


def _anthropic_body(body: Any) -> Chunk:
    usage = _anthropic_usage(body.get("usage") or {})
    text = "".join(block.get("text", "") for block in body["content"])
    whole = bool(body.get("stop_reason"))
    return Chunk(bool(body["content"]), text, whole, usage.prompt_tokens, usage.output_tokens)


def _anthropic_usage(usage: Mapping[str, Any]) -> Chunk:
    prompt = usage.get("input_tokens")
    if prompt is not None:
        prompt += usage.get("cache_read_input_tokens") or 0
    return Chunk(prompt_tokens=prompt, output_tokens=usage.get("output_tokens"))


DIALECTS: Mapping[str, ChatDialect] = {
    "openai": ChatDialect("/v1/chat/completions", _openai_limits, _openai_event, _openai_body),
    "ollama": ChatDialect("/api/chat", _ollama_limits, _ollama, _ollama),
    "anthropic": ChatDialect("/v1/messages", _anthropic_limits, _anthropic_event, _anthropic_body),
}

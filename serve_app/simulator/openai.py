"""OpenAI's dialect: /v1/chat/completions and /v1/completions."""

import random
import time
from collections.abc import Sequence
from typing import Any

import orjson

from serve_app.go_json import encode
from serve_app.simulator.bodies import Body
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.logprobs import logprobs
from serve_app.simulator.model_output import ModelOutput, Token, TokenKind
from serve_app.simulator.ollama import function_tools, split_words, top_logprobs
from serve_app.simulator.tasks import GenerationRequest, GenerationStats, PromptMessage
from serve_app.simulator.wire import Headers


def parse_chat(body: Body) -> GenerationRequest:
    """Parse the body of /v1/chat/completions. Raises ErrorAnswer 400."""
    messages = body.get("messages") or []
    if not messages:
        raise ErrorAnswer(400, "[] is too short - 'messages'", early=True)
    for message in messages:
        _refuse_remote_images(message.get("content"))
    request = _request(
        body, [PromptMessage(turn.get("role", ""), split_words(turn)) for turn in messages]
    )
    request.tools = function_tools(body.get("tools") or ())
    request.tool_result = messages[-1].get("role") == "tool"
    request.think = _think(body)
    request.format = _format(body.get("response_format") or {})
    request.top_logprobs = top_logprobs(body)
    return request


def parse_completion(body: Body) -> GenerationRequest:
    """Parse the body of /v1/completions."""
    prompt = body.get("prompt") or ""
    request = _request(body, [PromptMessage("user", prompt.split() or [""])] if prompt else [])
    request.chat = False
    request.insert = bool(body.get("suffix"))
    return request


def _request(body: Body, messages: list[PromptMessage]) -> GenerationRequest:
    stops = body.get("stop") or ()
    return GenerationRequest(
        model=body.get("model") or "",
        messages=messages,
        stream=bool(body.get("stream")),
        limit=max(0, body.get("max_tokens") or 0),
        stops=[stops] if isinstance(stops, str) else stops,
    )


def _refuse_remote_images(content: Any) -> None:
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url") or {}
        url = image.get("url", "") if isinstance(image, dict) else image
        if url and not url.startswith("data:"):
            message = "image URLs are not currently supported, please use base64 encoded data"
            raise ErrorAnswer(400, f"{message} instead", early=True)


def _think(body: Body) -> bool | None:
    effort = body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort")
    return effort != "none" if effort else None


def _format(format_: Body) -> Any:
    if format_.get("type") == "json_schema":
        return (format_.get("json_schema") or {}).get("schema")
    return "json" if format_.get("type") == "json_object" else None


class _OpenAIWriter:
    """The common part of both endpoints: events, and the last ones in one HTTP chunk."""

    stream_type = "text/event-stream"
    stream_headers: Headers = ()
    whole_type = "application/json"

    def __init__(self, request: GenerationRequest, body: Body, output: ModelOutput) -> None:
        self.model = request.model
        self._request = request
        self._output = output
        self._number = random.randrange(1000)
        self._created = int(time.time())
        self._before, self._after = self._event_around_choices(encode(request.model))
        options = body.get("stream_options") or {}
        self._with_usage = bool(options.get("include_usage"))

    def first_chunks(self) -> list[bytes]:
        return []

    def chunks(self, tokens: Sequence[Token]) -> list[bytes]:
        return [self._before + self._choice(token) + self._after for token in tokens]

    def last_chunks(self, stats: GenerationStats) -> list[bytes]:
        last = self._last_choice(encode(self._reason(stats)))
        usage = b""
        if self._with_usage:
            usage = b'%b%b,"usage":%b}\n\n' % (self._before, self._after[:-3], self._usage(stats))
        return [self._before + last + self._after + usage + b"data: [DONE]\n\n"]

    def _reason(self, stats: GenerationStats) -> str | None:
        return "tool_calls" if self._output.call and stats.reason else stats.reason

    def _usage(self, stats: GenerationStats) -> bytes:
        return encode(
            {
                "prompt_tokens": stats.prompt_count,
                "completion_tokens": stats.eval_count,
                "total_tokens": stats.prompt_count + stats.eval_count,
            }
        )

    def _whole(self, kind: str, number: str, choice: Body, stats: GenerationStats) -> bytes:
        answer = {
            "id": number,
            "object": kind,
            "created": self._created,
            "model": self._request.model,
            "system_fingerprint": "fp_ollama",
            "choices": [choice],
            "usage": orjson.Fragment(self._usage(stats)),
        }
        return encode(answer) + b"\n"

    def _event_around_choices(self, model: bytes) -> tuple[bytes, bytes]:
        raise NotImplementedError

    def _choice(self, token: Token) -> bytes:
        raise NotImplementedError

    def _last_choice(self, reason: bytes) -> bytes:
        raise NotImplementedError


class OpenAIChatWriter(_OpenAIWriter):
    """Writes an answer of /v1/chat/completions."""

    # Only in the first delta.
    _role = b'"role":"assistant",'

    def whole(self, stats: GenerationStats) -> bytes:
        choice = {"index": 0, "message": self._message(), "finish_reason": self._reason(stats)}
        if self._request.top_logprobs is not None and stats.reason:
            choice["logprobs"] = {"content": orjson.Fragment(self._logprobs(self._output.tokens))}
        return self._whole("chat.completion", f"chatcmpl-{self._number}", choice, stats)

    def _event_around_choices(self, model: bytes) -> tuple[bytes, bytes]:
        before = (
            b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"fp_ollama","choices":[' % (self._number, self._created, model)
        )
        return before, b"]}\n\n"

    def _choice(self, token: Token) -> bytes:
        role, self._role = self._role, b""
        more = b""
        if self._request.top_logprobs is not None:
            more = b',"logprobs":{"content":%b}' % self._logprobs([token])
        delta = role + self._delta(token)
        return b'{"index":0,"delta":{%b},"finish_reason":null%b}' % (delta, more)

    def _delta(self, token: Token) -> bytes:
        if token.kind is TokenKind.TEXT:
            return b'"content":' + encode(token.text)
        if token.kind is TokenKind.THINKING:
            return b'"content":"","reasoning":' + encode(token.text)
        return b'"content":"","tool_calls":' + encode(self._tool_calls())

    def _last_choice(self, reason: bytes) -> bytes:
        return b'{"index":0,"delta":{},"finish_reason":%b}' % reason

    def _message(self) -> Body:
        message: Body = {"role": "assistant", "content": self._output.text(TokenKind.TEXT)}
        if thinking := self._output.text(TokenKind.THINKING):
            message["reasoning"] = thinking
        if self._output.call:
            message["tool_calls"] = self._tool_calls()
        return message

    def _tool_calls(self) -> list[Body]:
        call = self._output.call
        if call is None:
            return []
        function = {"name": call.name, "arguments": encode(call.arguments).decode()}
        return [{"id": call.id, "index": 0, "type": "function", "function": function}]

    def _logprobs(self, tokens: Sequence[Token]) -> bytes:
        return logprobs(tokens, self._request.top_logprobs or 0)


class CompletionWriter(_OpenAIWriter):
    """Writes an answer of /v1/completions."""

    def whole(self, stats: GenerationStats) -> bytes:
        text = self._output.text(TokenKind.TEXT)
        choice = {"text": text, "index": 0, "finish_reason": self._reason(stats)}
        return self._whole("text_completion", f"cmpl-{self._number}", choice, stats)

    def _event_around_choices(self, model: bytes) -> tuple[bytes, bytes]:
        before = b'data: {"id":"cmpl-%d","object":"text_completion","created":%d,"choices":[' % (
            self._number,
            self._created,
        )
        return before, b'],"model":%b,"system_fingerprint":"fp_ollama"}\n\n' % model

    def _choice(self, token: Token) -> bytes:
        text = encode(token.text if token.kind is TokenKind.TEXT else "")
        return b'{"text":%b,"index":0,"finish_reason":null}' % text

    def _last_choice(self, reason: bytes) -> bytes:
        return b'{"text":"","index":0,"finish_reason":%b}' % reason

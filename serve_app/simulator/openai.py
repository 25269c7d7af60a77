"""OpenAI's dialect: /v1/chat/completions and /v1/completions."""

import random
import time
from collections.abc import Sequence
from typing import Any

import orjson

from serve_app.go_json import encode
from serve_app.simulator.answer import Answer, Kind, Piece
from serve_app.simulator.bodies import Body, expect
from serve_app.simulator.failures import ApiError
from serve_app.simulator.jobs import Ask, Message, Run
from serve_app.simulator.logprobs import logprobs
from serve_app.simulator.ollama import function_tools, top_logprobs, words
from serve_app.simulator.wire import Headers


def ask_chat(body: Body) -> Ask:
    expect(body, "openai.ChatCompletionRequest", "messages", list, "[]openai.Message")
    messages = body.get("messages") or []
    if not messages:
        raise ApiError(400, "[] is too short - 'messages'", early=True)
    for message in messages:
        _refuse_remote_images(message.get("content"))
    ask = _ask(body, [Message(each.get("role", ""), words(each)) for each in messages])
    ask.tools = function_tools(body.get("tools") or ())
    ask.tool_result = messages[-1].get("role") == "tool"
    ask.think = _think(body)
    ask.format = _format(body.get("response_format") or {})
    ask.top_logprobs = top_logprobs(body)
    return ask


def ask_completion(body: Body) -> Ask:
    expect(body, "openai.CompletionRequest", "prompt", str, "string")
    prompt = body.get("prompt") or ""
    ask = _ask(body, [Message("user", prompt.split() or [""])] if prompt else [])
    ask.chat = False
    ask.insert = bool(body.get("suffix"))
    return ask


def _ask(body: Body, messages: list[Message]) -> Ask:
    stops = body.get("stop") or ()
    return Ask(
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
            raise ApiError(400, f"{message} instead", early=True)


def _think(body: Body) -> bool | None:
    effort = body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort")
    return effort != "none" if effort else None


def _format(wanted: Body) -> Any:
    if wanted.get("type") == "json_schema":
        return (wanted.get("json_schema") or {}).get("schema")
    return "json" if wanted.get("type") == "json_object" else None


class _Voice:
    """What both endpoints have in common: events, and the end in one HTTP chunk."""

    stream_type = "text/event-stream"
    stream_headers: Headers = ()
    whole_type = "application/json"

    def __init__(self, ask: Ask, body: Body, answer: Answer) -> None:
        self._ask = ask
        self._answer = answer
        self._number = random.randrange(1000)
        self._created = int(time.time())
        self._before, self._after = self._event_around_choices(encode(ask.model))
        options = body.get("stream_options") or {}
        self._usage_wanted = bool(options.get("include_usage"))

    def opening(self) -> list[bytes]:
        return []

    def say(self, pieces: Sequence[Piece]) -> list[bytes]:
        return [self._before + self._choice(piece) + self._after for piece in pieces]

    def closing(self, run: Run) -> list[bytes]:
        last = self._last_choice(encode(self._reason(run)))
        usage = b""
        if self._usage_wanted:
            usage = b'%b%b,"usage":%b}\n\n' % (self._before, self._after[:-3], self._usage(run))
        return [self._before + last + self._after + usage + b"data: [DONE]\n\n"]

    def broken(self) -> list[bytes]:
        before, after = self._event_around_choices(b'""')
        return [before + self._choice(Piece(Kind.TEXT, "")) + after]

    def _reason(self, run: Run) -> str | None:
        return "tool_calls" if self._answer.call and run.reason else run.reason

    def _usage(self, run: Run) -> bytes:
        return encode(
            {
                "prompt_tokens": run.prompt_count,
                "completion_tokens": run.eval_count,
                "total_tokens": run.prompt_count + run.eval_count,
            }
        )

    def _whole(self, kind: str, number: str, choice: Body, run: Run) -> bytes:
        answer = {
            "id": number,
            "object": kind,
            "created": self._created,
            "model": self._ask.model,
            "system_fingerprint": "fp_ollama",
            "choices": [choice],
            "usage": orjson.Fragment(self._usage(run)),
        }
        return encode(answer) + b"\n"

    def _event_around_choices(self, model: bytes) -> tuple[bytes, bytes]:
        raise NotImplementedError

    def _choice(self, piece: Piece) -> bytes:
        raise NotImplementedError

    def _last_choice(self, reason: bytes) -> bytes:
        raise NotImplementedError


class ChatVoice(_Voice):
    # Only the first delta has it.
    _role = b'"role":"assistant",'

    def whole(self, run: Run) -> bytes:
        choice = {"index": 0, "message": self._message(), "finish_reason": self._reason(run)}
        if self._ask.top_logprobs is not None and run.reason:
            choice["logprobs"] = {"content": orjson.Fragment(self._logprobs(self._answer.pieces))}
        return self._whole("chat.completion", f"chatcmpl-{self._number}", choice, run)

    def _event_around_choices(self, model: bytes) -> tuple[bytes, bytes]:
        before = (
            b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"fp_ollama","choices":[' % (self._number, self._created, model)
        )
        return before, b"]}\n\n"

    def _choice(self, piece: Piece) -> bytes:
        role, self._role = self._role, b""
        more = b""
        if self._ask.top_logprobs is not None:
            more = b',"logprobs":{"content":%b}' % self._logprobs([piece])
        delta = role + self._delta(piece)
        return b'{"index":0,"delta":{%b},"finish_reason":null%b}' % (delta, more)

    def _delta(self, piece: Piece) -> bytes:
        if piece.kind is Kind.TEXT:
            return b'"content":' + encode(piece.text)
        if piece.kind is Kind.THINKING:
            return b'"content":"","reasoning":' + encode(piece.text)
        return b'"content":"","tool_calls":' + encode(self._tool_calls())

    def _last_choice(self, reason: bytes) -> bytes:
        return b'{"index":0,"delta":{},"finish_reason":%b}' % reason

    def _message(self) -> Body:
        message: Body = {"role": "assistant", "content": self._answer.text(Kind.TEXT)}
        if thinking := self._answer.text(Kind.THINKING):
            message["reasoning"] = thinking
        if self._answer.call:
            message["tool_calls"] = self._tool_calls()
        return message

    def _tool_calls(self) -> list[Body]:
        call = self._answer.call
        if call is None:
            return []
        function = {"name": call.name, "arguments": encode(call.arguments).decode()}
        return [{"id": call.id, "index": 0, "type": "function", "function": function}]

    def _logprobs(self, pieces: Sequence[Piece]) -> bytes:
        return logprobs(pieces, self._ask.top_logprobs or 0)


class CompletionVoice(_Voice):
    def whole(self, run: Run) -> bytes:
        text = self._answer.text(Kind.TEXT)
        choice = {"text": text, "index": 0, "finish_reason": self._reason(run)}
        return self._whole("text_completion", f"cmpl-{self._number}", choice, run)

    def _event_around_choices(self, model: bytes) -> tuple[bytes, bytes]:
        before = b'data: {"id":"cmpl-%d","object":"text_completion","created":%d,"choices":[' % (
            self._number,
            self._created,
        )
        return before, b'],"model":%b,"system_fingerprint":"fp_ollama"}\n\n' % model

    def _choice(self, piece: Piece) -> bytes:
        text = encode(piece.text if piece.kind is Kind.TEXT else "")
        return b'{"text":%b,"index":0,"finish_reason":null}' % text

    def _last_choice(self, reason: bytes) -> bytes:
        return b'{"text":"","index":0,"finish_reason":%b}' % reason

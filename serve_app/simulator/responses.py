"""OpenAI's Responses dialect: /v1/responses, without any state."""

from collections.abc import Sequence
from typing import Any

from serve_app.go_json import encode
from serve_app.simulator.bodies import Body
from serve_app.simulator.model_output import ModelOutput, Token, TokenKind, Tool
from serve_app.simulator.ollama import split_words
from serve_app.simulator.response_object import OpenAIResponseObject
from serve_app.simulator.tasks import GenerationRequest, GenerationStats, PromptMessage
from serve_app.simulator.wire import EVENT_HEADERS


def parse_response(body: Body) -> GenerationRequest:
    """Parse the body of /v1/responses."""
    prompt = body.get("input") or []
    items = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [PromptMessage(item.get("role", ""), split_words(item)) for item in items]
    if body.get("instructions"):
        messages.insert(0, PromptMessage("system", str(body["instructions"]).split()))
    effort = (body.get("reasoning") or {}).get("effort")
    return GenerationRequest(
        model=body.get("model") or "",
        messages=messages,
        stream=bool(body.get("stream")),
        limit=max(0, body.get("max_output_tokens") or 0),
        format=_format((body.get("text") or {}).get("format") or {}),
        tools=[Tool(f["name"], f.get("parameters") or {}) for f in _functions(body)],
        tool_result=bool(items) and items[-1].get("type") == "function_call_output",
        think=effort != "none" if effort else None,
    )


def _functions(body: Body) -> list[Body]:
    return [tool for tool in body.get("tools") or () if tool.get("name")]


def _format(format_: Body) -> Any:
    if format_.get("type") == "json_schema":
        return format_.get("schema")
    return "json" if format_.get("type") == "json_object" else None


class OpenAIResponseWriter:
    """Writes an answer of /v1/responses."""

    stream_type = "text/event-stream"
    stream_headers = EVENT_HEADERS
    whole_type = "application/json"

    def __init__(self, request: GenerationRequest, body: Body, output: ModelOutput) -> None:
        self._output = output
        self._object = OpenAIResponseObject(request, body, output)
        self._kind: TokenKind | None = None
        self._index = -1
        self._sequence = -1

    def first_chunks(self) -> list[bytes]:
        response = self._object.in_progress()
        kinds = ("response.created", "response.in_progress")
        return [self._event(kind, response=response) for kind in kinds]

    def chunks(self, tokens: Sequence[Token]) -> list[bytes]:
        chunks: list[bytes] = []
        for token in tokens:
            if token.kind is not self._kind:
                chunks += self._stop_item()
                chunks += self._start_item(token.kind)
            chunks.append(self._delta(token))
            if token.kind is TokenKind.CALL:
                chunks += self._stop_item()
        return chunks

    def last_chunks(self, stats: GenerationStats) -> list[bytes]:
        stop = self._stop_item()
        return [*stop, self._event("response.completed", response=self._object.completed(stats))]

    def whole(self, stats: GenerationStats) -> bytes:
        return encode(self._object.completed(stats)) + b"\n"

    def _event(self, kind: str, **facts: Any) -> bytes:
        self._sequence += 1
        facts |= {"sequence_number": self._sequence, "type": kind}
        # A Go map, whose keys are sorted, unlike those of the whole answer.
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(facts, sort=True))

    def _about(self, kind: TokenKind, name: str, **facts: Any) -> bytes:
        place = {"item_id": self._object.item_ids[kind], "output_index": self._index}
        return self._event(f"response.{name}", **place, **facts)

    def _about_item(self, name: str, item: Body) -> bytes:
        return self._event(f"response.output_item.{name}", item=item, output_index=self._index)

    def _start_item(self, kind: TokenKind) -> list[bytes]:
        self._kind = kind
        self._index += 1
        chunks = [self._about_item("added", self._object.empty_item(kind))]
        if kind is TokenKind.TEXT:
            part = {**self._object.part(), "text": ""}
            chunks.append(self._about(kind, "content_part.added", content_index=0, part=part))
        return chunks

    def _delta(self, token: Token) -> bytes:
        kind = token.kind
        if kind is TokenKind.CALL:
            arguments = self._object.item(kind)["arguments"]
            return self._about(kind, "function_call_arguments.delta", delta=arguments)
        if kind is TokenKind.THINKING:
            name = "reasoning_summary_text.delta"
            return self._about(kind, name, delta=token.text, summary_index=0)
        name = "output_text.delta"
        return self._about(kind, name, delta=token.text, content_index=0, logprobs=[])

    def _stop_item(self) -> list[bytes]:
        kind, self._kind = self._kind, None
        if kind is None:
            return []
        done = self._done(kind)
        return [*done, self._about_item("done", self._object.item(kind))]

    def _done(self, kind: TokenKind) -> list[bytes]:
        text = self._output.text(kind)
        if kind is TokenKind.CALL:
            arguments = self._object.item(kind)["arguments"]
            return [self._about(kind, "function_call_arguments.done", arguments=arguments)]
        if kind is TokenKind.THINKING:
            return [self._about(kind, "reasoning_summary_text.done", summary_index=0, text=text)]
        at = {"content_index": 0}
        return [
            self._about(kind, "output_text.done", **at, logprobs=[], text=text),
            self._about(kind, "content_part.done", **at, part=self._object.part()),
        ]

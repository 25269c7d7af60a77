"""The response object of OpenAI's Responses dialect and the items of its output."""

import random
import time
from collections.abc import Iterable
from typing import Any

import orjson

from serve_app.go_json import encode, go_number
from serve_app.simulator.bodies import Body
from serve_app.simulator.model_output import ModelOutput, TokenKind
from serve_app.simulator.tasks import GenerationRequest, GenerationStats


class OpenAIResponseObject:
    """The response object of one answer. Some parts of a streamed one differ, as in Ollama."""

    def __init__(self, request: GenerationRequest, body: Body, output: ModelOutput) -> None:
        self._model = request.model
        self._body = body
        self._output = output
        self._streamed = request.stream
        self._created = int(time.time())
        self._id = f"resp_{random.randrange(1_000_000)}"
        number = f"{random.randrange(1_000_000)}"
        source = number if request.stream else self._id
        self.item_ids = {
            TokenKind.TEXT: f"msg_{number}",
            TokenKind.THINKING: f"rs_{source}",
            TokenKind.CALL: f"fc_{source}_0",
        }

    def in_progress(self) -> Body:
        return {**self._fields("in_progress", []), "completed_at": None, "usage": None}

    def completed(self, stats: GenerationStats) -> Body:
        kinds = {token.kind for token in self._output.tokens}
        if not self._streamed:
            kinds = kinds or {TokenKind.TEXT}
        order = (TokenKind.THINKING, TokenKind.TEXT, TokenKind.CALL)
        items = [self.item(kind) for kind in order if kind in kinds]
        return {**self._fields("completed", items), "usage": _usage(stats)}

    def item(self, kind: TokenKind) -> Body:
        about = {"id": self.item_ids[kind], "type": "message", "status": "completed"}
        if kind is TokenKind.TEXT:
            return {**about, "role": "assistant", "content": [self.part()]}
        if kind is TokenKind.CALL:
            return {**about, "type": "function_call", **self._call()}
        text = self._output.text(kind)
        summary = [{"type": "summary_text", "text": text}]
        thought = {"id": about["id"], "type": "reasoning", "summary": summary}
        return {**thought, "encrypted_content": text}

    def empty_item(self, kind: TokenKind) -> Body:
        """Build an item as the event `response.output_item.added` shows it."""
        item = {**self.item(kind), "status": "in_progress"}
        if kind is TokenKind.THINKING:
            return {"id": item["id"], "type": "reasoning", "summary": []}
        return {**item, "arguments": ""} if kind is TokenKind.CALL else {**item, "content": []}

    def part(self) -> Body:
        text = self._output.text(TokenKind.TEXT)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _call(self) -> Body:
        call = self._output.call
        if call is None:
            return {}
        return {"call_id": call.id, "name": call.name, "arguments": encode(call.arguments).decode()}

    def _fields(self, status: str, output: list[Body]) -> Body:
        body = self._body
        text = body.get("text") or {}
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()),
            "status": status,
            "incomplete_details": None,
            "model": self._model,
            "previous_response_id": None,
            "instructions": body.get("instructions") or None,
            "output": output,
            "error": None,
            "tools": _tools(body.get("tools") or ()),
            "tool_choice": "auto",
            "truncation": "disabled",
            "parallel_tool_calls": True,
            "text": {"format": text.get("format") or {"type": "text"}},
            "top_p": go_number(_or_default(body.get("top_p"), 1)),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": go_number(_or_default(body.get("temperature"), 1)),
            "reasoning": self._reasoning(),
            "usage": None,
            "max_output_tokens": body.get("max_output_tokens"),
            "max_tool_calls": None,
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": None,
            "prompt_cache_key": None,
        }

    def _reasoning(self) -> Body | None:
        options = self._body.get("reasoning") or {}
        if not options.get("effort"):
            return None
        reasoning = {"effort": options["effort"]}
        if self._streamed or options.get("summary"):
            reasoning["summary"] = options.get("summary")
        return reasoning


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value


def _tools(tools: Iterable[Body]) -> list[Body]:
    return [
        {
            "type": tool.get("type"),
            "name": tool.get("name"),
            "description": tool.get("description"),
            "strict": tool.get("strict"),
            "parameters": orjson.Fragment(encode(tool.get("parameters"), sort=True)),
        }
        for tool in tools
    ]


def _usage(stats: GenerationStats) -> dict[str, Any]:
    return {
        "input_tokens": stats.prompt_count,
        "output_tokens": stats.eval_count,
        "total_tokens": stats.prompt_count + stats.eval_count,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }

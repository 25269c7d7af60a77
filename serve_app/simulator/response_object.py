"""The response object of OpenAI's Responses dialect and the items of its output."""

import random
import time
from collections.abc import Iterable
from typing import Any

import orjson

from serve_app.go_json import encode, number
from serve_app.simulator.answer import Answer, Kind
from serve_app.simulator.bodies import Body
from serve_app.simulator.jobs import Ask, Run


class ResponseObject:
    """Built of one answer; `streamed` because Ollama builds some parts of a stream otherwise."""

    def __init__(self, ask: Ask, body: Body, answer: Answer) -> None:
        self._model = ask.model
        self._body = body
        self._answer = answer
        self._streamed = ask.stream
        self._created = int(time.time())
        self._id = f"resp_{random.randrange(1_000_000)}"
        thing = f"{random.randrange(1_000_000)}"
        source = thing if ask.stream else self._id
        self.item_ids = {
            Kind.TEXT: f"msg_{thing}",
            Kind.THINKING: f"rs_{source}",
            Kind.CALL: f"fc_{source}_0",
        }

    def in_progress(self) -> Body:
        return {**self._fields("in_progress", []), "completed_at": None, "usage": None}

    def completed(self, run: Run) -> Body:
        said = {piece.kind for piece in self._answer.pieces}
        if not self._streamed:
            said = said or {Kind.TEXT}
        order = (Kind.THINKING, Kind.TEXT, Kind.CALL)
        items = [self.item(kind) for kind in order if kind in said]
        return {**self._fields("completed", items), "usage": _usage(run)}

    def item(self, kind: Kind) -> Body:
        about = {"id": self.item_ids[kind], "type": "message", "status": "completed"}
        if kind is Kind.TEXT:
            return {**about, "role": "assistant", "content": [self.part()]}
        if kind is Kind.CALL:
            return {**about, "type": "function_call", **self._call()}
        text = self._answer.text(kind)
        summary = [{"type": "summary_text", "text": text}]
        thought = {"id": about["id"], "type": "reasoning", "summary": summary}
        return {**thought, "encrypted_content": text}

    def empty_item(self, kind: Kind) -> Body:
        """As it is announced."""
        item = {**self.item(kind), "status": "in_progress"}
        if kind is Kind.THINKING:
            return {"id": item["id"], "type": "reasoning", "summary": []}
        return {**item, "arguments": ""} if kind is Kind.CALL else {**item, "content": []}

    def part(self) -> Body:
        text = self._answer.text(Kind.TEXT)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _call(self) -> Body:
        call = self._answer.call
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
            "top_p": number(_given(body.get("top_p"), 1)),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": number(_given(body.get("temperature"), 1)),
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
        wanted = self._body.get("reasoning") or {}
        if not wanted.get("effort"):
            return None
        told = {"effort": wanted["effort"]}
        if self._streamed or wanted.get("summary"):
            told["summary"] = wanted.get("summary")
        return told


def _given(value: float | None, default: float) -> float:
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


def _usage(run: Run) -> dict[str, Any]:
    return {
        "input_tokens": run.prompt_count,
        "output_tokens": run.eval_count,
        "total_tokens": run.prompt_count + run.eval_count,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }

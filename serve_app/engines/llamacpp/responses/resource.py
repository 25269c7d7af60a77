"""The response object, which describes an answer beside its events."""

import secrets
import time
from typing import Any

from serve_app.engines.llamacpp.answers import Done
from serve_app.engines.llamacpp.client import Json


class ResponseObject:
    """Builds response objects with the fields of a real Ollama, in its order."""

    def __init__(self, model: str, body: Json) -> None:
        self._model = model
        self._body = body
        self._id = new_id("resp")
        self._created_at = int(time.time())

    def in_progress(self) -> Json:
        return self._fields("in_progress", [], None)

    def ended(self, status: str, output: list[Json], done: Done) -> Json:
        """Return the object of an ended answer. `status`: completed or incomplete."""
        fields = self._fields(status, output, _usage(done))
        if status == "completed":
            return fields | {"completed_at": int(time.time())}
        return fields | {"incomplete_details": {"reason": "max_output_tokens"}}

    def _fields(self, status: str, output: list[Json], usage: Json | None) -> Json:
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "completed_at": None,
            "status": status,
            "incomplete_details": None,
            "model": self._model,
            "previous_response_id": None,
            "instructions": body.get("instructions"),
            "output": output,
            "error": None,
            "tools": [_tool(tool) for tool in body.get("tools") or ()],
            "tool_choice": _or_default(body.get("tool_choice"), "auto"),
            "truncation": _or_default(body.get("truncation"), "disabled"),
            "parallel_tool_calls": _or_default(body.get("parallel_tool_calls"), True),
            "text": {"format": {"type": "text"}, **(body.get("text") or {})},
            "top_p": _or_default(body.get("top_p"), 1),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": _or_default(body.get("top_logprobs"), 0),
            "temperature": _or_default(body.get("temperature"), 1),
            "reasoning": self._reasoning(),
            "usage": usage,
            "max_output_tokens": body.get("max_output_tokens"),
            "max_tool_calls": body.get("max_tool_calls"),
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": body.get("metadata") or {},
            "safety_identifier": body.get("safety_identifier"),
            "prompt_cache_key": body.get("prompt_cache_key"),
            "user": body.get("user"),
        }

    def _reasoning(self) -> Json | None:
        reasoning = self._body.get("reasoning") or {}
        shown = {name: reasoning.get(name) for name in ("effort", "summary")}
        return shown if any(shown.values()) else None


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _tool(tool: Json) -> Json:
    names = ("type", "name", "description", "strict", "parameters")
    return {name: tool.get(name) for name in names}


def _usage(done: Done) -> Json:
    timings = done.end.timings
    cached, generated = timings.get("cache_n", 0), timings.get("predicted_n", 0)
    prompt = cached + timings.get("prompt_n", 0)
    return {
        "input_tokens": prompt,
        "output_tokens": generated,
        "total_tokens": prompt + generated,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": done.end.thinking_tokens},
    }

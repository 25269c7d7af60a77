"""Checks OpenAI's chat and completion requests before llama.cpp reads them.

llama.cpp ignores unknown fields and some fields of a wrong type. Here every field works or is
refused by name. Fields without effect in any engine are dropped earlier: see `api/fields.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from serve_app.engines.base import Call, ModelCard
from serve_app.engines.llamacpp.abilities import (
    check_completes,
    check_suffix,
    check_thinks,
    check_tools,
)
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.openai.tools import tools
from serve_app.engines.llamacpp.options import LEVELS, response_format, thinking
from serve_app.errors import BadRequest

_LEVELS = {"minimal": "low", "xhigh": "max"}  # from OpenAI's names to Ollama's
_MAX_BIAS = 100

# Fields that would change the kind of answer, with their harmless values and the refusal.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "must be 1: a request gets one answer"),
    "best_of": ((1,), "must be 1: a request gets one answer"),
    "echo": ((False,), "is not supported: the answer is the completion alone"),
    "functions": (([],), "is not supported: send tools"),
    "function_call": (("none", "auto"), "is not supported: send tools and tool_choice"),
    "modalities": ((["text"],), 'must be ["text"]'),
    "audio": ((), "is not supported: answers are text"),
    "web_search_options": ((), "is not supported: the engine has no access to the web"),
    "moderation": ((), "is not supported"),
}
_TYPES: dict[str, tuple[type, str]] = {
    "stream_options": (dict, "an object"),
    "parallel_tool_calls": (bool, "a boolean"),
    "tools": (list, "a list"),
    "suffix": (str, "a string"),
}


def checked(call: Call, card: ModelCard) -> Call:
    """Return `call` in llama.cpp's terms; calls of other routes unchanged. Raises BadRequest."""
    check = _CHECKS.get(call.path)
    if check is None:
        return call
    try:
        body = check(orjson.loads(call.body), call.model, card)
    except Refusal as exc:
        raise BadRequest(str(exc)) from exc
    return replace(call, body=orjson.dumps(body))


def _chat(body: Json, model: str, card: ModelCard) -> Json:
    check_completes(model, card, "chat")
    body = _common(body)
    check_tools(model, card, body.get("tools"))
    if not isinstance(body.get("logprobs", False), bool):
        raise Refusal(400, "logprobs must be a boolean")
    fields = _format(body.pop("response_format", None))
    fields |= tools(body) | _thinking(body, model, card)
    return body | fields


def _completion(body: Json, model: str, card: ModelCard) -> Json:
    check_completes(model, card, "generate")
    body = _common(body)
    check_suffix(model, body.pop("suffix", None))
    if isinstance(body.get("logprobs", 0), bool) or not isinstance(body.get("logprobs", 0), int):
        raise Refusal(400, "logprobs must be a whole number")
    return body


_CHECKS: dict[str, Callable[[Json, str, ModelCard], Json]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
}


def _common(body: Json) -> Json:
    """Check fields of both routes; return `body` without nulls and without default values."""
    body = {name: value for name, value in body.items() if value is not None}
    for name, (harmless, reason) in _REFUSED.items():
        if name in body and not _is_one_of(body.pop(name), harmless):
            raise Refusal(400, f"{name} {reason}")
    for name, (kind, words) in _TYPES.items():
        if name in body and not isinstance(body[name], kind):
            raise Refusal(400, f"{name} must be {words}")
    stop = body.get("stop", [])
    if not all(isinstance(text, str) for text in (stop if isinstance(stop, list) else [stop])):
        raise Refusal(400, "stop must be a string or a list of strings")
    _check_bias(body.get("logit_bias", {}))
    return body


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Compare with types, so that 1 differs from true."""
    return any(type(value) is type(one) and value == one for one in values)


def _check_bias(bias: Any) -> None:
    if not (isinstance(bias, dict) and all(map(_is_bias, bias.items()))):
        limits = f"from -{_MAX_BIAS} to {_MAX_BIAS}"
        raise Refusal(400, f"logit_bias must be an object: token ids, with numbers {limits}")


def _is_bias(pair: tuple[str, Any]) -> bool:
    token, value = pair
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return token.isdecimal() and number and -_MAX_BIAS <= value <= _MAX_BIAS


def _format(value: Any) -> Json:
    """Translate a `response_format`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, "response_format must be an object with a type")
    kind = value.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return response_format(value.get("schema") or "json")
    if kind != "json_schema":
        words = 'must be "text", "json_object" or "json_schema"'
        raise Refusal(400, f"response_format.type {words}, not {str(kind)[:100]!r}")
    named = value.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise Refusal(400, "response_format.json_schema.schema must be a JSON schema")
    return response_format(schema)


def _thinking(body: Json, model: str, card: ModelCard) -> Json:
    """Translate `reasoning_effort`, or Ollama's `reasoning`."""
    reasoning = body.pop("reasoning", {})
    if not isinstance(reasoning, dict):
        raise Refusal(400, "reasoning must be an object")
    effort = body.pop("reasoning_effort", None) or reasoning.get("effort")
    if effort is None:
        return {}
    check_thinks(model, card, effort != "none")
    level = _LEVELS.get(effort, effort) if isinstance(effort, str) else effort
    if level not in (*LEVELS, "none"):
        raise Refusal(400, f"reasoning_effort must be none or one of {', '.join(LEVELS)}")
    return thinking(False if level == "none" else level) if "thinking" in card.capabilities else {}
